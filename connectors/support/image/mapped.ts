/**
 * Writing only what a block map names. The image is unpacked here as it arrives, each range is
 * compared with its checksum, and what is mapped crosses the connection as a line with its place and
 * length before each piece, which a small shell program over there puts in its place: one stream,
 * one command, and no list that would be too long for a command line. Where the original is the fastest,
 * it crosses as it came, behind a list of the pieces, and the far side throws the rest away.
 */
import { createHash, type Hash } from "node:crypto";
import type { Progress } from "../../../lib/progress.ts";
import type { ConnectorContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { hasProgram } from "../process/programs.ts";
import { expectSuccess } from "../process/runner.ts";
import { progressOf } from "../log.ts";
import type { Remote } from "../ssh/remote.ts";
import { quote } from "../ssh/ssh.ts";
import type { Bmap, MappedRange } from "./bmap.ts";
import { unpackHere } from "./filter.ts";
import {
  ALIGNMENT,
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
  remoteUnpacker,
  UNPACKING_FAILED,
  type Wire,
  type WireName,
  wireOf,
} from "./wire.ts";

/** How much of what else is printed is shown. */
const SHOWN_CHARS = 200;

/**
 * Places what comes in by standard input, and prints where; as root. POSIX shells read such lines
 * byte by byte. The device is opened once, so that the kernel does not wait for it behind each piece.
 */
function placer(device: string): string {
  const run = (dd: string) => `said=$(dd ${dd} 2>&1 >&3) || { echo "$said" >&2; exit 1; }`;
  return `exec 3<>${quote(device)} || exit 1; sum=0; pos=0; ` +
    `while read -r at n; do case "$at$n" in ` +
    // Also has errors of the medium told that came late.
    `${END}) ${run("if=/dev/null conv=fsync")}; ${SAY_WRITTEN}; ` +
    `echo ${END}; exit 0;; *[!0-9]*) break;; esac; ` +
    // From where the last one has ended.
    `${
      run('bs=1M iflag=fullblock,count_bytes oflag=seek_bytes seek="$((at - pos))" count="$n"')
    }; ` +
    `pos=$((at + n)); sum=$((sum + n)); echo "$at $n"; done; ` +
    `echo "the image broke off behind $sum bytes" >&2; exit 1`;
}

/** Ends the list of the pieces in front of the original. */
const GO = "go";

/**
 * The same of a whole image behind a list of its pieces: what is between them is thrown away.
 */
function selector(device: string): string {
  const run = (dd: string) =>
    `said=$(dd bs=1M iflag=fullblock,count_bytes ${dd}) || { echo "$said" >&2; exit 1; }`;
  return `exec 3<>${quote(device)} || exit 1; list=; while read -r at n; do ` +
    `case "$at$n" in ${GO}) break;; *[!0-9]*) exit 1;; esac; list="$list $at:$n"; done; ` +
    `sum=0; pos=0; for p in $list; do at=\${p%:*}; n=\${p#*:}; gap=$((at - pos)); ` +
    `[ "$gap" = 0 ] || { ${run('count="$gap" 2>&1 >/dev/null')}; }; ` +
    `${run('oflag=seek_bytes seek="$gap" count="$n" 2>&1 >&3')}; ` +
    // dd does not complain of an end.
    `read -r _ pos </proc/self/fdinfo/3 || exit 1; [ "$pos" = "$((at + n))" ] || ` +
    `{ echo "the image broke off behind $pos bytes" >&2; exit 1; }; ` +
    `sum=$((sum + n)); echo "$at $n"; done; cat >/dev/null; ` +
    `said=$(dd if=/dev/null conv=fsync 2>&1 >&3) || { echo "$said" >&2; exit 1; }; ` +
    `${SAY_WRITTEN}; echo ${END}`;
}

/** What has been written. */
export interface MappedWrite {
  readonly bmap: Bmap;
  /** Of all mapped bytes, one after the other. */
  readonly sha256: string;
  /** SHA-256 of what was read back meanwhile, if anything. */
  readonly readBack: string | undefined;
}

/** An image with its map, and where it goes. */
export interface MappedFlashing {
  readonly image: Pick<Image, "stream" | "head" | "size" | "unpacker" | "timeoutMs" | "cache">;
  readonly bmap: Bmap;
  readonly to: Remote;
  /** Block device of that host. */
  readonly device: string;
  readonly wire: WireName;
  /** Read back what was written. */
  readonly verify: boolean;
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
  { image, bmap, to, device, wire: wanted, verify }: MappedFlashing,
): Promise<MappedWrite> {
  const step = `write the image to ${device}`;
  const { name } = await chooseWire(ctx, { image, to, wanted, isMapped: true });
  const hash = createHash("sha256");
  const progress = progressOf(ctx, {
    what: `Writing the image to ${device}`,
    total: bmap.mappedSize,
  });
  using reading = new ReadBackProgress(ctx, device);
  let readBack: string | undefined;
  try {
    const selection = { bmap, hash, progress };
    const isOriginal = name === "original" && image.unpacker !== "cat";
    await using sending = isOriginal
      ? await originalBehindList(ctx, image, selection)
      : await piecesOnly(ctx, image, { ...selection, name });
    const { filter, unpack, program, writer } = sending;
    const said = takeApart(
      await to.run(
        `{ ${unpack}; } | sudo sh -c ${
          quote(placing({ bmap, device, verify, writer: writer(device) }))
        }`,
        {
          timeoutMs: image.timeoutMs + (verify ? VERIFY_TIMEOUT_MS : 0),
          onOutput: reading.onOutput,
          ...(filter === undefined ? {} : { filter }),
          input: sending.stream,
        },
      ),
      device,
    );
    const { result } = said;
    readBack = said.readBack;
    expectSuccess(result, { step, program: `${program} | dd` });
    if (isOriginal && result.stderr.includes(UNPACKING_FAILED)) {
      const why = result.stderr.split(UNPACKING_FAILED)[0]?.trim() ?? "";
      throw new ProvisioningError(
        `Cannot ${step}: '${program}' cannot unpack it on the control host: ${why}`,
      );
    }
    if (said.written !== bmap.mappedSize) {
      const printed = `${result.stdout}\n${result.stderr}`.replaceAll(UNPACKING_FAILED, "").trim();
      throw new ProvisioningError(
        `Cannot ${step}: 'dd' did not say what it has written: ` +
          (printed.slice(0, SHOWN_CHARS) || "nothing"),
      );
    }
  } finally {
    progress.end();
  }
  return { bmap, sha256: hash.digest("hex"), readBack };
}

/** Shell program for root that places what comes in, and reads it back meanwhile if it can. */
function placing(
  { bmap, device, verify, writer }: Pick<MappedFlashing, "bmap" | "device" | "verify"> & {
    readonly writer: string;
  },
): string {
  const otherwise = `{ ${writer}; } >/dev/null`;
  return verify && bmap.ranges.every(({ at }) => at % ALIGNMENT === 0)
    ? writingAndReadingBack({ device, writer, otherwise })
    : `LC_ALL=C; export LC_ALL; ${otherwise}`;
}

/** Makes sure that the medium has what was written. */
export async function readBackMapped(
  ctx: ConnectorContext,
  { to, device }: Medium,
  { bmap, sha256, readBack }: MappedWrite,
): Promise<void> {
  const reader = `while read -r at n; do dd if=${quote(device)} bs=1M ` +
    `iflag=skip_bytes,count_bytes skip="$at" count="$n" status=none || exit 1; done`;
  const found = readBack ??
    await readBackInTheEnd({ to, device }, {
      command: `sudo sh -c ${quote(reader)}`,
      program: "dd",
      input: bmap.ranges.map(({ at, length }) => `${at} ${length}\n`).join(""),
    });
  compare(ctx, { device, size: bmap.mappedSize, wanted: sha256, found });
}

/** What crosses the connection, and what is to be done with it over there. */
interface Crossing extends AsyncDisposable {
  readonly stream: ReadableStream<Uint8Array>;
  /** Shell command on this host that the stream goes through. */
  readonly filter: string | undefined;
  /** Shell command over there that brings out what a writer reads, and the program in it. */
  readonly unpack: string;
  readonly program: string;
  /** Shell program, for root, that writes it to a device. */
  readonly writer: (device: string) => string;
}

/** Only the pieces, unpacked here. */
async function piecesOnly(
  ctx: ConnectorContext,
  image: MappedFlashing["image"],
  { name, ...selection }: Selection & { readonly name: Wire["name"] },
): Promise<Crossing> {
  // What is sent is not the image as it came.
  const { filter, unpacker } = wireOf(name, { unpacker: "cat" });
  const unpacked = unpackHere(ctx, image, await image.stream());
  return {
    stream: mappedStream(unpacked.stream, selection),
    filter,
    unpack: orFailed(unpacker),
    program: unpacker,
    writer: placer,
    [Symbol.asyncDispose]: () => unpacked[Symbol.asyncDispose](),
  };
}

/** The image as it came, which is also unpacked here, for its checksums. */
async function originalBehindList(
  ctx: ConnectorContext,
  image: MappedFlashing["image"],
  selection: Selection,
): Promise<Crossing> {
  const reader = (await image.stream()).getReader();
  const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
  const writer = writable.getWriter();
  const unpacked = unpackHere(ctx, image, readable);
  const checked = (async () => {
    for await (const _ of mappedStream(unpacked.stream, selection));
  })();
  let isAllHere = false;
  checked.then(() => isAllHere = true, () => {}); // Waited for later.
  /** Hands on what has arrived. Where nothing more is taken, all has been seen, or something is wrong. */
  const check = async (bytes: Uint8Array | undefined) => {
    if (isAllHere) return;
    const taken = bytes === undefined ? writer.close() : writer.write(bytes);
    try {
      await Promise.race([taken, checked]);
    } catch {
      await checked;
    }
  };
  let held: Uint8Array = encoder.encode(
    [...piecesOf(selection.bmap)].map(({ at, length }) => `${at} ${length}\n`).join("") + `${GO}\n`,
  );
  return {
    stream: new ReadableStream<Uint8Array>({
      async pull(controller) {
        const { done, value } = await reader.read().catch((error) => {
          writer.abort(error).catch(() => {});
          throw error;
        });
        await check(value);
        // The last piece is sent when all has been found to be right.
        if (done) await checked;
        controller.enqueue(held);
        if (done) controller.close();
        else held = value;
      },
      cancel: (reason) => reader.cancel(reason),
    }, { highWaterMark: 0 }),
    filter: undefined,
    unpack: `while read -r l; do echo "$l"; [ "$l" != ${GO} ] || break; done; ` +
      orFailed(remoteUnpacker(image.unpacker)),
    program: image.unpacker,
    writer: selector,
    async [Symbol.asyncDispose]() {
      await reader.cancel().catch(() => {});
      await unpacked[Symbol.asyncDispose]();
    },
  };
}

function orFailed(unpack: string): string {
  return `${unpack} || echo ${quote(UNPACKING_FAILED)} >&2`;
}

/** What is mapped, in pieces. */
function* piecesOf({ ranges }: Bmap): Generator<Pick<MappedRange, "at" | "length">> {
  for (const { at, length } of ranges) {
    for (let done = 0; done < length; done += READ_BACK_BYTES) {
      yield { at: at + done, length: Math.min(READ_BACK_BYTES, length - done) };
    }
  }
}

interface Selection {
  readonly bmap: Bmap;
  /** Gets all mapped bytes. */
  readonly hash: Hash;
  readonly progress: Progress;
}

/**
 * What is mapped of an unpacked image, in pieces that do not span ranges, each behind a line that says
 * where it goes. It fails
 * before its end where the image is not the one that the map is of.
 */
function mappedStream(
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
      }
      const inRange = this.#at - range.at;
      const left = Math.min(READ_BACK_BYTES - inRange % READ_BACK_BYTES, range.length - inRange);
      if (inRange % READ_BACK_BYTES === 0) pieces.push(encoder.encode(`${this.#at} ${left}\n`));
      const till = Math.min(end, this.#at + left);
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
