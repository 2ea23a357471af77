import { pathToFileURL } from "node:url";
import { basename, join } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { attachmentPath } from "../job.ts";
import { checkDownload } from "../http/download.ts";
import { ProvisioningError } from "../errors.ts";
import { temporaryFolder } from "../files.ts";
import { openArriving } from "./arriving.ts";
import type { Bmap } from "./bmap.ts";
import type { ImageCache } from "./cache.ts";
import { type BmapSource, bmapSource, findBmap } from "./find_bmap.ts";
import { hostCache } from "./host_cache.ts";
import {
  fileStream,
  formatOf,
  HEAD_BYTES,
  headOf,
  rawFromQcow2,
  sniffImage,
  unpacker,
} from "./image.ts";

/** How long writing may take, without the time in which nothing has arrived that could be written. */
const FLASH_URL_TIMEOUT_MS = 1_800_000;
const FLASH_ATTACHMENT_TIMEOUT_MS = 1_200_000;

/** Below the job's folder. */
const RAW_FOLDER_PREFIX = ".image-";

/** What a job may say of its image. */
export interface NamedImage {
  readonly url?: string | undefined;
  readonly sha256?: string | undefined;
  /** Below attachments/provision/. Goes before `url`. */
  readonly use_attachment?: string | undefined;
  /** URL of its block map; `none`: it is to have none. */
  readonly bmap?: string | undefined;
}

/** Where the image comes from. */
export type ImageSource =
  & { readonly bmap: BmapSource }
  & (
    | { readonly kind: "url"; readonly url: string; readonly sha256: string | undefined }
    /** Absolute path of a file that has been looked at. */
    | { readonly kind: "attachment"; readonly path: string }
  );

/**
 * Where the job's image comes from.
 *
 * @param allowed the configuration's `image_bmap`.
 * @throws ProvisioningError when the job names none, or what it names cannot be one.
 */
export async function imageSource(
  ctx: PrepareContext,
  data: NamedImage,
  { image_bmap: allowed }: { readonly image_bmap: boolean },
): Promise<ImageSource> {
  const { url, sha256, use_attachment: name } = data;
  const bmap = bmapSource(ctx, allowed ? data.bmap : "none");
  if (name) {
    const path = await attachmentPath(ctx, { phase: "provision", name, key: "use_attachment" });
    await sniffImage(path);
    return { kind: "attachment", path, bmap };
  }
  if (url) {
    checkDownload(ctx, { url, sha256 });
    return { kind: "url", url, sha256, bmap };
  }
  throw new ProvisioningError(
    "The job's provision_data has neither 'url' nor 'use_attachment': there is no image to write",
  );
}

/** An image that is written as it arrives. What was made for it is gone when it is disposed of. */
export interface Image extends AsyncDisposable {
  /** All of it, from the first byte on. To be asked for once. */
  stream(): Promise<ReadableStream<Uint8Array>>;
  /** The first bytes, at most `length` of them. May be asked for at any time. */
  head(length: number): Promise<Uint8Array>;
  /** In bytes, as it comes; undefined where nobody knows. */
  readonly size: number | undefined;
  /** Program that makes a raw image of it, from standard input to standard output. */
  readonly unpacker: string;
  /** What writing it may take. */
  readonly timeoutMs: number;
  /** Which blocks are to be written; undefined: all of them. */
  readonly bmap?: Bmap | undefined;
  /** The host's cache, which also knows in which form images cross the network the fastest. */
  readonly cache?: ImageCache | undefined;
}

/**
 * Gets the beginning of the image, and the rest while it is written.
 *
 * @throws ProvisioningError when it cannot be had, or it is no image.
 */
export async function openImage(ctx: ConnectorContext, source: ImageSource): Promise<Image> {
  const cache = await hostCache(ctx);
  if (source.kind === "attachment") {
    const bmap = await findBmap(ctx, { bmap: source.bmap, image: pathToFileURL(source.path) });
    return { ...await imageOfFile(ctx, source.path, FLASH_ATTACHMENT_TIMEOUT_MS), bmap, cache };
  }
  const arriving = await openArriving(ctx, source, cache);
  try {
    // It arrives meanwhile.
    const bmap = await findBmap(ctx, { bmap: source.bmap, image: new URL(source.url), cache });
    const name = basename(new URL(source.url).pathname);
    const format = formatOf(await arriving.head(HEAD_BYTES), name);
    // What these are is only seen at their end.
    if (format === "qcow2" || format === "zip") {
      const file = await imageOfFile(ctx, await arriving.whole(), FLASH_URL_TIMEOUT_MS);
      return {
        ...file,
        bmap,
        cache,
        async [Symbol.asyncDispose]() {
          await file[Symbol.asyncDispose]();
          await arriving[Symbol.asyncDispose]();
        },
      };
    }
    return {
      stream: () => Promise.resolve(arriving.stream()),
      head: (length) => arriving.head(length),
      size: arriving.size,
      unpacker: unpacker(format),
      timeoutMs: FLASH_URL_TIMEOUT_MS,
      bmap,
      cache,
      [Symbol.asyncDispose]: () => arriving[Symbol.asyncDispose](),
    };
  } catch (error) {
    await arriving[Symbol.asyncDispose]();
    throw error;
  }
}

async function imageOfFile(
  ctx: ConnectorContext,
  path: string,
  timeoutMs: number,
): Promise<Image> {
  const format = await sniffImage(path);
  if (format !== "qcow2") {
    return {
      stream: () => fileStream(path),
      head: (length) => headOf(path, length),
      size: (await Deno.stat(path)).size,
      unpacker: unpacker(format),
      timeoutMs,
      [Symbol.asyncDispose]: () => Promise.resolve(),
    };
  }
  const folder = await temporaryFolder({ dir: ctx.cwd, prefix: RAW_FOLDER_PREFIX });
  try {
    // qemu-img writes next to its input, and that is not ours.
    const link = join(folder.path, basename(path));
    await Deno.symlink(path, link);
    const raw = await rawFromQcow2(ctx, link);
    await sniffImage(raw);
    return {
      stream: () => fileStream(raw),
      head: (length) => headOf(raw, length),
      size: (await Deno.stat(raw)).size,
      unpacker: unpacker("raw"),
      timeoutMs,
      [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
    };
  } catch (error) {
    await folder[Symbol.asyncDispose]();
    throw error;
  }
}
