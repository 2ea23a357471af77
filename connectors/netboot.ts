/**
 * Devices that boot a small imager over the network. The imager listens on HTTP, and on request
 * fetches an image from the agent's host over TCP and writes it.
 */
import * as z from "zod";
import { either } from "../lib/wait.ts";
import type { ConnectorContext } from "./context.ts";
import { defineConnector } from "./define.ts";
import { type CommonConfig, need, port, script, type ShapeOutput } from "./support/config.ts";
import { fullMessageOf, ProvisioningError, RecoveryError } from "./support/errors.ts";
import { checkDownload } from "./support/http/download.ts";
import { serveOnce } from "./support/http/file_server.ts";
import { imageUrlShape } from "./support/image/config.ts";
import { type Filtered, filtered, unfiltered } from "./support/image/filter.ts";
import { withProgress } from "./support/image/image.ts";
import { type Image, type ImageSource, openImage } from "./support/image/source.ts";
import { localUnpacker, UNPACKING_FAILED } from "./support/image/wire.ts";
import { type Credentials, credentials } from "./support/job.ts";
import {
  QEMU_IMG,
  SSH,
  SSH_COPY_ID,
  SSHPASS,
  UNPACK_PROGRAMS,
} from "./support/process/programs.ts";
import { expectSuccess, succeeded } from "./support/process/runner.ts";
import { hardReset, runScript } from "./support/script/script.ts";
import { bracketed, deviceTarget, ssh, type SshTarget } from "./support/ssh/ssh.ts";
import { copySshKey } from "./support/ssh/ssh_keys.ts";
import { pollUntil } from "./support/wait/poll.ts";
import { timeLimit } from "./support/wait/time_limit.ts";

const IMAGER_PORT = 8989;
const IMAGER_MARK = "Snappy Test Device Imager";

const CHECK_TIMEOUT_MS = 5_000;
/** Without the time in which nothing has arrived that could be written. */
const WRITE_TIMEOUT_MS = 1_800_000;
const REBOOT_TIMEOUT_MS = 10_000;
const SCRIPT_TIMEOUT_MS = 60_000;
const KEY_TIMEOUT_MS = 60_000;
const SSH_TIMEOUT_MS = 60_000;

/** No device answers sooner, and none is reset while it boots. */
const BOOT_PAUSE_MS = 60_000;
const PROBE_PAUSE_MS = 10_000;
/** After the imager's own reboot. */
const FIRST_BOOT_LIMIT_MS = 300_000;
const TEST_IMAGE_LIMIT_MS = 900_000;
const IMAGER_LIMIT_MS = 600_000;

const DEFAULT_LOGIN: Credentials = { user: "admin", password: "admin" };

const configShape = {
  test_device: z.string().min(1).optional().describe(
    "Block device that the imager writes, such as /dev/sda.",
  ),
  imager_port: port.default(IMAGER_PORT).describe("Port of the imager."),
  netboot_legacy_escape: z.boolean().default(false).describe(
    "Send a backslash before the & of the imager's address, as older imagers may expect.",
  ),
  select_master_script: script.optional()
    .describe("Commands that make the device boot the imager next."),
  select_test_script: script.optional()
    .describe("Commands that make the device boot the test image next."),
  post_flash_cmds: script.optional()
    .describe("Commands on the agent's host after the image has been written."),
};

type NetbootContext = ConnectorContext<CommonConfig & ShapeOutput<typeof configShape>>;

