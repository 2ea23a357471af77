/**
 * In which form an image crosses the ssh connection: as it came, where the far side unpacks it quickly;
 * compressed again with zstd or lz4 on its way, which take next to no time to unpack; or raw.
 */
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf } from "../errors.ts";
import { hasProgram } from "../process/programs.ts";
import { succeeded } from "../process/runner.ts";
import type { Remote } from "../ssh/remote.ts";
import type { Image } from "./source.ts";

/** The forms, by their names in the configuration. */
export const WIRES = ["auto", "original", "zstd", "lz4", "raw"] as const;
export type WireName = typeof WIRES[number];

/** A form. */
export interface Wire {
  readonly name: Exclude<WireName, "auto">;
  /** Shell command on this host, from the image as it came to what is sent; undefined: nothing to do. */
  readonly filter: string | undefined;
  /** Program over there that makes a raw image of what is sent. */
  readonly unpacker: string;
}

/** A POSIX shell knows only the end of a pipe's last program, so the first one's is written out. */
export const UNPACKING_FAILED = "testflinger: the image could not be unpacked";

/** Below this there is nothing to be gained. */
const WORTH_MEASURING_BYTES = 64 * 1024 * 1024;
const SAMPLE_BYTES = 4 * 1024 * 1024;
const SAMPLE_TIMEOUT_MS = 30_000;

/** What another form may take of the time of the best one so far, as measured times vary. */
const CLEARLY_FASTER = 0.8;

/** What unpacks on several cores where it can. */
const PARALLEL: Readonly<Record<string, readonly [string, ...string[]]>> = {
  unxz: ["xz", "-dc", "-T0"],
  zstdcat: ["zstd", "-dc", "-T0"],
};

/** Shell command that unpacks on the far side. */
export function remoteUnpacker(unpacker: string): string {
  // zstdcat reads most formats too, and control hosts of old have it.
  return unpacker === "cat" || unpacker === "zstdcat"
    ? unpacker
    : `{ if command -v ${unpacker} >/dev/null; then ${unpacker}; else zstdcat; fi; }`;
}

/** What of its memory the far side gives to one of the two pieces that wait there: a part, and at most so many KiB. */
const HELD_PART = 32;
const HELD_MAX_KIB = 32 * 1024;
const HELD_MIN_KIB = 1024;

/**
 * Shell commands that unpack on the far side what comes in by standard input.
 *
 * What has arrived waits in two pieces of memory there, of which one fills while the other is unpacked. A hole of an
 * image crosses the link in no time and takes long to write, and while it is written the link would stand still.
 */
export function unpackingThere(unpacker: string): string {
  const failed = `echo '${UNPACKING_FAILED}' >&2`;
  const unpacked = `{ ${remoteUnpacker(unpacker)} || ${failed}; }`;
  // Holes in what is sent raw do cross the link.
  if (unpacker === "cat") return unpacked;
  const held = `{ if [ "$k" -ge ${HELD_MIN_KIB} ]; then ` +
    // SIGPIPE: an unpacker may have all that it wants before the end of what is sent.
    `dd bs="\${k}k" iflag=fullblock 2>/dev/null || [ "$?" = 141 ] || ${failed}; else cat; fi; }`;
  return `{ k=0; while read -r n v _; do [ "$n" != MemAvailable: ] || k=$((v / ${HELD_PART})); ` +
    `done 2>/dev/null </proc/meminfo; [ "$k" -le ${HELD_MAX_KIB} ] || k=${HELD_MAX_KIB}; ` +
    `dd bs=1 count=0 iflag=fullblock </dev/null 2>/dev/null || k=0; ` +
    `${held} | ${held} | ${unpacked}; }`;
}

/** How an image is unpacked on this host: program and arguments. */
export function localUnpacker(unpacker: string): readonly [string, ...string[]] {
  return PARALLEL[unpacker] ?? [unpacker];
}

/** The wire of a name that is not `auto`. */
export function wireOf(
  name: Exclude<WireName, "auto">,
  { unpacker }: Pick<Image, "unpacker">,
): Wire {
  const local = localUnpacker(unpacker).join(" ");
  const unpacked = unpacker === "cat" ? [] : [`{ ${local} || echo '${UNPACKING_FAILED}' >&2; }`];
  switch (name) {
    case "original":
      return { name, filter: undefined, unpacker };
    case "raw":
      return { name, filter: unpacked[0], unpacker: "cat" };
    case "zstd":
      return { name, filter: [...unpacked, "zstd -1 -T0 -q -c"].join(" | "), unpacker: "zstdcat" };
    case "lz4":
      return { name, filter: [...unpacked, "lz4 -1 -q -c"].join(" | "), unpacker: "lz4cat" };
  }
}

