import { basename, join } from "node:path";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { attachmentPath } from "../attachments.ts";
import { checkDownload, download } from "../http/download.ts";
import { ProvisioningError } from "../errors.ts";
import { rawFromQcow2, sniffImage, unpacker } from "./image.ts";

/** How long writing may take. */
const FLASH_URL_TIMEOUT_MS = 1_800_000;
const FLASH_ATTACHMENT_TIMEOUT_MS = 1_200_000;

/** Below the job's folder. */
const DOWNLOAD_FOLDER_PREFIX = ".image-";

/** What a job may say of its image. */
export interface NamedImage {
  readonly url?: string | undefined;
  readonly sha256?: string | undefined;
  /** Below attachments/provision/. Goes before `url`. */
  readonly use_attachment?: string | undefined;
}

/** Where the image comes from. */
export type ImageSource =
  | { readonly kind: "url"; readonly url: string; readonly sha256: string | undefined }
  /** Absolute path of a file that has been looked at. */
  | { readonly kind: "attachment"; readonly path: string };

/**
 * Where the job's image comes from.
 *
 * @throws ProvisioningError when the job names none, or what it names cannot be one.
 */
export async function imageSource(ctx: PrepareContext, data: NamedImage): Promise<ImageSource> {
  const { url, sha256, use_attachment: name } = data;
  if (name) {
    const path = await attachmentPath(ctx, { phase: "provision", name, key: "use_attachment" });
    await sniffImage(path);
    return { kind: "attachment", path };
  }
  if (url) {
    checkDownload(ctx, { url, sha256 });
    return { kind: "url", url, sha256 };
  }
  throw new ProvisioningError(
    "The job's provision_data has neither 'url' nor 'use_attachment': there is no image to write",
  );
}

/** An image on the agent's host. What was made for it is gone when it is disposed of. */
export interface Image extends AsyncDisposable {
  /** Absolute. */
  readonly path: string;
  /** Program that makes a raw image of it, from standard input to standard output. */
  readonly unpacker: string;
  /** What writing it may take. */
  readonly timeoutMs: number;
}

/**
 * Gets the image.
 *
 * @throws ProvisioningError when it cannot be had, or it is no image.
 */
export async function openImage(ctx: ConnectorContext, source: ImageSource): Promise<Image> {
  const folder = await Deno.makeTempDir({ dir: ctx.cwd, prefix: DOWNLOAD_FOLDER_PREFIX });
  const remove = () => Deno.remove(folder, { recursive: true });
  try {
    const file = await imageFile(ctx, source, folder);
    const format = await sniffImage(file.path);
    if (format !== "qcow2") return { ...file, unpacker: unpacker(format), ...disposedBy(remove) };
    // qemu-img writes beside its input, and attachments belong to the job.
    const link = join(folder, basename(file.path));
    if (link !== file.path) await Deno.symlink(file.path, link);
    const path = await rawFromQcow2(ctx, link);
    await sniffImage(path);
    return { ...file, path, unpacker: unpacker("raw"), ...disposedBy(remove) };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function imageFile(
  ctx: ConnectorContext,
  source: ImageSource,
  folder: string,
): Promise<{ path: string; timeoutMs: number }> {
  if (source.kind === "attachment") {
    return { path: source.path, timeoutMs: FLASH_ATTACHMENT_TIMEOUT_MS };
  }
  const { url, sha256 } = source;
  const { path } = await download(ctx, { url, to: join(folder, "image"), sha256 });
  return { path, timeoutMs: FLASH_URL_TIMEOUT_MS };
}

function disposedBy(remove: () => Promise<void>): AsyncDisposable {
  return { [Symbol.asyncDispose]: remove };
}
