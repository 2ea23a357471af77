/** Signals put together by hand, for what is done many times while some of them live as long as the agent. */

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
