/** The recovery itself, as a sequence of steps on the device. */
import { ProvisioningError } from "../support/errors.ts";
import { failureText, succeeded } from "../support/process/runner.ts";
import { copySshKey, publicKeyFile } from "../support/ssh/ssh_keys.ts";
import { deviceTarget, quote } from "../support/ssh/ssh.ts";
import { type Remote, remote } from "../support/ssh/remote.ts";
import { deviceBootId, notRebooted } from "../support/wait/boot.ts";
import { pollUntil } from "../support/wait/poll.ts";
import { type IsoPlan, OEM_USER, type OemContext } from "./config.ts";
import { pushPresets } from "./presets.ts";
import { LIST_PARTITIONS, recoveryPartition } from "../support/oem_partitions.ts";
import bootRecoveryNext from "./templates/boot_recovery_next.sh" with { type: "text" };
import checkFreeSpace from "./templates/check_free_space.sh" with { type: "text" };
import installBootEntry from "./templates/install_boot_entry.sh" with { type: "text" };
import writePartition from "./templates/write_recovery_partition.sh" with { type: "text" };

const HOME = `/home/${OEM_USER}`;
/** The password of every OEM system that has just been installed. */
const FRESH_PASSWORD = "u";

const DOWNLOAD_TIMEOUT_MS = 3_600_000;
const CHECKSUM_TIMEOUT_MS = 600_000;
const CHECKSUM_FILE_TIMEOUT_MS = 30_000;
const PARTITION_TIMEOUT_MS = 1_800_000;
const STEP_TIMEOUT_MS = 120_000;
const PURGE_TIMEOUT_MS = 600_000;
const LOCK_TIMEOUT_S = 300;

/** Of `check_free_space.sh`. */
const NO_ROOM_STATUS = 28;

/** The device goes down and comes up again, and nothing is to be asked meanwhile. */
const RECOVERY_PAUSE_MS = 300_000;
const POLL_PAUSE_MS = 180_000;
const KEY_LIMIT_MS = 3_600_000;
const KEY_TIMEOUT_MS = 60_000;
const INSTALLER_LIMIT_MS = 3_600_000;

/**
 * Writes the recovery partition, and has the device recover from it.
 *
 * @returns the boot id of the system that was told to recover; undefined where it did not say.
 * @throws ProvisioningError naming the step that failed.
 */
export async function recover(ctx: OemContext, plan: IsoPlan): Promise<string | undefined> {
  const device = remote(ctx, deviceTarget(ctx, { user: OEM_USER }));
  await downloadIso(ctx, device, plan);
  const partition = recoveryPartition(
    await device.must({
      step: "find the recovery partition",
      program: "lsblk",
      command: LIST_PARTITIONS,
    }),
  );
  ctx.log.info(`The recovery partition is ${partition}`);
  await runAsRoot(device, {
    step: "write the recovery partition",
    script: writePartition,
    words: [`${HOME}/${plan.name}`, partition],
    timeoutMs: PARTITION_TIMEOUT_MS,
  });
  await pushPresets(ctx, device, plan);
  if (plan.flavour === "ubr") {
    await runAsRoot(device, {
      step: "install the boot entry of the recovery",
      script: installBootEntry,
      words: [partition],
    });
    await runAsRoot(device, { step: "select the recovery", script: bootRecoveryNext, words: [] });
  }
  const before = await deviceBootId(ctx, device.target);
  await trigger(ctx, device, plan);
  await injectKey(ctx, before);
  await waitForInstaller(ctx, device);
  await purgeInstaller(ctx, device);
  return before;
}

async function downloadIso(ctx: OemContext, device: Remote, plan: IsoPlan): Promise<void> {
  const path = `${HOME}/${plan.name}`;
  const isInsecure = plan.insecureDownload || ctx.config.insecure_download;
  if (isInsecure) {
    ctx.log.warning("The certificate of the ISO's server is not checked: insecure_download is set");
  }
  const options = isInsecure ? ["--no-check-certificate"] : [];
  const room = await device.run(
    `sh -s -- ${[plan.url, path, ...options].map(quote).join(" ")}`,
    { input: checkFreeSpace, timeoutMs: STEP_TIMEOUT_MS },
  );
  if (room.ended === "exited" && room.status === NO_ROOM_STATUS) {
    throw new ProvisioningError(
      `Cannot download the ISO on the device: ${room.stderr.trim()}`,
    );
  }
  await device.must({
    step: `download the ISO on the device`,
    program: "wget",
    command: `sudo ${["wget", "--no-verbose", "--tries=3", ...options].join(" ")} ` +
      `-O ${path} ${quote(plan.url)} && sudo test -s ${path}`,
    timeoutMs: DOWNLOAD_TIMEOUT_MS,
    attempts: 1,
  });
  const wanted = plan.sha256 === undefined
    ? await publishedChecksum(ctx, plan)
    : { program: "sha256sum", sum: plan.sha256 };
  if (wanted === undefined) return;
  const { program } = wanted;
  const said = await device.must({
    step: "verify the ISO",
    program,
    command: `sudo ${program} ${path}`,
    timeoutMs: CHECKSUM_TIMEOUT_MS,
  });
  const found = said.trim().split(/\s+/)[0]?.toLowerCase();
  if (found === wanted.sum) return;
  throw new ProvisioningError(
    `The ISO on the device is not the right one: '${program}' says ${found}, expected ${wanted.sum}`,
  );
}

