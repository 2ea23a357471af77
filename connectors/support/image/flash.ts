import { createHash, type Hash } from "node:crypto";
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { withProgress } from "./image.ts";
import { expectSuccess, failureText, succeeded } from "../process/runner.ts";
import { controlHost, type Remote } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";
import type { Bmap } from "./bmap.ts";
import { unfiltered, unpackHere } from "./filter.ts";
import { canUnpackHere, readBackMapped, writeMapped } from "./mapped.ts";
import {
  compare,
  END,
  type Medium,
  READ_BACK_BYTES,
  readBackInTheEnd,
  ReadBackProgress,
  SAY_WRITTEN,
  takeApart,
  VERIFY_TIMEOUT_MS,
  writingAndReadingBack,
} from "./read_back.ts";
import type { Image } from "./source.ts";
import {
  chooseWire,
  localUnpacker,
  UNPACKING_FAILED,
  unpackingThere,
  type WireName,
} from "./wire.ts";

/** Slow cards take their time for what is left in memory. */
const SYNC_TIMEOUT_MS = 600_000;
const AFTER_FAILED_SYNC_MS = 30_000;

const REREAD_TIMEOUT_MS = 40_000;
/** udev may be looking at the partitions just then, and a busy device is not read again. */
const REREAD_ATTEMPTS = 3;
const REREAD_PAUSE_MS = 5_000;

/** The last line that POSIX has every dd print. */
const WRITTEN = /^\d+\+\d+ records out\r?$/m;

/** How much of what else is printed is shown. */
const SHOWN_CHARS = 200;

/** An image, and where to write it. */
export interface Flashing {
  readonly image: Pick<
    Image,
    "stream" | "head" | "size" | "unpacker" | "timeoutMs" | "bmap" | "cache"
  >;
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
  if ("bmap" in written) await readBackMapped(ctx, { to, device }, written);
  else await readBack(ctx, { to, device }, written);
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

/** What has been written. */
interface Written {
  /** In bytes; undefined: the program that wrote it did not say, and it was unpacked there. */
  readonly size: number | undefined;
  /** Of what was to be written; undefined where nobody wanted to know. */
  readonly sha256: string | undefined;
  /** SHA-256 of what was read back meanwhile, if anything. */
  readonly readBack: string | undefined;
}

/** Writes every block of the image to the medium, and reads it back meanwhile if it can. */
export async function writeImage(
  ctx: ConnectorContext,
  { image, device, verify, to = controlHost(ctx), wire: wanted = "original" }: Flashing,
): Promise<Written> {
  const step = `write the image to ${device}`;
  const wire = await chooseWire(ctx, { image, to, wanted });
  const { unpacker } = wire;
  // What crosses the connection raw is unpacked here, so that this host knows what there is to write.
  const isRaw = unpacker === "cat";
  const filter = isRaw ? undefined : wire.filter;
  const packed = withProgress(ctx, await image.stream(), {
    what: `Writing the image to ${device}`,
    total: image.size,
  });
  await using sending = isRaw ? unpackHere(ctx, image, packed) : unfiltered(packed);
  const tally = isRaw ? new Tally(sending.stream, { isHashed: verify }) : undefined;
  using reading = new ReadBackProgress(ctx, device);
  const { result, written, sha256, readBack } = takeApart(
    await to.run(writeCommand({ unpacker, device, verify, isHashedThere: !isRaw }), {
      timeoutMs: image.timeoutMs + (verify ? VERIFY_TIMEOUT_MS : 0),
      onOutput: reading.onOutput,
      ...(filter === undefined ? {} : { filter }),
      input: tally?.stream ?? sending.stream,
    }),
    device,
  );
  const said = "stdout" in result ? `${result.stdout}\n${result.stderr}` : "";
  if (succeeded(result) && written === undefined && !WRITTEN.test(said)) {
    throw new ProvisioningError(
      `Cannot ${step}: 'dd' did not say what it has written: ` +
        (said.replaceAll(UNPACKING_FAILED, "").trim().slice(0, SHOWN_CHARS) || "nothing"),
    );
  }
  if (succeeded(result) && result.stderr.includes(UNPACKING_FAILED)) {
    const why = result.stderr.split(UNPACKING_FAILED)[0]?.trim() ?? "";
    throw new ProvisioningError(
      filter === undefined
        ? `Cannot ${step}: '${unpacker}' cannot unpack it on the control host: ${why}`
        : `Cannot ${step}: '${image.unpacker}' cannot unpack it on the agent's host: ${why}`,
    );
  }
  expectSuccess(result, { step, program: `${unpacker} | dd` });
  const bytes = /^(\d+) bytes?\b/m.exec(said)?.[1];
  const size = written ?? (bytes === undefined ? undefined : Number(bytes));
  if (tally === undefined) return { size, sha256, readBack };
  if (!tally.isWhole || (size !== undefined && size !== tally.size)) {
    throw new ProvisioningError(
      `Cannot ${step}: 'dd' has written ${size ?? "some"} bytes, and the image has ` +
        `${tally.isWhole ? "" : "more than "}${tally.size}`,
    );
  }
  return { size: tally.size, sha256: tally.sha256(), readBack };
}

/** Counts what passes, and hashes it where that is wanted. */
class Tally {
  /** In bytes, so far. */
  size = 0;
  /** Has all of it passed? */
  isWhole = false;
  readonly stream: ReadableStream<Uint8Array>;
  readonly #hash: Hash | undefined;

