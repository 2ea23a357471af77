/** Waiting: for the first of some signals, for one thing or a time, for a thing unless a signal aborts. */
import type { Clock } from "./clock.ts";

/** A signal that aborts with the first of others. */
export interface Either extends Disposable {
  readonly signal: AbortSignal;
  /** Aborts it by itself. */
  abort(reason?: unknown): void;
}

/** Cheaper than the error that is made where no reason is given. */
const OVER = "over";

/**
 * A signal that aborts with the first of these, with its reason. It lets go of them when it is disposed of:
 * what `AbortSignal.any()` leaves at signals that live long only a full collection of garbage takes away.
 */
export function either(...signals: readonly (AbortSignal | undefined)[]): Either {
  const controller = new AbortController();
  const undo: (() => void)[] = [];
  for (const signal of signals) {
    if (signal === undefined) continue;
    if (signal.aborted) {
      controller.abort(signal.reason);
      break;
    }
    const abort = () => controller.abort(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    undo.push(() => signal.removeEventListener("abort", abort));
  }
  return {
    signal: controller.signal,
    abort: (reason = OVER) => controller.abort(reason),
    [Symbol.dispose]() {
      for (const one of undo) one();
    },
  };
}

/** How long something is waited for. */
export interface Patience {
  clock: Pick<Clock, "sleep">;
  ms: number;
  signal?: AbortSignal | undefined;
}

/**
 * Waits for one thing or a time, whichever is first.
 *
 * @returns what the thing comes to; undefined when the time is over before.
 * @throws what the thing throws; the signal's reason when that aborts before.
 */
export async function within<T>(
  thing: Promise<T>,
  { clock, ms, signal }: Patience,
): Promise<T | undefined> {
  using over = either(signal);
  const time = clock.sleep(ms, over.signal).then(() => undefined);
  try {
    return await Promise.race([thing, time]);
  } finally {
    over.abort();
    await time.catch(() => {});
  }
}

/**
 * The thing, or the signal's reason as soon as it aborts. An abort that was handed to `fetch` does
 * not reach a pending `reader.read()` in Deno 2.9.5 once the `Response` was collected as garbage.
 */
export function unlessAborted<T>(thing: Promise<T>, signal: AbortSignal): Promise<T> {
  const aborted = Promise.withResolvers<never>();
  const abort = () => aborted.reject(signal.reason);
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  return Promise.race([thing, aborted.promise])
    .finally(() => signal.removeEventListener("abort", abort));
}

/** Waits for a thing until it is there or the signal aborts, which is no error. */
export async function untilAborted(thing: Promise<unknown>, signal: AbortSignal): Promise<void> {
  const aborted = Promise.withResolvers<void>();
  const abort = () => aborted.resolve();
  if (signal.aborted) abort();
  else signal.addEventListener("abort", abort, { once: true });
  try {
    await Promise.race([thing, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}
