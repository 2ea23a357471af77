import { basename } from "../../../lib/path.ts";
import type { Task } from "../../../lib/progress.ts";
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { progressOf } from "../log.ts";
import { expectSuccess } from "../process/runner.ts";

/** What an image is wrapped in. Everything that is not known is a raw image. */
export type ImageFormat = "gz" | "bz2" | "xz" | "lzma" | "zstd" | "lz4" | "zip" | "qcow2" | "raw";

const MAGIC: readonly (readonly [ImageFormat, readonly number[]])[] = [
  ["gz", [0x1f, 0x8b, 0x08]],
  ["bz2", [0x42, 0x5a, 0x68]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["lzma", [0x5d, 0x00, 0x00]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
  ["lz4", [0x04, 0x22, 0x4d, 0x18]],
  ["zip", [0x50, 0x4b, 0x03, 0x04]],
  ["qcow2", [0x51, 0x46, 0x49, 0xfb]],
];

/** Programs that make a raw image of standard input. */
const UNPACKERS: Readonly<Record<Exclude<ImageFormat, "qcow2">, string>> = {
  gz: "zcat",
  bz2: "bunzip2",
  xz: "unxz",
  lzma: "unlzma",
  zstd: "zstdcat",
  lz4: "lz4cat",
  zip: "funzip",
  raw: "cat",
};

/** How much of an image is read at once. */
const CHUNK_BYTES = 1024 * 1024;

/** How much of an image is looked at. */
export const HEAD_BYTES = 512;

/** The end of a zip archive: 22 bytes and a comment of at most 64 KiB. */
const ZIP_TAIL_BYTES = 22 + 65_535;
const ZIP_END = [0x50, 0x4b, 0x05, 0x06];

const QCOW2_TIMEOUT_MS = 1_800_000;

/**
 * Finds out what an image is by its first bytes, of which `HEAD_BYTES` are enough.
 *
 * @param name for messages.
 * @throws ProvisioningError when it is no image: empty, a web page, text.
 */
export function formatOf(head: Uint8Array, name: string): ImageFormat {
  if (head.length === 0) throw new ProvisioningError(`The image '${name}' is empty`);
  const format = MAGIC.find(([, magic]) => magic.every((byte, i) => head[i] === byte))?.[0] ??
    "raw";
  if (format === "raw" && isText(head)) {
    const what = /^\s*<(!doctype|html|\?xml)/i.test(new TextDecoder().decode(head))
      ? "a web page"
      : "text";
    throw new ProvisioningError(`'${name}' is no image: it is ${what}`);
  }
  return format;
}

/**
 * Finds out what an image file is.
 *
 * @throws ProvisioningError when it is no image: empty, a web page, text, an archive of many files.
 */
export async function sniffImage(path: string): Promise<ImageFormat> {
  const name = basename(path);
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path);
  } catch (error) {
    throw new ProvisioningError(`Cannot read the image '${name}': ${fullMessageOf(error)}`, {
      cause: error,
    });
  }
  using open = file;
  const format = formatOf(await readSome(open, HEAD_BYTES), name);
  if (format === "zip") {
    const members = await zipMembers(open);
    if (members !== 1) {
      throw new ProvisioningError(
        `The archive '${name}' has ${members ?? "an unknown number of"} files: expected one, the ` +
          `image`,
      );
    }
  }
  return format;
}

/** The first bytes of a file, at most `length` of them. */
export async function headOf(path: string, length: number): Promise<Uint8Array> {
  using file = await Deno.open(path);
  return await readSome(file, length);
}

/** Name of the program that unpacks an image of this format from standard input to standard output. */
export function unpacker(format: Exclude<ImageFormat, "qcow2">): string {
  return UNPACKERS[format];
}

/**
 * Makes a raw image of a qcow2 one, next to it, with qemu-img.
 *
 * @returns the path of the raw image.
 * @throws ProvisioningError when it does not work.
 */
export async function rawFromQcow2(ctx: ConnectorContext, path: string): Promise<string> {
  const raw = `${path}.raw`;
  try {
    const result = await ctx.runner.run(["qemu-img", "convert", "-O", "raw", path, raw], {
      timeoutMs: QCOW2_TIMEOUT_MS,
    });
    expectSuccess(result, { step: `convert the image '${basename(path)}'`, program: "qemu-img" });
    return raw;
  } catch (error) {
    await Deno.remove(raw).catch(() => {});
    throw error;
  }
}

/** A file as a stream of large pieces: the small ones of `file.readable` cost more than their use. */
export async function fileStream(path: string): Promise<ReadableStream<Uint8Array>> {
  const file = await Deno.open(path);
  return new ReadableStream({
    async pull(controller) {
      const buffer = new Uint8Array(CHUNK_BYTES);
      const length = await file.read(buffer).catch((error) => {
        file.close();
        throw error;
      });
      if (length === null) {
        file.close();
        controller.close();
      } else {
        controller.enqueue(buffer.subarray(0, length));
      }
    },
    cancel: () => file.close(),
  }, { highWaterMark: 1 });
}

/** The same stream, which says how far it has come. */
export function withProgress(
  ctx: ConnectorContext,
  stream: ReadableStream<Uint8Array>,
  task: Task,
): ReadableStream<Uint8Array> {
  const progress = progressOf(ctx, task);
  const reader = stream.getReader();
  let passed = 0;
  return new ReadableStream({
    async pull(controller) {
      try {
        const { done, value } = await reader.read();
        if (done) {
          progress.end();
          return controller.close();
        }
        passed += value.length;
        progress.at(passed);
        controller.enqueue(value);
      } catch (error) {
        progress.end();
        throw error;
      }
    },
    async cancel(reason) {
      progress.end();
      await reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
}

async function readSome(file: Deno.FsFile, length: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(length);
  let size = 0;
  while (size < length) {
    const read = await file.read(buffer.subarray(size));
    if (read === null) break;
    size += read;
  }
  return buffer.subarray(0, size);
}

/** Nothing but printable characters and white space: no disk begins like that. */
function isText(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte >= 0x20 ? byte !== 0x7f : byte >= 0x09 && byte <= 0x0d);
}

/** The number of files in a zip archive, as its end says. */
async function zipMembers(file: Deno.FsFile): Promise<number | undefined> {
  const { size } = await file.stat();
  await file.seek(Math.max(0, size - ZIP_TAIL_BYTES), Deno.SeekMode.Start);
  const tail = await readSome(file, ZIP_TAIL_BYTES);
  for (let at = tail.length - 22; at >= 0; at--) {
    if (!ZIP_END.every((byte, i) => tail[at + i] === byte)) continue;
    return new DataView(tail.buffer, tail.byteOffset + at).getUint16(10, true);
  }
  return undefined;
}
