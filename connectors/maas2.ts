import { defineConnector } from "./define.ts";
import { parseLayout, type StorageLayout } from "./maas2/storage/layout.ts";
import { maasClient, type MaasSession } from "./maas2/client.ts";
import {
  maasConfigShape,
  type MaasContext,
  maasProvisionShape,
  MACHINE_USER,
} from "./maas2/config.ts";
import { deployMachine, encodeUserData } from "./maas2/deploy.ts";
import { bootFromNetwork, requestTpmClear } from "./maas2/firmware.ts";
import { releaseMachine } from "./maas2/release.ts";
import { fullMessageOf, ProvisioningError } from "./support/errors.ts";
import { checkUserName, type JobData } from "./support/job.ts";
import { MAAS, SSH } from "./support/process/programs.ts";

/** What the TPM step deploys for want of a system that it could talk to. */
const HELPER_DISTRO = "jammy";

/** For machines that a MAAS server deploys, by its command line client on the agent's host. */
export const maas2 = defineConnector({
  name: "maas2",
  summary: "Deploys a machine through MAAS, with the maas command line client of this host.",
  config: maasConfigShape,
  provisionData: maasProvisionShape,
  needs: ["maas_user", "node_id", "device_ip"],
  programs: [MAAS, SSH],
  prepare(ctx, { job, data }) {
    return {
      distro: data.distro,
      kernel: data.kernel,
      userData: data.user_data === undefined ? undefined : encodeUserData(data.user_data),
      ephemeral: data.ephemeral,
      layout: wantedLayout(ctx, data.disks),
      users: usersOf(job),
    };
  },
  async provision(ctx, { job, plan }) {
    const session = openSession(ctx, job);
    if (ctx.config.reset_efi) await bootFromNetwork(ctx);
    if (ctx.config.clear_tpm) await clearTpm(session);
    await releaseMachine(session);
    await deployMachine(session, plan);
  },
  async cleanup(ctx) {
    const job = await readJobLeniently(ctx);
    if (!ctx.config.always_release && job && !job.provision_data) {
      ctx.log.info("The machine is not released: the job has no provision_data");
      return;
    }
    const session = openSession(ctx, job);
    if (ctx.config.reset_efi && ctx.config.device_ip) await bootFromNetwork(ctx);
    await releaseMachine(session);
  },
});

function openSession(ctx: MaasContext, job: JobData | undefined): MaasSession {
  return { ctx, maas: maasClient(ctx), debug: job?.debug === true };
}

/** Not every image creates the job's user; the machine's own is there on all of them. */
function usersOf(job: JobData): string[] {
  const user = job.test_data?.test_username ?? MACHINE_USER;
  checkUserName(user);
  return [...new Set([user, MACHINE_USER])];
}

function wantedLayout(
  ctx: Pick<MaasContext, "config">,
  disks?: readonly unknown[],
): StorageLayout | undefined {
  if (disks !== undefined) return parseLayout(disks, "disks");
  const standard = ctx.config.default_disks ?? [];
  // An empty list in the configuration means MAAS' flat layout; in a job it is a mistake.
  return standard.length === 0 ? undefined : parseLayout(standard, "default_disks");
}

/** The TPM is cleared at the next boot, which is that of the deployment. */
async function clearTpm(session: MaasSession): Promise<void> {
  const { ctx } = session;
  const problem = await requestTpmClear(ctx);
  if (problem === undefined) return;
  ctx.log.warning(`Cannot clear the TPM: ${problem}; trying again with ${HELPER_DISTRO} deployed`);
  await releaseMachine(session);
  await deployMachine(session, {
    distro: HELPER_DISTRO,
    layout: wantedLayout(ctx),
    users: [MACHINE_USER],
  });
  const stillWrong = await requestTpmClear(ctx);
  if (stillWrong !== undefined) throw new ProvisioningError(`Cannot clear the TPM: ${stillWrong}`);
}

/** The machine is released whatever became of the job. */
async function readJobLeniently(ctx: MaasContext): Promise<JobData | undefined> {
  try {
    return await ctx.readJob();
  } catch (error) {
    ctx.log.warning(fullMessageOf(error));
    return undefined;
  }
}