/** An image, and where it goes. */
interface Sending {
  readonly image: Pick<Image, "head" | "size" | "unpacker" | "cache">;
  readonly to: Remote;
  readonly wanted: WireName;
  /** Only what a block map names is sent, except as the original. @default false */
  readonly isMapped?: boolean;
}

/**
 * Chooses the form that makes the whole fastest, by what both hosts have and by how long the first
 * megabytes take. Sending them is what is measured, so the link counts. The host's cache keeps what
 * came of it for a day: the next image to that host is written without a trial.
 */
export async function chooseWire(ctx: ConnectorContext, sending: Sending): Promise<Wire> {
  const { image, to, wanted, isMapped = false } = sending;
  if (wanted !== "auto") return wireOf(wanted, image);
  const plain = wireOf(isMapped ? "raw" : "original", image);
  if ((image.size ?? 0) < WORTH_MEASURING_BYTES) return plain;
  const { user, host, port = 22 } = to.target;
  const way = `${image.unpacker}${isMapped ? ", mapped" : ""} ${user}@${host}:${port}`;
  const known = await image.cache?.fastestForm(way, ctx.clock.now());
  const candidates = await wiresOf(ctx, sending);
  const last = candidates.find(({ name }) => name === known);
  if (last !== undefined) {
    ctx.log.info(`The image crosses the network as ${last.name}, which was the fastest last time`);
    return last;
  }
  const best = await fastest(ctx, sending, candidates);
  if (best === undefined) return plain;
  if (best.name !== plain.name) {
    ctx.log.info(`The image crosses the network as ${best.name}, which is the fastest here`);
  }
  await image.cache?.noteForm(way, best.name, ctx.clock.now()).catch((error) =>
    ctx.log.warning(`The next image will be measured again: ${fullMessageOf(error)}`)
  );
  return best;
}

/**
 * The forms that are of use and that both hosts can make and unmake, first the one that is chosen
 * where none is clearly faster.
 */
async function wiresOf(
  ctx: ConnectorContext,
  { image, to, isMapped = false }: Sending,
): Promise<readonly Wire[]> {
  const original = wireOf("original", image);
  const isPacked = image.unpacker !== "cat";
  const canUnpack = !isPacked || await hasProgram(ctx, localUnpacker(image.unpacker)[0]);
  if (!canUnpack) return [original];
  const look = ["zstd", "lz4", "zstdcat", image.unpacker];
  const result = await to.run(
    `for p in ${look.join(" ")}; do command -v "$p" >/dev/null && echo "$p"; done; true`,
    { attempts: 1, timeoutMs: SAMPLE_TIMEOUT_MS },
  );
  const there = succeeded(result) ? result.stdout.split(/\s+/) : [];
  const quick: Wire[] = [];
  for (const name of ["zstd", "lz4"] as const) {
    const wire = wireOf(name, image);
    if (!isMapped && wire.unpacker === image.unpacker) continue;
    if (there.includes(name) && await hasProgram(ctx, name)) quick.push(wire);
  }
  const raw = wireOf("raw", image);
  if (!isPacked) return [isMapped ? raw : original, ...quick];
  // zstdcat unpacks most formats, so it can be used instead of their own programs.
  const originals = there.includes(image.unpacker) || there.includes("zstdcat") ? [original] : [];
  // With a block map the far side throws away what is unmapped of the original.
  if (isMapped) return [...(quick.length > 0 ? quick : [raw]), ...originals];
  // What is sent raw has holes in it, of which the first megabytes tell nothing.
  const others = quick.length > 0 ? quick : [raw];
  return [...originals, ...others];
}

/** The form in which the first megabytes arrive the soonest; undefined where none does. */
async function fastest(
  ctx: ConnectorContext,
  { image, to }: Sending,
  candidates: readonly Wire[],
): Promise<Wire | undefined> {
  const sample = await image.head(SAMPLE_BYTES);
  let best: Wire | undefined;
  let bestMs = Infinity;
  for (const wire of candidates) {
    const started = ctx.clock.monotonic();
    // The end of the sample is cut off, of which all programs complain.
    const result = await to.run(`${wire.unpacker} >/dev/null 2>&1; true`, {
      input: sample,
      attempts: 1,
      timeoutMs: SAMPLE_TIMEOUT_MS,
      ...(wire.filter === undefined ? {} : { filter: `{ ${wire.filter}; } 2>/dev/null` }),
    });
    const took = ctx.clock.monotonic() - started;
    if (succeeded(result) && took < bestMs * CLEARLY_FASTER) {
      [best, bestMs] = [wire, took];
    }
  }
  return best;
}