  constructor(stream: ReadableStream<Uint8Array>, { isHashed }: { readonly isHashed: boolean }) {
    this.#hash = isHashed ? createHash("sha256") : undefined;
    this.stream = stream.pipeThrough(
      new TransformStream<Uint8Array, Uint8Array>({
        transform: (bytes, controller) => {
          this.size += bytes.length;
          this.#hash?.update(bytes);
          controller.enqueue(bytes);
        },
        flush: () => {
          this.isWhole = true;
        },
      }),
    );
  }

  /** To be asked for once, when all has passed. */
  sha256(): string | undefined {
    return this.#hash?.digest("hex");
  }
}

function writeCommand(
  { unpacker, device, verify, isHashedThere }: Pick<Flashing, "device" | "verify"> & {
    readonly unpacker: string;
    readonly isHashedThere: boolean;
  },
): string {
  const unpacked = unpackingThere(unpacker);
  const dd = `dd of=${quote(device)} bs=16M conv=fsync`;
  // In English, as the number of bytes is read from it.
  if (!verify) return `${unpacked} | LC_ALL=C sudo ${dd}`;
  const program = writingAndReadingBack({ device, writer: pieceWriter(device), otherwise: dd });
  if (!isHashedThere) return `${unpacked} | sudo sh -c ${quote(program)}`;
  return `f=$(mktemp -d) && mkfifo "$f/sum" && ` +
    `{ sha256sum < "$f/sum" & ${unpacked} | tee "$f/sum" | sudo sh -c ${quote(program)}; s=$?; ` +
    `wait; rm -r "$f"; exit "$s"; }`;
}

/**
 * Writes what comes in by standard input piece by piece. The device is opened once: whenever one is
 * closed that was written to, the kernel waits for it, and others look what is on it.
 */
function pieceWriter(device: string): string {
  const run = (dd: string) => `said=$(dd ${dd} 2>&1 >&3) || { echo "$said" >&2; exit 1; }`;
  return `exec 3>${quote(device)} || exit 1; sum=0; n=${READ_BACK_BYTES}; ` +
    `while [ "$n" = ${READ_BACK_BYTES} ]; do ` +
    `${run(`bs=1M count=${READ_BACK_BYTES / 1024 / 1024} iflag=fullblock`)}; ` +
    // Not every dd says how many bytes it has written, but the kernel knows where it is.
    `read -r _ pos </proc/self/fdinfo/3 || exit 1; n=$((pos - sum)); ` +
    `[ "$n" = 0 ] || echo "$sum $n"; sum=$pos; done; ` +
    // Also has errors of the medium told that came late.
    `${run("if=/dev/null conv=fsync")}; ${SAY_WRITTEN}; echo ${END}`;
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

/** Makes sure that the medium has what was written. */
async function readBack(
  ctx: ConnectorContext,
  { to, device }: Medium,
  { size, sha256, readBack }: Written,
): Promise<void> {
  if (size === undefined || sha256 === undefined) {
    throw new ProvisioningError(
      `Cannot verify what was written to ${device}: 'dd' and 'sha256sum' did not say how much it ` +
        `was, and what`,
    );
  }
  const found = readBack ??
    await readBackInTheEnd({ to, device }, {
      command: `sudo head -c ${size} ${quote(device)}`,
      program: "head",
    });
  compare(ctx, { device, size, wanted: sha256, found });
}
