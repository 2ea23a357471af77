/** Follows `<phase>-serial.log` while a connector writes it, into the job's serial log. */
import { join } from "node:path";
import type { Clock } from "../clock.ts";
import type { Outbox } from "../outbox/outbox.ts";
import type { Phase } from "../phases.ts";
import type { Secrets } from "../process/redactor.ts";
import { utf8Cleaner } from "../process/utf8.ts";
import { openForReading } from "./regular_file.ts";

/** A person who watches a boot over serial sees it within half a second. */
const LOOK_EVERY_MS = 500;
const CHUNK_BYTES = 64 * 1024;

/** What a tail reads from and writes to. */
export interface SerialTailOptions {
  outbox: Outbox;
  phase: Phase;
  /** The job's folder. */
  folder: string;
  secrets: Secrets;
  clock: Clock;
}

/**
 * Copies what is and will be in the serial log of the phase until `over` aborts, and then the rest.
 * Never throws: the serial log is an extra.
 */
export async function tailSerial(options: SerialTailOptions, over: AbortSignal): Promise<void> {
  const { outbox, phase, clock } = options;
  const path = join(options.folder, `${phase}-serial.log`);
  const cleaner = utf8Cleaner();
  const redactor = options.secrets.stream();
  const emit = (bytes: Uint8Array) => outbox.appendLog("serial", phase, bytes);
  let offset = 0;
  const readOn = async () => {
    for (const bytes of readFrom(path, offset)) {
      offset += bytes.length;
      await emit(redactor.push(cleaner.push(bytes)));
    }
  };
  try {
    while (!over.aborted) {
      await readOn();
      await clock.sleep(LOOK_EVERY_MS, over).catch(() => {});
    }
    await readOn();
    await emit(redactor.push(cleaner.flush()));
    await emit(redactor.flush());
  } catch {
    // A full disk: the phase's own log says so.
  }
}

/** The bytes of a regular file from `offset` on; nothing when there is no such file. */
function* readFrom(path: string, offset: number): Generator<Uint8Array> {
  let file;
  try {
    file = openForReading(path);
  } catch {
    return; // Not there yet, or nothing that a connector has written.
  }
  using open = file;
  for (let at = offset; at < open.size;) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const read = open.read(chunk, at);
    if (read === 0) return;
    at += read;
    yield chunk.subarray(0, read);
  }
}
