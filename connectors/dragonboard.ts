/**
 * DragonBoard 410c: a fixed master image on USB writes the test image on the SD card. The board falls
 * back to the master image where the card has no partition table.
 */
import * as z from "zod";
import { join } from "../lib/path.ts";
import type { ConnectorContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { type CommonConfig, need, script, type ShapeOutput } from "./support/config.ts";
import { ProvisioningError, RecoveryError } from "./support/errors.ts";
import { writeFile } from "./support/files.ts";
import { bmapConfigShape, bmapProvisionShape, imageUrlShape } from "./support/image/config.ts";
import { flash } from "./support/image/flash.ts";
import {
  classicUserData,
  type Login,
  META_DATA,
  sudoers,
  SUDOERS_NAME,
} from "./support/image/seed_files.ts";
import { imageSource, openImage } from "./support/image/source.ts";
import { loginFor } from "./support/image/user.ts";
import type { Credentials } from "./support/job.ts";
import {
  QEMU_IMG,
  SSH,
  SSH_COPY_ID,
  SSHPASS,
  UNPACK_PROGRAMS,
} from "./support/process/programs.ts";
import { failureText, succeeded } from "./support/process/runner.ts";
import { hardReset, runScript } from "./support/script/script.ts";
import { type Remote, remote } from "./support/ssh/remote.ts";
import { deviceTarget, quote, ssh } from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";
import { pollUntil } from "./support/wait/poll.ts";

const MASTER_USER = "linaro";

const COMMAND_TIMEOUT_MS = 60_000;
const KEY_TIMEOUT_MS = 60_000;
const UMOUNT_TIMEOUT_MS = 30_000;
const MASTER_LIMIT_MS = 300_000;
const POLL_PAUSE_MS = 10_000;
const FIRST_BOOT_PAUSE_MS = 60_000;
const TEST_LIMIT_MS = 600_000;
/** The first boot goes on for a while after the device lets one in. */
const SETTLE_MS = 60_000;
/** A board that goes back to its test image twice will do so a third time. */
const MASTER_ATTEMPTS = 2;

const MOUNT_POINT = "/mnt";
const SEED_FOLDER = "var/lib/cloud/seed/nocloud-net";

const configShape = {
  test_device: z.string().min(1).optional().describe("Block device of the SD card."),
  snappy_writable_partition: z.string().min(1).optional().describe(
    "Block device of the image's partition that gets the user data.",
  ),
  select_master_script: script.optional().describe(
    "Commands that make the board boot its master image next.",
  ),
  select_test_script: script.optional().describe(
    "Commands that make the board boot its test image next.",
  ),
  ...bmapConfigShape,
  verify_flash: z.boolean().default(true).describe(
    "Read back what was written to the card, and compare checksums. false: only the bytes are counted.",
  ),
};

type DragonboardContext = ConnectorContext<CommonConfig & ShapeOutput<typeof configShape>>;

/** For boards that a master image on another medium writes. */
export const dragonboard = defineConnector({
  name: "dragonboard",
  summary: "Lets a board's master image write the test image to its SD card, and boots it.",
  testedAgainst: "a real OpenSSH server as the board; what is run there is a stand-in",
  config: configShape,
  provisionData: { ...imageUrlShape, ...bmapProvisionShape },
  needs: [
    "device_ip",
    "reboot_script",
    "select_master_script",
    "select_test_script",
    "test_device",
    "snappy_writable_partition",
  ],
  programs: [SSH, SSHPASS, SSH_COPY_ID, QEMU_IMG, ...UNPACK_PROGRAMS],
  async prepare(ctx, { job, data }) {
    return { source: await imageSource(ctx, data, ctx.config), login: await loginFor(ctx, job) };
  },
  async provision(ctx, { plan: { source, login } }) {
    await tryKey(ctx, login);
    await ensureMaster(ctx, login);
    const master = masterOf(ctx);
    const device = need(ctx.config, "test_device");
    await using image = await openImage(ctx, source);
    await master.run(`sudo umount ${device.replaceAll(/[^\w./-]/g, "")}*`, {
      timeoutMs: UMOUNT_TIMEOUT_MS,
    });
    const verify = ctx.config.verify_flash && await canHash(ctx, master);
    let isBooted = false;
    // Registered first: with half an image on the card the board would not find back to its master image.
    await using _wiped = ctx.putBack("a card without an image", async (own) => {
      if (!isBooted) await wipe(own, device);
    });
    // The master image is only known to have dd: the image is unpacked here.
    await flash(ctx, { image, to: master, device, wire: "raw", verify });
    await createUser(ctx, master, login);
    await bootTestImage(ctx, master, login);
    isBooted = true;
    await ctx.clock.sleep(SETTLE_MS, ctx.signal);
  },
});

/** The board while its master image runs. */
function masterOf(ctx: DragonboardContext): Remote {
  return remote(ctx, deviceTarget(ctx, { user: MASTER_USER }), "master image of");
}

/**
 * Installs the agent's key, if the test image is there to take it: whether the agent gets in is seen
 * by what answers it.
 *
 * @returns why that did not work; undefined when it did.
 */
async function tryKey(
  ctx: DragonboardContext,
  { user, password }: Credentials,
): Promise<string | undefined> {
  const copied = await copySshKey(ctx, deviceTarget(ctx, { user, password }), {
    attempts: 1,
    timeoutMs: KEY_TIMEOUT_MS,
  });
  return copied.ok ? undefined : copied.why;
}

/** @returns why the test image is thought not to run; undefined when it does. */
async function testMissing(
  ctx: DragonboardContext,
  { user }: Credentials,
): Promise<string | undefined> {
  return await looksLike(ctx, user, /^ID="?ubuntu/m);
}

async function masterMissing(ctx: DragonboardContext): Promise<string | undefined> {
  return await looksLike(ctx, MASTER_USER, /^ID="?(debian|linaro)/m);
}

async function looksLike(
  ctx: DragonboardContext,
  user: string,
  pattern: RegExp,
): Promise<string | undefined> {
  const command = "cat /etc/os-release";
  const result = await ssh(ctx, deviceTarget(ctx, { user }), command, {
    timeoutMs: COMMAND_TIMEOUT_MS,
  });
  if (!succeeded(result)) return failureText(`ssh ${user}@ ${command}`, result);
  return pattern.test(result.stdout) ? undefined : "another system answers";
}

/**
 * Boots the master image.
 *
 * @throws RecoveryError when it does not come up: nothing but a person can help the board then.
 */
async function ensureMaster(ctx: DragonboardContext, login: Credentials): Promise<void> {
  for (let attempt = 0;; attempt++) {
    const isTest = await testMissing(ctx, login) === undefined;
    if (!isTest && await masterMissing(ctx) === undefined) return;
    if (attempt === MASTER_ATTEMPTS) {
      throw new RecoveryError(`The master image did not come up after ${attempt} resets`);
    }
    if (isTest) await select(ctx, "select_master_script");
    await hardReset(ctx);
    let hasTest = false;
    const missing = await pollUntil(ctx, {
      waitingFor: "the master image to boot",
      limitMs: MASTER_LIMIT_MS,
      pauseMs: POLL_PAUSE_MS,
      async look() {
        // One that was not told to boot the master image may boot the test image: then it is told.
        hasTest = !isTest && await testMissing(ctx, login) === undefined;
        return hasTest ? undefined : await masterMissing(ctx);
      },
    });
    if (missing !== undefined) {
      throw new RecoveryError(
        `The master image did not come up within ${MASTER_LIMIT_MS / 1000} s: ${missing}`,
      );
    }
    if (!hasTest) return;
  }
}

async function select(
  ctx: DragonboardContext,
  key: "select_master_script" | "select_test_script",
): Promise<void> {
  await runScript(ctx, {
    key,
    commands: need(ctx.config, key),
    timeoutMs: COMMAND_TIMEOUT_MS,
    failure: { step: "select what the board boots", ErrorClass: ProvisioningError },
  });
}

/** Can the master image tell what is on the card? Every Debian can, but labs put images together. */
async function canHash(ctx: DragonboardContext, master: Remote): Promise<boolean> {
  const found = await master.run("command -v sha256sum");
  if (succeeded(found) && found.stdout.trim() !== "") return true;
  ctx.log.warning(
    "What is written to the card is counted, but not read back: the master image has no sha256sum",
  );
  return false;
}

/** Puts the user into the image that has just been written. */
async function createUser(ctx: DragonboardContext, master: Remote, login: Login): Promise<void> {
  const partition = need(ctx.config, "snappy_writable_partition");
  const files = { "meta-data": META_DATA, "user-data": classicUserData(login) };
  await master.must({
    step: "mount the image",
    program: "mount",
    command: `sudo mount ${quote(partition)} ${MOUNT_POINT}`,
  });
  const listed = await master.must({
    step: "look into the image",
    program: "ls",
    command: `ls ${MOUNT_POINT}`,
  });
  const base = listed.split(/\s+/).includes("system-data")
    ? `${MOUNT_POINT}/system-data`
    : MOUNT_POINT;
  const folder = `${base}/${SEED_FOLDER}`;
  await master.must({
    step: "make a folder for the user data",
    program: "mkdir",
    command: `sudo mkdir -p ${folder} ${base}/etc/sudoers.d`,
  });
  for (const [name, text] of Object.entries(files)) {
    // Left for a person to look at, as it always was.
    await writeFile(join(ctx.cwd, name), text, { mode: 0o600 });
    await master.write({
      step: `write ${name} to the image`,
      path: `${folder}/${name}`,
      text,
      sudo: true,
    });
  }
  await master.write({
    step: "write the sudo rule to the image",
    path: `${base}/etc/sudoers.d/${SUDOERS_NAME}`,
    text: sudoers(login),
    mode: 0o440,
    sudo: true,
  });
  await master.must({
    step: "unmount the image",
    program: "umount",
    command: `sync && sudo umount ${MOUNT_POINT}`,
  });
}

async function bootTestImage(
  ctx: DragonboardContext,
  master: Remote,
  login: Credentials,
): Promise<void> {
  await select(ctx, "select_test_script");
  // The connection may go down before the answer comes.
  await master.run("sudo /sbin/reboot", { attempts: 1 });
  await master.disconnect();
  await ctx.clock.sleep(FIRST_BOOT_PAUSE_MS, ctx.signal);
  const missing = await pollUntil(ctx, {
    waitingFor: "the test image to boot",
    limitMs: TEST_LIMIT_MS,
    pauseMs: POLL_PAUSE_MS,
    lookFirst: true,
    async look() {
      const refusal = await tryKey(ctx, login);
      const missing = await testMissing(ctx, login);
      return missing === undefined || refusal === undefined ? missing : `${missing}; ${refusal}`;
    },
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The test image did not come up within ${TEST_LIMIT_MS / 1000} s: ${missing}`,
  );
}

/** Without a partition table on the card the board boots its master image. */
async function wipe(ctx: DragonboardContext, device: string): Promise<void> {
  const result = await masterOf(ctx).run(`sudo sgdisk -o ${quote(device)}`, { attempts: 1 });
  if (succeeded(result)) return;
  ctx.log.warning(
    `The card keeps what is on it, so the board may not find back to its master image: ` +
      failureText("sgdisk -o", result),
  );
}
