import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { withProgress } from "./image.ts";
import { expectSuccess, failureText, succeeded } from "../process/runner.ts";
import { controlHost, type Remote } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";
import type { Bmap } from "./bmap.ts";
import { canUnpackHere, readBackMapped, writeMapped } from "./mapped.ts";
import type { Image } from "./source.ts";
import { chooseWire, localUnpacker, UNPACKING_FAILED, type WireName } from "./wire.ts";

/** Slow cards take their time for what is left in memory. */
const SYNC_TIMEOUT_MS = 600_000;
const AFTER_FAILED_SYNC_MS = 30_000;

const REREAD_TIMEOUT_MS = 40_000;
/** udev may be looking at the partitions just then, and a busy device is not read again. */
const REREAD_ATTEMPTS = 3;
const REREAD_PAUSE_MS = 5_000;

const VERIFY_TIMEOUT_MS = 1_800_000;

const READING_FAILED = "testflinger: the medium could not be read";
/** The last line that POSIX has every dd print. */
const WRITTEN = /^\d+\+\d+ records out\r?$/m;

/** How much of what else is printed is shown. */
const SHOWN_CHARS = 200;

/** An image, and where to write it. */
export interface Flashing {
  readonly image: Pick<Image, "stream" | "head" | "size" | "unpacker" | "timeoutMs" | "bmap">;
  /** The host that has the medium. @default the control host */
  readonly to?: Remote;
  /** Block device of that host. */
  readonly device: string;
  /** In which form the image crosses the connection. @default as it came */
  readonly wire?: WireName;
  /** Read back what was written. */
  readonly verify: boolean;
}

/**
 * Writes the image to the medium, and makes the control host see the partitions that it brought.
 *
 * @throws ProvisioningError when not all of it could be written.
 */
export async function flash(ctx: ConnectorContext, flashing: Flashing): Promise<void> {
  const { device, verify, to = controlHost(ctx) } = flashing;
  ctx.log.info(`Writing the image to ${device}`);
  const bmap = await usableMap(ctx, flashing.image);
  const wire = flashing.wire ?? "original";
  const written = bmap === undefined
    ? await writeImage(ctx, flashing)
    : await writeMapped(ctx, { ...flashing, bmap, to, wire });
  const synced = await to.run("sync", { timeoutMs: SYNC_TIMEOUT_MS });
  if (!succeeded(synced)) {
    ctx.log.warning(`Cannot make sure that all is written: ${failureText("sync", synced)}`);
    await ctx.clock.sleep(AFTER_FAILED_SYNC_MS, ctx.signal);
  }
  await rereadPartitions(ctx, { to, device });
  if (!verify) return;
  if (typeof written === "string") await readBack(ctx, { to, device }, written);
  else await readBackMapped(ctx, { to, device }, written);
}

/** The image's block map, where this host can unpack what it is of. */
async function usableMap(
  ctx: ConnectorContext,
  image: Flashing["image"],
): Promise<Bmap | undefined> {
  const { bmap } = image;
  if (bmap === undefined) return undefined;
  if (await canUnpackHere(ctx, image)) {
    const { imageSize, mappedSize } = bmap;
    ctx.log.info(
      `The image's block map has ${mappedSize} of ${imageSize} bytes: only they are written`,
    );
    return bmap;
  }
  ctx.log.warning(
    `The image's block map is not used, as this host has no program to unpack the image with ` +
      `(${localUnpacker(image.unpacker)[0]}): every block is written`,
  );
  return undefined;
}

/**
 * Writes every block of the image to the medium.
 *
 * @returns what the programs that did it printed.
 */
