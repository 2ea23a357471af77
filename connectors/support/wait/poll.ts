import type { ConnectorContext } from "../../context.ts";

/** How often the log says what is waited for. */
const SAY_MS = 30_000;

/** Something that becomes so by itself, or does not. */
export interface Polling {
  /** Completes "Waiting for": "the device to boot". */
  readonly waitingFor: string;
  /** Milliseconds from now. The last look is at their end, unless the one before takes until then. */
  readonly limitMs: number;
  /** Milliseconds between two looks; asked before each pause if it is a function. */
  readonly pauseMs: number | (() => number);
  /** Look once before the first pause. @default false */
  readonly lookFirst?: boolean;
  /**
   * Looks whether it is so.
   *
   * @param leftMs what is left of the limit; 0 at the last look.
   * @returns why it is not so yet; undefined when it is. What it throws ends the waiting.
   */
  look(leftMs: number): Promise<string | undefined>;
}

/**
 * Looks again and again until something is so, and says every 30 s what it waits for.
 *
 * @returns undefined when it is so; what the last look found missing, when the time is over.
 * @throws the signal's reason, when the connector is stopped meanwhile.
 */
export async function pollUntil(
  { clock, log, signal }: Pick<ConnectorContext, "clock" | "log" | "signal">,
  polling: Polling,
): Promise<string | undefined> {
  const { waitingFor, limitMs, pauseMs } = polling;
  const started = clock.monotonic();
  const leftMs = () => Math.max(0, started + limitMs - clock.monotonic());
  let said = started;
  for (let pause = !polling.lookFirst;; pause = true) {
    if (pause) {
      const pauseNow = typeof pauseMs === "number" ? pauseMs : pauseMs();
      await clock.sleep(Math.min(pauseNow, leftMs()), signal);
    }
    const missing = await polling.look(leftMs());
    signal.throwIfAborted();
    if (missing === undefined || leftMs() === 0) return missing;
    const now = clock.monotonic();
    if (now - said < SAY_MS) continue;
    said = now;
    log.info(
      `Waiting for ${waitingFor}, ${Math.round((now - started) / 1000)} s of at most ` +
        `${Math.round(limitMs / 1000)} s so far: ${missing}`,
    );
  }
}
