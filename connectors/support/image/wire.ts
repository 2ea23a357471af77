/**
 * In which form an image crosses the ssh connection: as it came, where the far side unpacks it quickly;
 * compressed again with zstd or lz4 on its way, which take next to no time to unpack; or raw.
 */
import type { ConnectorContext } from "../../context.ts";
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

/** What unpacks on several cores where it can. */
const PARALLEL: Readonly<Record<string, readonly [string, ...string[]]>> = {
  unxz: ["xz", "-dc", "-T0"],
  zstdcat: ["zstd", "-dc", "-T0"],
};

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

/**
 * Chooses the form that makes the whole fastest, by what both hosts have and by how long the first
 * megabytes take. Sending them is what is measured, so the link counts.
 */
export async function chooseWire(
  ctx: ConnectorContext,
  { image, to, wanted, isUnpackedHere = false }: {
    readonly image: Pick<Image, "head" | "size" | "unpacker">;
    readonly to: Remote;
    readonly wanted: WireName;
    /** It cannot cross as it came. @default false */
    readonly isUnpackedHere?: boolean;
  },
): Promise<Wire> {
  const plain = wireOf(isUnpackedHere ? "raw" : "original", image);
  if (wanted === "original") return plain;
  if (wanted !== "auto") return wireOf(wanted, image);
  if ((image.size ?? 0) < WORTH_MEASURING_BYTES) return plain;
  const sample = await image.head(SAMPLE_BYTES);
  const candidates = [plain];
  for (const name of ["zstd", "lz4"] as const) {
    const wire = wireOf(name, image);
    if ((isUnpackedHere || wire.unpacker !== image.unpacker) && await haveBoth(ctx, to, name)) {
      candidates.push(wire);
    }
  }
  if (image.unpacker !== "cat" && !isUnpackedHere) candidates.push(wireOf("raw", image));
  let best = plain;
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
    if (succeeded(result) && took < bestMs) [best, bestMs] = [wire, took];
  }
  if (best !== plain) {
    ctx.log.info(`The image crosses the network as ${best.name}, which is the fastest here`);
  }
  return best;
}

async function haveBoth(ctx: ConnectorContext, to: Remote, program: string): Promise<boolean> {
  const look = `command -v ${program}`;
  const here = await ctx.runner.run(["/bin/sh", "-c", look], { timeoutMs: SAMPLE_TIMEOUT_MS });
  if (!succeeded(here)) return false;
  return succeeded(await to.run(look, { attempts: 1, timeoutMs: SAMPLE_TIMEOUT_MS }));
}
