import { fullMessageOf, RecoveryError } from "../support/errors.ts";
import { pollUntil } from "../support/wait/poll.ts";
import { LONG_CALL_TIMEOUT_MS, type MaasSession, readMachine } from "./client.ts";

const POLL_MS = 10_000;
const RELEASE_LIMIT_MS = 300_000;
const MARK_LIMIT_MS = 30_000;
const POWER_OFF_LIMIT_MS = 60_000;

const READY = "Ready";

/** MAAS is at work, and may be for long: erasing disks takes hours. */
const RELEASING = ["Releasing", "Disk erasing"];

/** Nothing more comes of waiting. */
const RELEASE_FAILED = ["Releasing failed", "Failed disk erasing"];

/** Here `machine abort` has something to abort. */
const ABORTABLE = [...RELEASING, "Commissioning", "Deploying", "Testing"];

/**
 * Releases the machine and waits until it is ready; helps it where it is not.
 *
 * @throws ProvisioningError when MAAS refuses a command.
 * @throws RecoveryError when the machine does not become ready whatever is done.
 */
export async function releaseMachine(session: MaasSession): Promise<void> {
  const { config, log } = session.ctx;
  await command(session, "release");
  let status = await waitUntilReady(session, RELEASE_LIMIT_MS, config.release_timeout_min * 60_000);
  if (status === READY) return;

  log.warning(`The machine is not ready after its release but '${status}': marking it broken`);
  await command(session, "mark-broken");
  await command(session, "mark-fixed");
  status = await waitUntilReady(session, MARK_LIMIT_MS);
  if (status === READY) return;

  log.warning(`The machine is still '${status}': powering it off`);
  const output = await command(session, "power-off");
  if (!session.debug) logOutput(session, "power-off", output);
  status = await waitUntilReady(session, POWER_OFF_LIMIT_MS);
  if (status === READY) return;

  log.warning(`The machine is still '${status}': releasing it once more`);
  if (ABORTABLE.includes(status)) await tryCommand(session, "abort");
  if (await tryCommand(session, "release")) {
    status = await waitUntilReady(session, POWER_OFF_LIMIT_MS);
    if (status === READY) return;
  }
  throw new RecoveryError(
    `The machine ${session.maas.node} cannot be released: MAAS says '${status}', also after ` +
      `marking it broken and fixed and powering it off`,
  );
}

const STEPS = {
  "release": "release the machine",
  "mark-broken": "mark the machine broken",
  "mark-fixed": "mark the machine fixed",
  "power-off": "power the machine off",
  "abort": "abort what MAAS does with the machine",
};

async function command(session: MaasSession, name: keyof typeof STEPS): Promise<string> {
  const { maas } = session;
  const output = await maas.call(["machine", name, maas.node], {
    step: STEPS[name],
    ...(name === "release" ? { timeoutMs: LONG_CALL_TIMEOUT_MS } : {}),
  });
  if (session.debug) logOutput(session, name, output);
  return output;
}

/** Beyond the ladder's known rungs: a refusal is no news. */
async function tryCommand(session: MaasSession, name: keyof typeof STEPS): Promise<boolean> {
  try {
    await command(session, name);
    return true;
  } catch (error) {
    session.ctx.signal.throwIfAborted();
    session.ctx.log.warning(fullMessageOf(error));
    return false;
  }
}

function logOutput({ ctx, maas }: MaasSession, name: string, output: string): void {
  ctx.log.info(`maas machine ${name} ${maas.node}: ${output.trim()}`);
}

/**
 * Waits until the machine is ready.
 *
 * @param releasingMs how long it may go on while MAAS says that it is releasing the machine.
 * @returns the last status.
 */
async function waitUntilReady(
  session: MaasSession,
  limitMs: number,
  releasingMs = 0,
): Promise<string> {
  const { clock } = session.ctx;
  const start = clock.monotonic();
  let last = "";
  await pollUntil(session.ctx, {
    waitingFor: "the machine to be ready",
    limitMs: Math.max(limitMs, releasingMs),
    pauseMs: POLL_MS,
    async look() {
      last = (await readMachine(session)).status;
      const isDecided = last === READY || RELEASE_FAILED.includes(last);
      const isLate = clock.monotonic() - start >= limitMs && !RELEASING.includes(last);
      return isDecided || isLate ? undefined : `MAAS says '${last}'`;
    },
  });
  return last;
}
