/**
 * The logs of one job, as the server keeps them: appended as they come, never deduplicated. And the two
 * long answers with them, written piece by piece: a log may be 100 MB.
 */
import { type Phase, PHASES } from "../phases.ts";
import { asciiJson, sortKeys } from "./wire_form.ts";

/** The two logs of a job. */
export const LOG_TYPES = ["output", "serial"] as const;

/** One of the two logs of a job. */
export type LogType = typeof LOG_TYPES[number];

/** One piece of a log, and when it came. */
export interface StoredFragment {
  readonly fragment_number: number;
  /** As the agent gave it. */
  readonly timestamp: string;
  /** A legacy server is not told the phase. */
  readonly phase?: Phase;
  readonly log_data: string;
  /** When it arrived, in milliseconds since 1970. */
  readonly at: number;
}

/** One log of one job. */
export class JobLog {
  /** In the order in which they came. */
  readonly arrivals: StoredFragment[] = [];
  #phases = new Map<Phase | undefined, { fragments: StoredFragment[]; inOrder: boolean }>();

  append(fragment: StoredFragment): void {
    this.arrivals.push(fragment);
    const kept = this.#phases.get(fragment.phase);
    if (kept === undefined) {
      this.#phases.set(fragment.phase, { fragments: [fragment], inOrder: true });
      return;
    }
    const last = kept.fragments.at(-1);
    if (last !== undefined && last.fragment_number > fragment.fragment_number) kept.inOrder = false;
    kept.fragments.push(fragment);
  }

  /** The fragments of one phase as they are now, by number. Later arrivals do not change the list. */
  ofPhase(phase: Phase | undefined): StoredFragment[] {
    const kept = this.#phases.get(phase);
    if (kept === undefined) return [];
    const fragments = kept.fragments.slice();
    return kept.inOrder ? fragments : fragments.sort(byNumber);
  }

  /** Every fragment, by number; those of the same number in the order in which they came. */
  all(): StoredFragment[] {
    return this.arrivals.toSorted(byNumber);
  }
}

function byNumber(a: StoredFragment, b: StoredFragment): number {
  return a.fragment_number - b.fragment_number;
}

/** Pieces of JSON text are gathered until there is this much of it, then sent. */
const CHUNK_CHARS = 64 * 1024;

/**
 * Turns pieces of text into a body, made only as fast as the reader takes it: when the reader
 * leaves, nothing more is made.
 */
export function streamText(pieces: Generator<string>): ReadableStream<Uint8Array<ArrayBuffer>> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    pull(controller) {
      let text = "";
      while (text.length < CHUNK_CHARS) {
        const piece = pieces.next();
        if (piece.done) {
          if (text !== "") controller.enqueue(encoder.encode(text));
          controller.close();
          return;
        }
        text += piece.value;
      }
      controller.enqueue(encoder.encode(text));
    },
    cancel() {
      pieces.return(undefined);
    },
  }, { highWaterMark: 0 });
}

/** Every name under which a result carries a piece of the log: `setup_output`, `test_serial`, ... */
export const LOG_KEYS: ReadonlyMap<string, { phase: Phase; type: LogType }> = new Map(
  PHASES.flatMap((phase) =>
    LOG_TYPES.map((type) => [`${phase}_${type}`, { phase, type }] as const)
  ),
);

/** The logs of a job, where it has any. */
export type JobLogs = Partial<Record<LogType, JobLog>>;

/**
 * `GET /v1/result/{id}`: `values` and all log text, keys in alphabetical order.
 *
 * What the logs hold at the moment of the call is what is written, however slowly it is read.
 */
export function resultText(values: Record<string, unknown>, logs: JobLogs): Generator<string> {
  const texts = new Map<string, StoredFragment[]>();
  for (const [key, { phase, type }] of LOG_KEYS) {
    const fragments = logs[type]?.ofPhase(phase) ?? [];
    if (fragments.some((fragment) => fragment.log_data !== "")) texts.set(key, fragments);
  }
  const kept = Object.fromEntries(Object.entries(values).filter(([key]) => !texts.has(key)));
  return write(kept, texts);
}

function* write(
  values: Record<string, unknown>,
  texts: Map<string, StoredFragment[]>,
): Generator<string> {
  let separator = "{";
  for (const key of [...Object.keys(values), ...texts.keys()].sort()) {
    yield `${separator}${asciiJson(key)}:`;
    separator = ",";
    const fragments = texts.get(key);
    if (fragments === undefined) yield asciiJson(sortKeys(values[key]));
    else yield* quoted(fragments);
  }
  yield separator === "{" ? "{}\n" : "}\n";
}

/** The answer of `GET /v1/result/{id}/log/{type}`. */
export function logText(
  type: LogType,
  phases: Iterable<readonly [Phase, StoredFragment[]]>,
): Generator<string> {
  const sorted = [...phases].sort(([a], [b]) => (a < b ? -1 : 1));
  return (function* () {
    yield `{"${type}":`;
    let separator = "{";
    for (const [phase, fragments] of sorted) {
      const last = fragments.at(-1)?.fragment_number ?? -1;
      yield `${separator}"${phase}":{"last_fragment_number":${last},"log_data":`;
      separator = ",";
      yield* quoted(fragments);
      yield "}";
    }
    yield "}}\n";
  })();
}

/** The fragments' text as one JSON string. */
function* quoted(fragments: StoredFragment[]): Generator<string> {
  yield '"';
  for (const fragment of fragments) yield asciiJson(fragment.log_data).slice(1, -1);
  yield '"';
}
