import * as z from "zod";
import { fullMessageOf, ProvisioningError } from "../support/errors.ts";
import { isIn, LONG_CALL_TIMEOUT_MS, type MaasSession } from "./client.ts";
import { newestInstallation, waitUntilDeployed } from "./deployed.ts";
import type { StorageLayout } from "./storage/layout.ts";
import { writeStorage } from "./storage/write.ts";

/** What to deploy. */
interface DeployRequest {
  readonly distro: string;
  readonly kernel?: string | undefined;
  /** In base64. */
  readonly userData?: string | undefined;
  readonly ephemeral?: boolean;
  /** @default MAAS' flat layout */
  readonly layout?: StorageLayout | undefined;
  /** Who must be able to log in at the end; the first who is let in will do. */
  readonly users: readonly string[];
}

/** The first MAAS that can deploy into memory. */
const EPHEMERAL_SINCE = [3, 5, 0];

/** States that show that MAAS has taken a deployment whose answer was lost. */
const DEPLOY_TAKEN = ["Deploying", "Deployed", "Failed deployment"];

/**
 * Deploys a machine that is ready, and waits until it can be logged in on.
 *
 * @throws ProvisioningError
 */
export async function deployMachine(session: MaasSession, request: DeployRequest): Promise<void> {
  const { ctx, maas } = session;
  if (request.layout) await writeStorage(session, request.layout);
  else await setFlatLayout(session);
  await maas.call(["machines", "allocate", `system_id=${maas.node}`], {
    step: "allocate the machine",
    doneAlready: () => isIn(session, ["Allocated"]),
  });
  const installationBefore = await newestInstallation(session);
  const ephemeral = request.ephemeral === true && await canDeployIntoMemory(session);
  ctx.log.info(`Deploying ${request.distro}`);
  const answer = await maas.call([
    "machine",
    "deploy",
    maas.node,
    `distro_series=${request.distro}`,
    ...(request.kernel === undefined ? [] : [`hwe_kernel=${request.kernel}`]),
    ...(request.userData === undefined ? [] : [`user_data=${request.userData}`]),
    ...(ephemeral ? ["ephemeral_deploy=true"] : []),
  ], {
    step: "deploy the machine",
    timeoutMs: LONG_CALL_TIMEOUT_MS,
    doneAlready: () => isIn(session, DEPLOY_TAKEN),
  });
  await waitUntilDeployed(session, { users: request.users, installationBefore, answer });
}

/** A machine whose layout cannot be set deploys with the one that it has. */
async function setFlatLayout({ ctx, maas }: MaasSession): Promise<void> {
  try {
    await maas.call(["machine", "set-storage-layout", maas.node, "storage_layout=flat"], {
      step: "set the flat storage layout",
    });
  } catch (error) {
    ctx.signal.throwIfAborted();
    ctx.log.warning(`${fullMessageOf(error)}; going on with the layout that the machine has`);
  }
}

async function canDeployIntoMemory({ ctx, maas }: MaasSession): Promise<boolean> {
  let problem: string;
  try {
    const { version } = await maas.read(["version", "read"], {
      step: "read the version of MAAS",
      schema: z.looseObject({ version: z.string() }),
    });
    if (isAtLeast(version, EPHEMERAL_SINCE)) return true;
    problem = `MAAS ${version} cannot`;
  } catch (error) {
    ctx.signal.throwIfAborted();
    problem = fullMessageOf(error);
  }
  ctx.log.warning(
    `The job wants to be deployed into memory ('ephemeral'), but is deployed to disk: ${problem}`,
  );
  return false;
}

/** Compares `major.minor.patch`; what follows, as in `3.6.0~beta1`, does not count. */
function isAtLeast(version: string, wanted: readonly number[]): boolean {
  const parts = /^(\d+)\.(\d+)(?:\.(\d+))?/.exec(version.trim())?.slice(1).map((part) =>
    Number(part ?? 0)
  );
  if (parts === undefined) return false;
  for (const [index, least] of wanted.entries()) {
    const part = parts[index] ?? 0;
    if (part !== least) return part > least;
  }
  return true;
}

/** Linux takes no longer argument than 128 KiB, its name and its end included. */
const ARGUMENT_MAX_BYTES = 128 * 1024 - "user_data=".length - 1;

/** What cloud-init takes begins with a comment that says what it is, or is a MIME message. */
const CLOUD_INIT = /^(?:#|(?:content-type|mime-version):)/i;

/**
 * User data as MAAS wants it: in base64. Jobs in the field have it both ways; what is already the
 * base64 of something that cloud-init takes is not encoded again.
 *
 * @throws ProvisioningError when it is too long for a command line.
 */
export function encodeUserData(text: string): string {
  const packed = text.replaceAll(/\s/g, "");
  const encoded = CLOUD_INIT.test(decoded(packed) ?? "")
    ? packed
    : new TextEncoder().encode(text).toBase64();
  if (encoded.length <= ARGUMENT_MAX_BYTES) return encoded;
  throw new ProvisioningError(
    `The job's 'user_data' is too long: ${encoded.length} bytes in base64, at most ` +
      `${ARGUMENT_MAX_BYTES} can be handed to maas`,
  );
}

/** The text that strict base64 stands for; undefined when it is no base64 or no UTF-8. */
function decoded(base64: string): string | undefined {
  try {
    const bytes = Uint8Array.fromBase64(base64, { lastChunkHandling: "strict" });
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