export async function writeImage(
  ctx: ConnectorContext,
  { image, device, verify, to = controlHost(ctx), wire: wanted = "original" }: Flashing,
): Promise<string> {
  const step = `write the image to ${device}`;
  const wire = await chooseWire(ctx, { image, to, wanted });
  const { unpacker, filter } = wire;
  const program = `${unpacker} | dd`;
  const result = await to.run(writeCommand({ unpacker, device, verify }), {
    timeoutMs: image.timeoutMs,
    ...(filter === undefined ? {} : { filter }),
    input: withProgress(ctx, await image.stream(), {
      what: `Writing the image to ${device}`,
      total: image.size,
    }),
  });
  const said = "stdout" in result ? `${result.stdout}\n${result.stderr}` : "";
  if (succeeded(result) && !WRITTEN.test(said)) {
    throw new ProvisioningError(
      `Cannot ${step}: 'dd' did not say what it has written: ` +
        (said.replaceAll(UNPACKING_FAILED, "").trim().slice(0, SHOWN_CHARS) || "nothing"),
    );
  }
  if (succeeded(result) && result.stderr.includes(UNPACKING_FAILED)) {
    const why = result.stderr.split(UNPACKING_FAILED)[0]?.trim() ?? "";
    throw new ProvisioningError(
      `Cannot ${step}: '${image.unpacker}' cannot unpack it on ${
        filter === undefined ? "the control host" : "the agent's host"
      }: ${why}`,
    );
  }
  expectSuccess(result, { step, program });
  return said;
}

function writeCommand(
  { unpacker, device, verify }: Pick<Flashing, "device" | "verify"> & { readonly unpacker: string },
): string {
  // zstdcat reads most formats too, and control hosts of old have it.
  const unpack = unpacker === "cat" || unpacker === "zstdcat"
    ? unpacker
    : `{ if command -v ${unpacker} >/dev/null; then ${unpacker}; else zstdcat; fi; }`;
  const unpacked = `{ ${unpack} || echo ${quote(UNPACKING_FAILED)} >&2; }`;
  // In English, as the number of bytes is read from it.
  const dd = `LC_ALL=C sudo dd of=${quote(device)} bs=16M conv=fsync`;
  if (!verify) return `${unpacked} | ${dd}`;
  return `f=$(mktemp -d) && mkfifo "$f/sum" && ` +
    `{ sha256sum < "$f/sum" & ${unpacked} | tee "$f/sum" | ${dd}; s=$?; wait; rm -r "$f"; ` +
    `exit "$s"; }`;
}

/** Where the medium is. */
interface Medium {
  readonly to: Remote;
  readonly device: string;
}

async function rereadPartitions(ctx: ConnectorContext, { to, device }: Medium): Promise<void> {
  for (let attempt = 1;; attempt++) {
    const result = await to.run(`sudo hdparm -z ${quote(device)}`, {
      timeoutMs: REREAD_TIMEOUT_MS,
    });
    if (succeeded(result)) return;
    if (attempt >= REREAD_ATTEMPTS || result.ended === "timeout") {
      expectSuccess(result, {
        step: `make the control host read the partitions of ${device} again`,
        program: "hdparm -z",
      });
    }
    await ctx.clock.sleep(REREAD_PAUSE_MS, ctx.signal);
  }
}

/** Reads as many bytes as were written, from the medium itself. */
async function readBack(
  ctx: ConnectorContext,
  { to, device }: Medium,
  written: string,
): Promise<void> {
  const step = `verify what was written to ${device}`;
  const size = /^(\d+) bytes?\b/m.exec(written)?.[1];
  const wanted = checksumIn(written);
  if (size === undefined || wanted === undefined) {
    throw new ProvisioningError(
      `Cannot ${step}: 'dd' and 'sha256sum' did not say how much it was, and what`,
    );
  }
  // What the control host still has in memory proves nothing.
  const forget = `sudo hdparm -f ${quote(device)} >/dev/null`;
  const read = await to.run(
    `${forget} && { sudo head -c ${size} ${quote(device)} || echo ${
      quote(READING_FAILED)
    } >&2; } | ` +
      `sha256sum`,
    { timeoutMs: VERIFY_TIMEOUT_MS },
  );
  expectSuccess(read, { step, program: "hdparm -f && head | sha256sum" });
  if (read.stderr.includes(READING_FAILED)) {
    const why = read.stderr.split(READING_FAILED)[0]?.trim() ?? "";
    throw new ProvisioningError(`Cannot ${step}: 'head' cannot read it: ${why}`);
  }
  const found = checksumIn(read.stdout);
  if (found === wanted) {
    ctx.log.info(`Read back ${size} bytes from ${device}: they are what was written`);
    return;
  }
  throw new ProvisioningError(
    `The medium does not keep what is written to it: of ${size} bytes, ${device} gives back ` +
      `others (SHA-256 ${found ?? "unknown"}, expected ${wanted})`,
  );
}

function checksumIn(output: string): string | undefined {
  return /^([0-9a-f]{64})\b/m.exec(output)?.[1];
}
