import * as z from "zod";
import { join } from "../../lib/path.ts";
import { need } from "../support/config.ts";
import { fullMessageOf, ProvisioningError } from "../support/errors.ts";
import { writeFile } from "../support/files.ts";
import { type CommandResult, failureText, succeeded } from "../support/process/runner.ts";
import { isLost } from "../support/ssh/remote.ts";
import { destination, deviceTarget, ssh } from "../support/ssh/ssh.ts";
import { pollUntil } from "../support/wait/poll.ts";
import { type MaasSession, readMachine } from "./client.ts";

const POLL_MS = 15_000;
const PROBE_TIMEOUT_MS = 60_000;

/** MAAS may learn the addresses of a machine a little after it has deployed it. */
const ADDRESS_POLLS = 3;

/** What a machine does not get out of by itself. */
const FAILED = [
  "Broken",
  "Failed commissioning",
  "Failed deployment",
  "Failed disk erasing",
  "Failed testing",
  "Releasing failed",
  "Rescue mode",
];

/** What there is to know of a deployment that is under way. */
interface Deployment {
  readonly users: readonly string[];
  /** The newest installation before this one. */
  readonly installationBefore: number | undefined;
  /** What MAAS said to `machine deploy`. */
  readonly answer: string;
}

/**
 * Waits until the machine is deployed, has its address and lets one of the users in.
 *
 * @throws ProvisioningError when it fails or takes longer than `timeout_min`; the installation log
 *   is shown before.
 */
export async function waitUntilDeployed(
  session: MaasSession,
  deployment: Deployment,
): Promise<void> {
  const { config, log } = session.ctx;
  const fail = async (message: string) => {
    await showInstallationLog(session, deployment.installationBefore);
    return new ProvisioningError(message);
  };
  const address = need(config, "device_ip");
  let wrongAddresses = 0;
  const look = async () => {
    const { status, addresses } = await readMachine(session);
    if (FAILED.includes(status)) {
      throw await fail(`The machine could not be deployed: MAAS says '${status}'`);
    }
    if (status !== "Deployed") return `MAAS says '${status}'`;
    if (!addresses.includes(address)) {
      const problem = `it is deployed, but not at ${address}: its addresses are ` +
        (addresses.join(", ") || "none");
      if (++wrongAddresses < ADDRESS_POLLS) return problem;
      throw await fail(`The machine cannot be reached: ${problem}`);
    }
    const problem = await logIn(session, deployment.users);
    return problem && `it is deployed, but cannot be logged in on: ${problem}`;
  };
  const missing = await pollUntil(session.ctx, {
    waitingFor: "the machine to be deployed",
    limitMs: config.timeout_min * 60_000,
    pauseMs: POLL_MS,
    look,
  });
  if (missing === undefined) return;
  const answer = deployment.answer.trim();
  if (answer !== "") log.info(`maas machine deploy had answered: ${answer}`);
  throw await fail(
    `The machine was not ready ${config.timeout_min} min after its deployment began: ${missing}`,
  );
}

/**
 * Tries one user after the other, as long as the machine answers. Cloud images let `root` log in with
 * the key, only to say whom to log in as.
 *
 * @returns why none could log in; undefined when one could.
 */
async function logIn(
  { ctx }: MaasSession,
  users: readonly string[],
): Promise<string | undefined> {
  const problems: string[] = [];
  for (const user of users) {
    const target = deviceTarget(ctx, { user });
    const result = await ssh(ctx, target, "/bin/true", { timeoutMs: PROBE_TIMEOUT_MS });
    if (succeeded(result)) return undefined;
    const problem = `${destination(target)}: ${failureText("ssh", result)}`;
    if (result.ended === "not_started") {
      throw new ProvisioningError(`Cannot log in on the deployed machine: ${problem}`);
    }
    problems.push(problem);
    if (!isAnswered(result)) break;
  }
  return problems.join("; ");
}

/** Did the machine itself answer, be it with a refusal? Otherwise no other user would get further. */
function isAnswered(result: CommandResult): boolean {
  if (result.ended !== "exited") return false;
  return !isLost(result) || /permission denied|authentication/i.test(result.stderr);
}

const FILE_NAME = "maas-installation.log";

/** How much of it goes into the job's log: what went wrong stands at the end. */
const LOGGED_MAX_CHARS = 1_000_000;

/** The newest installation that MAAS knows of; undefined when there is none, or MAAS does not say. */
export async function newestInstallation(session: MaasSession): Promise<number | undefined> {
  const { ctx, maas } = session;
  try {
    const results = await maas.read(
      ["node-script-results", "read", maas.node, "type=installation"],
      { step: "list the machine's installations", schema: z.array(z.unknown()) },
    );
    const ids = results.flatMap((result) => {
      const parsed = z.looseObject({ id: z.int() }).safeParse(result);
      return parsed.success ? [parsed.data.id] : [];
    });
    return ids.length === 0 ? undefined : Math.max(...ids);
  } catch (error) {
    ctx.signal.throwIfAborted();
    ctx.log.warning(fullMessageOf(error));
    return undefined;
  }
}

/**
 * Puts the log of the installation that has failed into the job's log, and all of it into
 * `maas-installation.log`. Never throws but when the connector is stopped: the real error is to be
 * seen.
 *
 * @param before the newest installation before this one.
 */
async function showInstallationLog(
  session: MaasSession,
  before: number | undefined,
): Promise<void> {
  const { ctx, maas } = session;
  const newest = await newestInstallation(session);
  if (newest === undefined || newest === before) return;
  try {
    const text = await maas.call(["node-script-result", "download", maas.node, String(newest)], {
      step: "fetch the installation log",
    });
    const logged = text.length > LOGGED_MAX_CHARS
      ? `(the end of it)\n${text.slice(-LOGGED_MAX_CHARS)}`
      : text;
    ctx.log.info(`Installation log of MAAS: ${logged.trimEnd()}`);
    await writeFile(join(ctx.cwd, FILE_NAME), text);
  } catch (error) {
    ctx.signal.throwIfAborted();
    ctx.log.warning(fullMessageOf(error));
  }
}