/** For devices that boot an imager over the network. */
export const netboot = defineConnector({
  name: "netboot",
  summary: "Lets an imager that the device booted over the network write the image.",
  testedAgainst: "a real HTTP server in place of the imager, and the real nc of busybox",
  config: configShape,
  provisionData: imageUrlShape,
  needs: ["device_ip", "test_device", "reboot_script"],
  programs: [
    { ...SSH, onlyFor: "devices whose imager or test image does not come up by itself" },
    SSHPASS,
    SSH_COPY_ID,
    QEMU_IMG,
    {
      name: "xz",
      install: "apt install xz-utils",
      version: ["--version"],
      onlyFor: "images that are not compressed with xz",
    },
    ...UNPACK_PROGRAMS.filter(({ name }) => name !== "xz"),
  ],
  prepare(ctx, { job, data: { url, sha256 } }) {
    if (url === undefined) {
      throw new ProvisioningError(
        "The job's provision_data has no 'url': there is no image to write",
      );
    }
    checkDownload(ctx, { url, sha256 });
    const source: ImageSource = { kind: "url", url, sha256, bmap: "none" };
    return { source, login: credentials(job, DEFAULT_LOGIN) };
  },
  async provision(ctx, { plan: { source, login } }) {
    const device = deviceTarget(ctx, login);
    // It arrives while the imager comes up.
    await using image = await openImage(ctx, source);
    if (await imagerMissing(ctx) !== undefined) await bringUpImager(ctx, device);
    await write(ctx, image);
    await runScript(ctx, {
      key: "post_flash_cmds",
      commands: ctx.config.post_flash_cmds ?? [],
      timeoutMs: SCRIPT_TIMEOUT_MS,
      failure: { step: "finish the installation", ErrorClass: ProvisioningError },
    });
    await select(ctx, "select_test_script");
    // Whether it reboots is seen by what comes up.
    await ctx.http.send(imagerUrl(ctx, "reboot"), {
      timeoutMs: REBOOT_TIMEOUT_MS,
      onlyBeginning: true,
    });
    await ctx.clock.sleep(BOOT_PAUSE_MS, ctx.signal);
    const missing = await waitForLogin(ctx, device, FIRST_BOOT_LIMIT_MS);
    if (missing === undefined) return;
    ctx.log.warning(`The test image does not come up, the device is reset: ${missing}`);
    await bringUpTestImage(ctx, device);
  },
});

function imagerUrl(ctx: NetbootContext, path: string): string {
  const host = bracketed(need(ctx.config, "device_ip"));
  return `http://${host}:${ctx.config.imager_port}/${path}`;
}

/** @returns why the imager is thought not to run; undefined when it does. */
async function imagerMissing(ctx: NetbootContext): Promise<string | undefined> {
  const answer = await ctx.http.send(imagerUrl(ctx, "check"), {
    timeoutMs: CHECK_TIMEOUT_MS,
    onlyBeginning: true,
  });
  if (answer.ended === "failed") return answer.message;
  return answer.ok && answer.body.includes(IMAGER_MARK)
    ? undefined
    : `the device answers with status ${answer.status}, but not as an imager`;
}

/**
 * Boots the imager.
 *
 * @throws RecoveryError when it does not come up: the device shows nothing that could be told to boot
 *   it, or cannot be told.
 */
async function bringUpImager(ctx: NetbootContext, device: SshTarget): Promise<void> {
  try {
    await bootImager(ctx, device);
  } catch (error) {
    if (!(error instanceof ProvisioningError)) throw error;
    throw new RecoveryError(`The imager cannot be booted: ${fullMessageOf(error)}`);
  }
}

