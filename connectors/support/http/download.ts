/** Downloads: what jobs and configurations say of them, and checksums. */
import { basename, isAbsolute, join } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { ProvisioningError } from "../errors.ts";
import { fetchFile, shownUrl } from "./transfer.ts";

const CHECKSUMS_TIMEOUT_MS = 30_000;

const SHA256 = /^[0-9a-fA-F]{64}$/;

/** What to download. */
export interface DownloadOptions {
  /** http or https; may end with `#sha256=<hex>`. */
  readonly url: string;
  /** Where to put it, relative to the job's folder. Beside it there is `<name>.part` meanwhile. */
  readonly to: string;
  /** Hexadecimal SHA-256 that it must have. */
  readonly sha256?: string | undefined;
}

/** What has been downloaded. */
export interface Downloaded {
  /** Absolute. */
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

/**
 * Downloads a file: broken off transfers are resumed, the length and (where one is known) the
 * checksum are compared, free space is looked for first.
 *
 * @throws ProvisioningError saying what is wrong with the URL, the server or the file.
 */
export async function download(
  ctx: ConnectorContext,
  options: DownloadOptions,
): Promise<Downloaded> {
  const { url, wanted } = await downloadSource(ctx, options);
  const path = isAbsolute(options.to) ? options.to : join(ctx.cwd, options.to);
  const part = `${path}.part`;
  try {
    const fetched = await fetchFile(ctx, url, { path: part, name: basename(path) });
    // Nothing was said of a file that is known.
    if (fetched.ended === "not modified") throw new Error("a whole file was asked for");
    expectChecksum(url, { found: fetched.sha256, wanted });
    await Deno.rename(part, path);
    ctx.log.info(
      `Downloaded ${shownUrl(url)}: ${fetched.size} bytes${wanted ? ", checksum right" : ""}`,
    );
    return { path, size: fetched.size, sha256: fetched.sha256 };
  } finally {
    // Gone already when it got its final name.
    await Deno.remove(part).catch(() => {});
  }
}

/**
 * Where a download comes from, without its fragment, and what checksum it must have where one is
 * known.
 *
 * @throws ProvisioningError when the URL or the checksum cannot be used.
 */
export async function downloadSource(
  ctx: ConnectorContext,
  { url: text, sha256 }: DownloadSource,
): Promise<{ url: URL; wanted: string | undefined }> {
  const url = checkedUrl(ctx, text);
  const wanted = await wantedChecksum(ctx, url, sha256);
  url.hash = "";
  return { url, wanted };
}

/** @throws ProvisioningError when a file is not the one that it must be. */
export function expectChecksum(
  url: URL,
  { found, wanted }: { readonly found: string; readonly wanted: string | undefined },
): void {
  if (wanted === undefined || found === wanted) return;
  throw new ProvisioningError(
    `${shownUrl(url)} has the checksum ${found}, expected ${wanted}: it is not the right file`,
  );
}

/** What a download is checked against before anything is asked of a server. */
type DownloadSource = Pick<DownloadOptions, "url" | "sha256">;

/**
 * Looks at what a job says about a download, without downloading anything.
 *
 * @throws ProvisioningError when the URL or the checksum cannot be used.
 */
export function checkDownload(
  ctx: Pick<PrepareContext, "config">,
  { url, sha256 }: DownloadSource,
): void {
  givenChecksum(checkedUrl(ctx, url), sha256);
}

function checkedUrl({ config }: Pick<PrepareContext, "config">, text: string): URL {
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    throw new ProvisioningError(`'${text}' is not a URL`);
  }
  const allowed = ["http:", "https:", ...(config.allow_file_urls ? ["file:"] : [])];
  if (!allowed.includes(url.protocol)) {
    throw new ProvisioningError(
      `Cannot download '${text}': only ${allowed.map((p) => p.slice(0, -1)).join(", ")} URLs are ` +
        `allowed`,
    );
  }
  return url;
}

async function wantedChecksum(
  ctx: ConnectorContext,
  url: URL,
  given: string | undefined,
): Promise<string | undefined> {
  const wanted = givenChecksum(url, given);
  if (wanted !== undefined || !ctx.config.verify_images) return wanted;
  return await publishedChecksum(ctx, url);
}

/** What the job itself says, in `sha256` or behind the URL. */
function givenChecksum(url: URL, given: string | undefined): string | undefined {
  const wanted = given ?? /^#sha256=(.*)$/.exec(url.hash)?.[1];
  if (wanted === undefined) return undefined;
  if (!SHA256.test(wanted)) {
    throw new ProvisioningError(`'${wanted}' is not a SHA-256 checksum: expected 64 hex digits`);
  }
  return wanted.toLowerCase();
}

/** From the `SHA256SUMS` next to the file, if there is one that names it. */
async function publishedChecksum(ctx: ConnectorContext, url: URL): Promise<string | undefined> {
  const sums = new URL("SHA256SUMS", url);
  const name = decodeURIComponent(basename(url.pathname));
  const answer = await ctx.http.send(sums.href, { timeoutMs: CHECKSUMS_TIMEOUT_MS });
  const why = answer.ended === "failed" ? answer.message : `status ${answer.status}`;
  if (answer.ended === "answered" && answer.ok) {
    for (const line of answer.body.split("\n")) {
      const [, sum, file] = /^([0-9a-fA-F]{64})\s+\*?(.+?)\s*$/.exec(line) ?? [];
      if (sum !== undefined && file === name) return sum.toLowerCase();
    }
  }
  ctx.log.warning(
    `${shownUrl(url)} is not verified: ` +
      (answer.ended === "answered" && answer.ok
        ? `${sums.href} does not name it`
        : `${sums.href}: ${why}`),
  );
  return undefined;
}
