import type { Log } from "../../lib/log.ts";
import { fullMessageOf } from "./errors.ts";

/**
 * Something that must be put back however the stage ends: a storage mux, a mount, a file server.
 * Put it back with `run` at the end of the good path, which throws what goes wrong; declared with
 * `await using` it is also put back on every other path, where a failure is only logged.
 */
export interface PutBack extends AsyncDisposable {
  /** Puts it back now, unless that has been done already. */
  run(): Promise<void>;
}

/** What is to be put back, last first. */
export interface PutBackStack {
  /** @param name what is put back, for the log: "storage to the device". */
  add(name: string, action: () => Promise<void>): PutBack;
  /** Puts back everything that has not been; failures are logged. */
  runAll(): Promise<void>;
}

/** Makes an empty stack. */
export function putBackStack(log: Log): PutBackStack {
  const pending: PutBack[] = [];
  return {
    add(name, action) {
      let done: Promise<void> | undefined;
      const entry: PutBack = {
        run() {
          const index = pending.indexOf(entry);
          if (index >= 0) pending.splice(index, 1);
          done ??= action();
          return done;
        },
        async [Symbol.asyncDispose]() {
          const first = done === undefined;
          try {
            await entry.run();
          } catch (error) {
            // The caller of run() has been told.
            if (first) log.error(`Cannot put back ${name}: ${fullMessageOf(error)}`);
          }
        },
      };
      pending.push(entry);
      return entry;
    },
    async runAll() {
      for (let entry = pending.at(-1); entry !== undefined; entry = pending.at(-1)) {
        await entry[Symbol.asyncDispose]();
      }
    },
  };
}