/** Boots the imager, by way of a test image that can be told to reboot. */
async function bootImager(ctx: NetbootContext, device: SshTarget): Promise<void> {
  const reachable = (await tryLogin(ctx, device)) === undefined;
  if (!reachable) await bringUpTestImage(ctx, device);
  if (await imagerMissing(ctx) === undefined) return;
  await select(ctx, "select_master_script");
  await hardReset(ctx);
  const missing = await pollUntil(ctx, {
    waitingFor: "the imager to come up",
    limitMs: IMAGER_LIMIT_MS,
    pauseMs: PROBE_PAUSE_MS,
    look: () => imagerMissing(ctx),
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `it did not come up within ${IMAGER_LIMIT_MS / 1000} s: ${missing}`,
  );
}

/** Boots the test image. @throws ProvisioningError when it does not come up. */
async function bringUpTestImage(ctx: NetbootContext, device: SshTarget): Promise<void> {
  await select(ctx, "select_test_script");
  const rebooted = await ssh(ctx, device, "sudo /sbin/reboot", { timeoutMs: SSH_TIMEOUT_MS });
  if (!succeeded(rebooted)) await hardReset(ctx);
  await ctx.clock.sleep(BOOT_PAUSE_MS, ctx.signal);
  const missing = await waitForLogin(ctx, device, TEST_IMAGE_LIMIT_MS);
  if (missing === undefined) return;
  throw new ProvisioningError(
    `The test image did not come up within ${TEST_IMAGE_LIMIT_MS / 1000} s: ${missing}`,
  );
}

function waitForLogin(
  ctx: NetbootContext,
  device: SshTarget,
  limitMs: number,
): Promise<string | undefined> {
  return pollUntil(ctx, {
    waitingFor: "the test image to accept the agent's key",
    limitMs,
    pauseMs: PROBE_PAUSE_MS,
    look: () => tryLogin(ctx, device),
  });
}

/** Installs the agent's key. @returns why that did not work. */
async function tryLogin(ctx: NetbootContext, device: SshTarget): Promise<string | undefined> {
  const copied = await copySshKey(ctx, device, {
    attempts: 1,
    force: true,
    timeoutMs: KEY_TIMEOUT_MS,
  });
  if (copied.ok) return undefined;
  // Not the device's fault: no reset and no waiting would help.
  if (copied.missing) throw new ProvisioningError(`Cannot log in on the device: ${copied.why}`);
  return copied.why;
}

async function select(
  ctx: NetbootContext,
  key: "select_master_script" | "select_test_script",
): Promise<void> {
  await runScript(ctx, {
    key,
    commands: ctx.config[key] ?? [],
    timeoutMs: SCRIPT_TIMEOUT_MS,
    failure: { step: "select what the device boots", ErrorClass: ProvisioningError },
  });
}

/** Has the imager fetch the image and write it. */
async function write(ctx: NetbootContext, image: Image): Promise<void> {
  using asking = either(ctx.signal);
  using limit = timeLimit({ limits: ctx.limits, signal: asking.signal }, {
    ms: WRITE_TIMEOUT_MS,
    message: `no answer within ${WRITE_TIMEOUT_MS / 1000} s`,
  });
  await using packed = await asXz(ctx, image);
  await using server = await serveOnce(ctx, {
    body: packed.stream,
    device: { host: need(ctx.config, "device_ip"), port: ctx.config.imager_port },
    controlHost: ctx.config.control_host,
    limit,
  });
  const from = encodeURIComponent(`${bracketed(server.address)}:${server.port}`)
    .replaceAll("%3A", ":");
  const to = encodeURIComponent(need(ctx.config, "test_device")).replaceAll("%2F", "/");
  const escape = ctx.config.netboot_legacy_escape ? "\\" : "";
  const url = imagerUrl(ctx, `writeimage?server=${from}${escape}&dev=${to}`);
  ctx.log.info(`The imager writes the image to ${need(ctx.config, "test_device")}`);
  const sent = server.sent();
  // There is no answer to be waited for then. One that refuses comes without anybody having fetched.
  sent.catch((error) => asking.abort(error));
  const answer = await ctx.http.send(url, { limit });
  if (answer.ended === "failed") {
    if (asking.signal.aborted) await sent;
    throw new ProvisioningError(`The imager did not write the image: ${answer.message}`);
  }
  const said = answer.body.trim();
  if (said !== "") await ctx.print(`${said}\n`);
  if (!answer.ok || /error/i.test(said)) {
    throw new ProvisioningError(
      `The imager did not write the image: it answers with status ${answer.status}: ${said}`,
    );
  }
  const bytes = await sent;
  ctx.log.info(`The imager has the whole image: ${bytes} bytes`);
}

const COMPRESS_TIMEOUT_MS = 3_600_000;

/**
 * Packs an image with xz as it arrives; one that is xz already stays as it is. The fast level of xz on
 * all cores: what the wire saves by a better one is spent many times over.
 *
 * @returns whose stream fails with a ProvisioningError when the image cannot be had or unpacked.
 */
async function asXz(ctx: ConnectorContext, image: Image): Promise<Filtered> {
  const input = withProgress(ctx, await image.stream(), {
    what: "Sending the image",
    total: image.size,
  });
  if (image.unpacker === "unxz") return unfiltered(input);
  const program = localUnpacker(image.unpacker).join(" ");
  return filtered(ctx, {
    argv: ["/bin/sh", "-c", `{ ${program} || echo '${UNPACKING_FAILED}' >&2; } | xz -T0 -1 -c`],
    input,
    timeoutMs: COMPRESS_TIMEOUT_MS,
    check(result) {
      expectSuccess(result, { step: "compress the image", program: `${program} | xz` });
      if (!result.stderr.includes(UNPACKING_FAILED)) return;
      const why = result.stderr.split(UNPACKING_FAILED)[0]?.trim() ?? "";
      throw new ProvisioningError(`Cannot unpack the image: '${program}' says: ${why}`);
    },
  });
}
