/**
 * Writing only what a block map names. The image is unpacked here as it arrives, each range is
 * compared with its checksum, and what is mapped crosses the connection as a line with its place and
 * length before each piece, which a small shell program over there puts in its place: one stream,
 * one command, and no list that would be too long for a command line.
 */
import { createHash, type Hash } from "node:crypto";
import type { Progress } from "../../../lib/progress.ts";
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { hasProgram } from "../process/programs.ts";
import { expectSuccess, succeeded } from "../process/runner.ts";
import { progressOf } from "../log.ts";
import type { Remote } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";
import type { Bmap, MappedRange } from "./bmap.ts";
import { type Filtered, filtered, unfiltered } from "./filter.ts";
import type { Image } from "./source.ts";
import { chooseWire, localUnpacker, UNPACKING_FAILED, type WireName, wireOf } from "./wire.ts";

const VERIFY_TIMEOUT_MS = 1_800_000;

/** Behind the last range: what breaks off before it was not the whole. */
const END = "end";
const PLACED = "testflinger: placed bytes:";
/** How much of what else is printed is shown. */
const SHOWN_CHARS = 200;

/** Places what comes in by standard input; as root. POSIX shells read such lines byte by byte. */
function placer(device: string): string {
  const dd = `LC_ALL=C dd of=${quote(device)}`;
  return `sum=0; while read -r at n; do case "$at$n" in ` +
    // Also has errors of the medium told that came late.
    `${END}) ${dd} if=/dev/null conv=notrunc,fsync 2>&1 && echo "${PLACED} $sum"; exit;; ` +
    `*[!0-9]*) break;; esac; ` +
    `said=$(${dd} bs=1M iflag=fullblock,count_bytes oflag=seek_bytes conv=notrunc ` +
    `seek="$at" count="$n" 2>&1) || { echo "$said" >&2; exit 1; }; sum=$((sum + n)); done; ` +
    `echo "the image broke off behind $sum bytes" >&2; exit 1`;
}

/** What has been written. */
export interface MappedWrite {
  readonly bmap: Bmap;
  /** Of all mapped bytes, one after the other. */
  readonly sha256: string;
}

/** An image with its map, and where it goes. */
export interface MappedFlashing {
  readonly image: Pick<Image, "stream" | "head" | "size" | "unpacker" | "timeoutMs">;
  readonly bmap: Bmap;
  readonly to: Remote;
  /** Block device of that host. */
  readonly device: string;
  readonly wire: WireName;
}

/** Can the image be unpacked on this host, which is where its ranges are looked at? */
export async function canUnpackHere(
  ctx: ConnectorContext,
  { unpacker }: Pick<Image, "unpacker">,
): Promise<boolean> {
  return await hasProgram(ctx, localUnpacker(unpacker)[0]);
}

/**
 * Writes what is mapped of an image, and nothing else.
 *
 * @throws ProvisioningError when not all of it could be written, or the image is not the one that
 *   the map is of.
 */
export async function writeMapped(
  ctx: ConnectorContext,
  { image, bmap, to, device, wire: wanted }: MappedFlashing,
): Promise<MappedWrite> {
  const step = `write the image to ${device}`;
  const { name } = await chooseWire(ctx, { image, to, wanted, isUnpackedHere: true });
  // What is sent is not the image as it came.
  const wire = wireOf(name, { unpacker: "cat" });
  const hash = createHash("sha256");
  const progress = progressOf(ctx, {
    what: `Writing the image to ${device}`,
    total: bmap.mappedSize,
  });
  try {
    await using unpacked = await unpackHere(ctx, image);
    const result = await to.run(
      `{ ${wire.unpacker} || echo ${quote(UNPACKING_FAILED)} >&2; } | ` +
        `sudo sh -c ${quote(placer(device))}`,
      {
        timeoutMs: image.timeoutMs,
        ...(wire.filter === undefined ? {} : { filter: wire.filter }),
        input: mappedStream(unpacked.stream, { bmap, hash, progress }),
      },
    );
    expectSuccess(result, { step, program: `${wire.unpacker} | dd` });
    if (!result.stdout.includes(`${PLACED} ${bmap.mappedSize}\n`)) {
      const said = `${result.stdout}\n${result.stderr}`.replaceAll(UNPACKING_FAILED, "").trim();
      throw new ProvisioningError(
        `Cannot ${step}: 'dd' did not say what it has written: ` +
          (said.slice(0, SHOWN_CHARS) || "nothing"),
      );
    }
  } finally {
    progress.end();
  }
  return { bmap, sha256: hash.digest("hex") };
}

