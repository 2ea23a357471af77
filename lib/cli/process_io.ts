/**
 * What a process prints, and how it ends when something goes wrong that nothing else has dealt with:
 * in one line and with a status, never with a trace of the program's insides.
 */
import { writeAllSync } from "../bytes.ts";
import { messageOf } from "../message.ts";
import { type Io, PROGRAM } from "./command.ts";

/** What a shell shows for a program that SIGPIPE has ended, as it ends others. */
const BROKEN_PIPE_STATUS = 141;
const FAILED_STATUS = 1;

/** A pipe whose reader is slow, made non-blocking by another program: it is tried again after so long. */
const PAUSE_MS = 5;

type Output = Pick<Io, "stdout" | "stderr">;

/** Writes to the process's own streams, all of each text. */
export function ownOutput(): Output {
  return {
    stdout(text) {
      try {
        writeText(Deno.stdout, text);
      } catch (error) {
        endForOutput(error);
      }
    },
    stderr(text) {
      try {
        writeText(Deno.stderr, text);
      } catch {
        // Nobody is left to be told; what is being done goes on.
      }
    },
  };
}

/** What becomes of an error that nobody has caught. */
export interface Uncaught {
  /** Ends the process for it. */
  end(error: unknown): never;
  /** From now on `handle` is told, and the process goes on. */
  handOver(handle: (error: unknown) => void): void;
}

/** Ends the process when an error comes through that nothing has caught, until a handler is set. */
export function endOnError({ stderr }: Pick<Output, "stderr">): Uncaught {
  const end = (error: unknown): never => {
    stderr(`${PROGRAM}: ${whatWentWrong(error)}\n`);
    Deno.exit(FAILED_STATUS);
  };
  let handle: (error: unknown) => void = end;
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    handle(event.error);
  });
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    handle(event.reason);
  });
  return {
    end,
    handOver(next) {
      handle = next;
    },
  };
}

/** Nobody reads the output any more, or its disk is full. */
function endForOutput(error: unknown): never {
  if (error instanceof Deno.errors.BrokenPipe) Deno.exit(BROKEN_PIPE_STATUS);
  ownOutput().stderr(`${PROGRAM}: the output cannot be written: ${messageOf(error)}\n`);
  Deno.exit(FAILED_STATUS);
}

/** Another process may have made the stream non-blocking: then it takes nothing while it is full. */
function writeText(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  const writeSync = (bytes: Uint8Array) => {
    try {
      return stream.writeSync(bytes);
    } catch (error) {
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS);
      return 0;
    }
  };
  writeAllSync({ writeSync }, new TextEncoder().encode(text));
}

/** For a person: what happened. For a developer: where. */
function whatWentWrong(error: unknown): string {
  if (error instanceof Deno.errors.NotFound && isGone()) {
    return "the folder that it was started in is gone: change to another one";
  }
  const place = error instanceof Error
    ? /^\s+at .*?([^/\s(]+:\d+):\d+\)?$/m.exec(error.stack ?? "")
    : null;
  const where = place === null ? "" : ` (${place[1]})`;
  return `${messageOf(error)}${where}. This should not happen: please report it`;
}

function isGone(): boolean {
  try {
    Deno.cwd();
    return false;
  } catch {
    return true;
  }
}