/** From the file next to the ISO, where there is one. */
async function publishedChecksum(
  ctx: OemContext,
  { url, name }: IsoPlan,
): Promise<{ program: string; sum: string } | undefined> {
  for (
    const [suffix, program, pattern] of [
      ["sha256sum", "sha256sum", /\b[0-9a-f]{64}\b/i],
      ["md5sum", "md5sum", /\b[0-9a-f]{32}\b/i],
    ] as const
  ) {
    const answer = await ctx.http.send(`${url}.${suffix}`, { timeoutMs: CHECKSUM_FILE_TIMEOUT_MS });
    const sum = answer.ended === "answered" && answer.ok
      ? pattern.exec(answer.body)?.[0]
      : undefined;
    if (sum !== undefined) return { program, sum: sum.toLowerCase() };
  }
  ctx.log.warning(`The ISO is not verified: there is no ${name}.sha256sum beside it`);
  return undefined;
}

/** Runs a script on the device without leaving a file there. */
async function runAsRoot(
  device: Remote,
  { step, script, words, timeoutMs = STEP_TIMEOUT_MS }: {
    readonly step: string;
    readonly script: string;
    readonly words: readonly string[];
    readonly timeoutMs?: number;
  },
): Promise<void> {
  await device.must({
    step,
    program: "sh",
    command: `sudo sh -s -- ${words.map(quote).join(" ")}`.trimEnd(),
    input: script,
    timeoutMs,
  });
}

/** Starts the recovery. It takes the device down, so it goes on after the connection has gone. */
async function trigger(ctx: OemContext, device: Remote, { flavour }: IsoPlan): Promise<void> {
  const command = flavour === "dell" ? "dell-restore-system -y" : "reboot";
  ctx.log.info(`Starting the recovery: ${command}`);
  await device.must({
    step: "start the recovery",
    program: command,
    command: `sudo sh -c ${quote(`nohup ${command} >/dev/null 2>&1 </dev/null &`)}`,
  });
  await device.disconnect();
  await ctx.clock.sleep(RECOVERY_PAUSE_MS, ctx.signal);
}

/** The fresh system gets the agent's key. The old one may take it, too, as it has it already. */
async function injectKey(ctx: OemContext, before: string | undefined): Promise<void> {
  const keyFile = await publicKeyFile(ctx);
  const target = deviceTarget(ctx, { user: OEM_USER, password: FRESH_PASSWORD });
  const missing = await pollUntil(ctx, {
    waitingFor: "the fresh system to accept the agent's key",
    limitMs: KEY_LIMIT_MS,
    pauseMs: POLL_PAUSE_MS,
    lookFirst: true,
    async look() {
      const copied = await copySshKey(ctx, target, {
        attempts: 1,
        force: true,
        keyFile,
        timeoutMs: KEY_TIMEOUT_MS,
      });
      return copied.ok ? await notRebooted(ctx, target, before) : copied.why;
    },
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The recovery did not bring up a system within ${KEY_LIMIT_MS / 1000} s: ${missing}`,
  );
}

async function waitForInstaller(ctx: OemContext, device: Remote): Promise<void> {
  const missing = await pollUntil(ctx, {
    waitingFor: "the installer to end",
    limitMs: INSTALLER_LIMIT_MS,
    pauseMs: POLL_PAUSE_MS,
    lookFirst: true,
    async look() {
      const result = await device.run("systemctl is-active ubiquity", { attempts: 1 });
      const state = "stdout" in result ? result.stdout.trim() : "";
      if (state === "inactive") return undefined;
      return state === "" ? failureText("systemctl is-active ubiquity", result) : `it is ${state}`;
    },
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The installer did not end within ${INSTALLER_LIMIT_MS / 1000} s: ${missing}`,
  );
}

/** An installer that stays behind does no harm to most tests. */
async function purgeInstaller(ctx: OemContext, device: Remote): Promise<void> {
  const command = `sudo DEBIAN_FRONTEND=noninteractive apt-get ` +
    `-o DPkg::Lock::Timeout=${LOCK_TIMEOUT_S} purge -y ubiquity`;
  const result = await device.run(command, { timeoutMs: PURGE_TIMEOUT_MS });
  if (succeeded(result)) return;
  ctx.log.warning(`The installer stays on the device: ${failureText("apt-get purge", result)}`);
}
