/** Waiting for something to become true, without asking again and again. */

interface Waiter {
  /** Whether the wait is over. */
  look(): boolean;
}

/** Those who wait for a change. */
export class Changes {
  #waiters = new Set<Waiter>();

  /** Tells all waiters to look again. */
  notify(): void {
    for (const waiter of this.#waiters) {
      if (waiter.look()) this.#waiters.delete(waiter);
    }
  }

  /**
   * Resolves with what `predicate` returns, as soon as that is anything but false, null or
   * undefined.
   *
   * @throws the signal's reason, or what `predicate` throws.
   */
  wait<T>(
    predicate: () => T | false | null | undefined,
    signal?: AbortSignal,
  ): Promise<T> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const waiter: Waiter = {
        look() {
          try {
            const value = predicate();
            if (value === false || value === null || value === undefined) return false;
            resolve(value);
          } catch (error) {
            reject(error);
          }
          signal?.removeEventListener("abort", abort);
          return true;
        },
      };
      const abort = () => {
        this.#waiters.delete(waiter);
        reject(signal?.reason);
      };
      if (waiter.look()) return;
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiters.add(waiter);
    });
  }
}
