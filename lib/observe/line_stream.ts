/**
 * Lines to a stream that may not be read: a terminal that is stopped, a pipe whose reader sleeps, a
 * journal that hangs. The writer never waits, and what nobody reads is dropped and counted.
 */
import { systemClock } from "../clock.ts";
import { within } from "../wait.ts";
import { writeAll } from "../bytes.ts";

/** As much as a reader may fall behind. */
const MOST_LINES = 1000;

/** How long the last lines may take at the end. */
const CLOSE_LIMIT_MS = 1000;

/** A stream of lines. */
export interface LineStream {
  /** Returns at once. */
  write(line: string): void;
  /** Waits for what was written, if it is read within a second. */
  close(): Promise<void>;
}

/** Makes a stream of lines; a stream that is closed at the other end swallows them. */
export function createLineStream(
  stream: { write(bytes: Uint8Array): Promise<number> },
): LineStream {
  const encoder = new TextEncoder();
  let lines: string[] = [];
  let dropped = 0;
  let writing: Promise<void> | undefined;

  const writeLines = async () => {
    // Lines that are written in the same breath go out together.
    await Promise.resolve();
    while (lines.length > 0) {
      if (dropped > 0) {
        lines.push(`(${dropped} lines are left out here: they were not read in time)`);
      }
      const text = lines.map((line) => `${line}\n`).join("");
      lines = [];
      dropped = 0;
      try {
        await writeAll(stream, encoder.encode(text));
      } catch {
        // The terminal is gone or the pipe has no reader: there is nobody left to tell.
      }
    }
    // At once: a line that comes before anybody hears of the end would wait for the next one.
    writing = undefined;
  };

  return {
    write(line) {
      if (lines.length >= MOST_LINES) dropped++;
      else lines.push(line);
      writing ??= writeLines();
    },
    async close() {
      if (writing !== undefined) await within(writing, { clock: systemClock, ms: CLOSE_LIMIT_MS });
    },
  };
}
