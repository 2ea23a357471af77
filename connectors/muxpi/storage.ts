/** Giving the storage medium to the control host, and back to the device. */
import type { ConnectorContext } from "../context.ts";
import { need } from "../support/config.ts";
import { ProvisioningError } from "../support/errors.ts";
import {
  type CommandResult,
  expectSuccess,
  failureText,
  succeeded,
} from "../support/process/runner.ts";
import type { PutBack } from "../support/put_back.ts";
import { controlHost, isLost } from "../support/ssh/remote.ts";
import { quote } from "../support/ssh/ssh.ts";
import { pollUntil } from "../support/wait/poll.ts";
import type { MuxpiContext } from "./config.ts";

/** The medium that each kind of multiplexer switches. */
const MUXES = { sd: "sdwire", usb: "typecmux" } as const;

type Mux = typeof MUXES[keyof typeof MUXES];

/** One of two media. */
interface MediaChoice {
  readonly mux: Mux;
  /** The words in front of the multiplexer's name, such as `sudo muxctl`. */
  readonly prefix: readonly string[];
}

/**
 * Which medium the job wants; undefined on boards with one.
 *
 * @throws ProvisioningError when there is no such choice, or the configuration has no device for it.
 */
export function chosenMedia(
  { config }: Pick<MuxpiContext, "config">,
  media: string | undefined,
): MediaChoice | undefined {
  if (!media) {
    need(config, "test_device");
    return undefined;
  }
  if (media !== "sd" && media !== "usb") {
    throw new ProvisioningError(`The job's 'media' is '${media}': expected sd or usb`);
  }
  return { mux: MUXES[media], prefix: muxPrefix(config.control_switch_local_cmd) };
}

/** A USB card reader needs some seconds until it is there. */
const DEVICE_LIMIT_MS = 58_000;
const DEVICE_PAUSE_MS = 2_000;
/** Exit status of the look for the device when it is not there (yet). */
const NO_DEVICE_STATUS = 3;

const UNMOUNT_TIMEOUT_MS = 30_000;

/** Multiplexers fail now and then, and switching twice does no harm. */
const SWITCH_ATTEMPTS = 5;
const SWITCH_PAUSE_MS = 5_000;

/** What lsblk calls the mount point of swap space that is in use. */
const SWAP = "[SWAP]";

const DEVICE_PATH = /^\/dev\/[A-Za-z0-9._/+:-]+$/;

/** A medium in the control host's hands. */
interface Storage {
  /** Path on the control host. */
  readonly device: string;
  /** Gives it back to the device. */
  readonly back: PutBack;
}

/** Is the storage switched by a program for boards with two media? */
export function usesMuxProgram({ config }: Pick<MuxpiContext, "config">): boolean {
  return shellWords(config.control_switch_local_cmd).some(isMux);
}

/**
 * Gives the storage medium to the control host. However the stage ends, it is given back.
 *
 * @param media the one to take on boards with two.
 * @throws ProvisioningError when it cannot be had, or is nothing to write an image to.
 */
export async function connectStorage(
  ctx: MuxpiContext,
  media: MediaChoice | undefined,
): Promise<Storage> {
  const storage = media === undefined ? await switchDefault(ctx) : await switchMedia(ctx, media);
  await awaitDevice(ctx, storage.device);
  // Only what the control host mounted by itself, if anything.
  const unmounted = await controlHost(ctx).run(`sudo umount ${withPartitions(storage.device)}`, {
    timeoutMs: UNMOUNT_TIMEOUT_MS,
  });
  if (unmounted.ended === "timeout") {
    throw new ProvisioningError(
      `Cannot unmount what the control host has mounted of ${storage.device}: ` +
        failureText("umount", unmounted),
    );
  }
  return storage;
}

/**
 * A device and its partitions, as patterns for the shell. Not simply all that begins alike: /dev/sda
 * and /dev/sdaa, /dev/loop1 and /dev/loop10 have nothing to do with each other.
 */
export function withPartitions(device: string): string {
  const path = quote(device);
  // A name that ends in a digit has a 'p' before the number; links below /dev/disk have '-part'.
  const number = /\d$/.test(device) ? "p[0-9]*" : "[0-9]*";
  return `${path} ${path}${number} ${path}-part[0-9]*`;
}

/** The words in front of the multiplexer's name, such as `sudo muxctl`. */
function muxPrefix(localCommand: string): readonly string[] {
  const words = shellWords(localCommand);
  const index = words.findIndex(isMux);
  if (index > 0) return words.slice(0, index);
  throw new ProvisioningError(
    `The job's 'media' cannot be chosen: 'control_switch_local_cmd' in the device configuration ` +
      `is '${localCommand}', expected one with sdwire or typecmux after the ` +
      `name of a program`,
  );
}

async function switchDefault(ctx: MuxpiContext): Promise<Storage> {
  const { control_switch_local_cmd: toUs, control_switch_device_cmd: toDevice } = ctx.config;
  // Registered first: a command that failed may have switched anyway.
  const back = ctx.putBack("the storage medium to the device", async (ctx) => {
    await switchStorage(ctx, { to: "back to the device", command: toDevice });
  });
  await switchStorage(ctx, { to: "to the control host", command: toUs });
  return { device: need(ctx.config, "test_device"), back };
}

