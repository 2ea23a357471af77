import type { ConnectorContext } from "../connector.ts";

const STEP_PERCENT = 10;
const STEP_MS = 30_000;
const MB = 1_000_000;

/** Says how far something has come, every 10 % (where the total is known) and every 30 s. */
export interface Progress {
  /** @param bytes done so far. */
  at(bytes: number): void;
}

/** Makes a `Progress` for `what` ("downloading image.xz"). */
export function progressOf(
  { limits, log }: Pick<ConnectorContext, "limits" | "log">,
  { what, total }: { readonly what: string; readonly total: number | undefined },
): Progress {
  let saidPercent = 0;
  let saidAt = limits.monotonic();
  return {
    at(bytes) {
      const percent = total ? Math.floor(bytes / total * 100) : 0;
      const step = percent - percent % STEP_PERCENT;
      if (step <= saidPercent && limits.monotonic() - saidAt < STEP_MS) return;
      saidPercent = Math.max(step, saidPercent);
      saidAt = limits.monotonic();
      const done = total ? `${percent} % of ${megabytes(total)}` : `${megabytes(bytes)} so far`;
      log.info(`${what}: ${done}`);
    },
  };
}

function megabytes(bytes: number): string {
  return `${(bytes / MB).toFixed(1)} MB`;
}
