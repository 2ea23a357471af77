/** The logs of one job, as the server keeps them: appended as they come, never deduplicated. */
import { type Phase, PHASES } from "../phases.ts";

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