async function switchMedia(
  ctx: MuxpiContext,
  { mux: wanted, prefix }: MediaChoice,
): Promise<Storage> {
  const command = (...words: string[]) => [...prefix, ...words].map(quote).join(" ");
  /** Those that are not there, or at least have done nothing. */
  const without = new Set<Mux>();
  const back = ctx.putBack("the storage media to the device", async (ctx) => {
    const others = ctx.config.return_both_media
      ? Object.values(MUXES).filter((mux) => mux !== wanted && !without.has(mux))
      : [];
    for (const mux of others) {
      const result = await controlHost(ctx).run(command(mux, "set", "DUT"));
      if (!succeeded(result)) ctx.log.warning(failureText(command(mux, "set", "DUT"), result));
    }
    await switchStorage(ctx, { to: "back to the device", command: command(wanted, "set", "DUT") });
  });
  let device = "";
  for (const mux of Object.values(MUXES)) {
    const program = command(mux, "plug_to_self");
    if (mux === wanted) {
      device = deviceIn(
        await switchStorage(ctx, { to: "to the control host", command: program }),
        program,
      );
      continue;
    }
    const result = await controlHost(ctx).run(program);
    if (!succeeded(result)) {
      ctx.log.info(`There seems to be no other medium: ${failureText(program, result)}`);
      if (result.ended === "exited") without.add(mux);
    }
  }
  return { device, back };
}

/**
 * Runs a command that switches the storage medium, again and again if it must be.
 *
 * @returns what it printed.
 * @throws ProvisioningError when it never works.
 */
async function switchStorage(
  ctx: ConnectorContext,
  { to, command }: {
    readonly to: "back to the device" | "to the control host";
    readonly command: string;
  },
): Promise<string> {
  for (let attempt = 1;; attempt++) {
    const result = await controlHost(ctx).run(command);
    if (succeeded(result)) return result.stdout;
    // A control host that does not answer has been asked often enough.
    if (attempt >= SWITCH_ATTEMPTS || isLost(result)) {
      expectSuccess(result, { step: `give the storage medium ${to}`, program: command });
    }
    ctx.log.warning(
      `The storage medium is not switched ${to} yet (attempt ${attempt} of ` +
        `${SWITCH_ATTEMPTS}): ${failureText(command, result)}`,
    );
    await ctx.clock.sleep(SWITCH_PAUSE_MS, ctx.signal);
  }
}

function deviceIn(output: string, program: string): string {
  const device = output.trim();
  if (DEVICE_PATH.test(device) && !device.split("/").includes("..")) return device;
  throw new ProvisioningError(
    `Cannot give the storage medium to the control host: '${program}' printed ` +
      (device === "" ? "nothing" : `'${device.slice(0, 200)}'`) +
      `, expected the path of a block device`,
  );
}

/** Waits for the device, and makes sure that the control host itself does not live on it. */
export async function awaitDevice(ctx: ConnectorContext, device: string): Promise<void> {
  const path = quote(device);
  // Older versions of lsblk know only one mount point of a device.
  const look = `test -b ${path} || exit ${NO_DEVICE_STATUS}; ` +
    `lsblk -nr -o MOUNTPOINTS ${path} 2>/dev/null || lsblk -nr -o MOUNTPOINT ${path}`;
  const missing = await pollUntil(ctx, {
    waitingFor: `${device} to appear on the control host`,
    limitMs: DEVICE_LIMIT_MS,
    pauseMs: DEVICE_PAUSE_MS,
    lookFirst: true,
    async look() {
      const result = await controlHost(ctx).run(look);
      if (result.ended === "exited" && result.status === NO_DEVICE_STATUS) {
        return `${device} is no block device on the control host`;
      }
      refuseOwnDisk(device, result);
      return undefined;
    },
  });
  if (missing === undefined) return;
  throw new ProvisioningError(
    `${missing}, ${DEVICE_LIMIT_MS / 1000} s after the storage was switched`,
  );
}

/** @throws ProvisioningError when the control host itself uses the device, or may do so. */
function refuseOwnDisk(device: string, result: CommandResult): void {
  const step = `find out what is mounted of ${device}`;
  expectSuccess(result, { step, program: "lsblk" });
  const points = result.stdout.split(/\s+|\\x0a/).filter((point) => point !== "");
  // A program that prints something else may also have kept silent about what is mounted.
  if (!points.every((point) => point.startsWith("/") || point === SWAP)) {
    throw new ProvisioningError(
      `Cannot ${step}: 'lsblk' printed '${result.stdout.trim().slice(0, 200)}', expected mount ` +
        `points`,
    );
  }
  const own = points.find((point) => /^\/(boot(\/.*)?)?$/.test(point) || point === SWAP);
  if (own === undefined) return;
  throw new ProvisioningError(
    `${device} is not overwritten: the control host itself uses it as ${own}; check ` +
      `'test_device' in the device configuration`,
  );
}

function isMux(word: string): word is Mux {
  return Object.values<string>(MUXES).includes(word);
}

/**
 * Splits a command into words as a POSIX shell does, without expanding anything: quotes and
 * backslashes only. What a quote leaves open reaches to the end.
 */
export function shellWords(command: string): string[] {
  const words: string[] = [];
  let word: string | undefined;
  let quote = "";
  for (let i = 0; i < command.length; i++) {
    const char = command[i] ?? "";
    const next = command[i + 1] ?? "";
    if (quote === "'") {
      if (char === "'") quote = "";
      else word += char;
    } else if (char === "\\" && next !== "" && (quote === "" || '"\\$`'.includes(next))) {
      word = (word ?? "") + next;
      i++;
    } else if (quote === '"') {
      if (char === '"') quote = "";
      else word += char;
    } else if (char === "'" || char === '"') {
      quote = char;
      word ??= "";
    } else if (/\s/.test(char)) {
      if (word !== undefined) words.push(word);
      word = undefined;
    } else {
      word = (word ?? "") + char;
    }
  }
  if (word !== undefined) words.push(word);
  return words;
}
