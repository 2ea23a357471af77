/** The two long answers, results and logs, written piece by piece: a log may be 100 MB. */
import { type Phase } from "../phases.ts";
import { asciiJson, sortKeys } from "./answers.ts";
import { type JobLog, LOG_KEYS, type LogType, type StoredFragment } from "./job_log.ts";

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