/** Reads back what was written, from the medium itself. */
export async function readBackMapped(
  ctx: ConnectorContext,
  { to, device }: { readonly to: Remote; readonly device: string },
  { bmap, sha256 }: MappedWrite,
): Promise<void> {
  const step = `verify what was written to ${device}`;
  const READING_FAILED = "testflinger: the medium could not be read";
  const reader = `while read -r at n; do dd if=${quote(device)} bs=1M ` +
    `iflag=skip_bytes,count_bytes skip="$at" count="$n" status=none || exit 1; done`;
  const read = await to.run(
    // What the host still has in memory proves nothing.
    `sudo hdparm -f ${quote(device)} >/dev/null && ` +
      `{ sudo sh -c ${quote(reader)} || echo ${quote(READING_FAILED)} >&2; } | sha256sum`,
    {
      timeoutMs: VERIFY_TIMEOUT_MS,
      input: bmap.ranges.map(({ at, length }) => `${at} ${length}\n`).join(""),
    },
  );
  expectSuccess(read, { step, program: "hdparm -f && dd | sha256sum" });
  if (read.stderr.includes(READING_FAILED)) {
    const why = read.stderr.split(READING_FAILED)[0]?.trim() ?? "";
    throw new ProvisioningError(`Cannot ${step}: 'dd' cannot read it: ${why}`);
  }
  const found = /^([0-9a-f]{64})\b/m.exec(read.stdout)?.[1];
  if (found !== sha256) {
    throw new ProvisioningError(
      `The medium does not keep what is written to it: of ${bmap.mappedSize} bytes, ${device} ` +
        `gives back others (SHA-256 ${found ?? "unknown"}, expected ${sha256})`,
    );
  }
  ctx.log.info(`Read back ${bmap.mappedSize} bytes from ${device}: they are what was written`);
}

/** Unpacks an image as it arrives. */
async function unpackHere(
  ctx: ConnectorContext,
  image: Pick<Image, "stream" | "unpacker" | "timeoutMs">,
): Promise<Filtered> {
  const input = await image.stream();
  if (image.unpacker === "cat") return unfiltered(input);
  return filtered(ctx, {
    argv: localUnpacker(image.unpacker),
    input,
    timeoutMs: image.timeoutMs,
    check(result) {
      if (succeeded(result)) return;
      const said = "stderr" in result ? result.stderr.trim() : "";
      throw new ProvisioningError(
        `Cannot unpack the image: '${image.unpacker}' on the agent's host says: ` +
          (said || result.ended),
      );
    },
  });
}

interface Selection {
  readonly bmap: Bmap;
  /** Gets all mapped bytes. */
  readonly hash: Hash;
  readonly progress: Progress;
}

/**
 * What is mapped of an unpacked image, each range behind a line that says where it goes. It fails
 * before its end where the image is not the one that the map is of.
 */
export function mappedStream(
  unpacked: ReadableStream<Uint8Array>,
  selection: Selection,
): ReadableStream<Uint8Array> {
  const reader = unpacked.getReader();
  const selector = new Selector(selection);
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      for (let hasMore = true; hasMore;) {
        const { done, value } = await reader.read();
        const pieces = done ? [selector.end()] : selector.take(value);
        for (const piece of pieces) controller.enqueue(piece);
        if (done) controller.close();
        hasMore = pieces.length === 0;
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

class Selector {
  /** How much of the image has passed. */
  #at = 0;
  #index = 0;
  #rangeHash: Hash | undefined;
  #selected = 0;

  constructor(readonly selection: Selection) {}

  take(bytes: Uint8Array): Uint8Array[] {
    const { bmap, hash, progress } = this.selection;
    const pieces: Uint8Array[] = [];
    const end = this.#at + bytes.length;
    while (this.#at < end) {
      const range = bmap.ranges[this.#index];
      if (range === undefined || range.at >= end) {
        this.#at = end;
        break;
      }
      if (this.#at <= range.at) {
        this.#at = range.at;
        this.#rangeHash = range.checksum === undefined ? undefined : createHash(bmap.digest);
        pieces.push(encoder.encode(`${range.at} ${range.length}\n`));
      }
      const till = Math.min(end, range.at + range.length);
      const piece = bytes.subarray(bytes.length - (end - this.#at), bytes.length - (end - till));
      hash.update(piece);
      this.#rangeHash?.update(piece);
      this.#selected += piece.length;
      pieces.push(piece);
      this.#at = till;
      if (till === range.at + range.length) this.#endRange(range);
    }
    progress.at(this.#selected);
    if (this.#at > bmap.imageSize) throw wrongSize(bmap, "more");
    return pieces;
  }

  /** What is behind the last byte of the image. */
  end(): Uint8Array {
    if (this.#at !== this.selection.bmap.imageSize) {
      throw wrongSize(this.selection.bmap, `only ${this.#at}`);
    }
    return encoder.encode(`${END}\n`);
  }

  #endRange({ at, length, checksum }: MappedRange): void {
    this.#index++;
    const found = this.#rangeHash?.digest("hex");
    if (checksum === found) return;
    throw new ProvisioningError(
      `The image is not the one that its block map is of, or it is damaged: its ${length} bytes ` +
        `from ${at} on have the checksum ${found}, expected ${checksum}`,
    );
  }
}

const encoder = new TextEncoder();

function wrongSize({ imageSize }: Bmap, found: string): ProvisioningError {
  return new ProvisioningError(
    `The image is not the one that its block map is of: that has ${imageSize} bytes, and this one ` +
      `has ${found}`,
  );
}
