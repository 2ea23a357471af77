import { PHASES } from "../phases.ts";
import type { Answer, ResultView } from "./api.ts";
import { isHtml } from "./failure.ts";
import { JsonFault, ObjectScanner, type ScanOptions } from "./json_scan.ts";
import type { Received } from "./received.ts";

/** What is wrong with a page for people where JSON should be. */
export const HTML = "it is HTML, not JSON";

/** The keys of a result under which its logs are. */
const LOG_KEYS = new Map<string, keyof ResultView["logBytes"]>(
  PHASES.flatMap((phase) => [`${phase}_output` as const, `${phase}_serial` as const])
    .map((key) => [key, key]),
);

/** Reads a result as far as `job_state`, and drops the rest: it may be the whole log of the job. */
export async function readJobState(result: Received): Promise<Answer<string | undefined>> {
  let state: string | undefined;
  const scanned = await scan(result, {
    want: (key) => key === "job_state" ? "text" : undefined,
    found: ({ text }) => {
      state = text;
      return true;
    },
  });
  return scanned.ok ? { ok: true, value: state } : scanned;
}

/** Reads a whole result and keeps the state and the lengths of the logs. */
export async function readView(result: Received): Promise<Answer<ResultView>> {
  const view: ResultView = { logBytes: {} };
  const scanned = await scan(result, {
    want: (key) => key === "job_state" ? "text" : LOG_KEYS.has(key) ? "length" : undefined,
    found: ({ key, text, bytes }) => {
      const log = LOG_KEYS.get(key);
      if (log !== undefined) view.logBytes[log] = bytes;
      else if (text !== undefined) view.jobState = text;
    },
  });
  return scanned.ok ? { ok: true, value: view } : scanned;
}

/** The log of a very long job comes nowhere near: what is larger has no end. */
const RESULT_BYTES = 4 * 1024 ** 3;

async function scan(result: Received, options: ScanOptions): Promise<Answer<void>> {
  const scanner = new ObjectScanner(options);
  let bytes = 0;
  try {
    while (!scanner.stopped) {
      const chunk = await result.read();
      if (chunk === undefined) break;
      if (!(chunk instanceof Uint8Array)) return chunk;
      bytes += chunk.length;
      if (bytes > RESULT_BYTES) return result.malformed("it does not end");
      scanner.push(chunk);
    }
  } catch (error) {
    if (!(error instanceof JsonFault)) throw error;
    return result.malformed(isHtml("", result.contentType) ? HTML : error.message);
  } finally {
    await result.release();
  }
  // Nothing at all is how a server says that it knows nothing.
  if (scanner.stopped || scanner.complete || scanner.blank) return { ok: true, value: undefined };
  const message = `${result.what}: the answer ended in the middle`;
  return { ok: false, kind: "unreachable", message };
}
