/** Where the block map of an image comes from: the job, or next to the image. */
import { fileURLToPath } from "node:url";
import { basename } from "../../../lib/path.ts";
import type { ConnectorContext, PrepareContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { checkDownload } from "../http/download.ts";
import { shownUrl } from "../http/transfer.ts";
import { type Bmap, looksLikeBmap, parseBmap } from "./bmap.ts";
import type { ImageCache } from "./cache.ts";

const TIMEOUT_MS = 30_000;
/** A line of some hundred bytes for each of many small ranges. */
const BMAP_MAX_BYTES = 32 * 1024 * 1024;

/** What a packed image's name has behind that of the image. */
const PACKED = /\.(?:xz|lzma|zst|zstd|gz|bz2|lz4|zip)$/i;

/** The job's word for an image of which every block is written. */
const NONE = "none";

/** What is wanted of a block map. */
export type BmapSource = "none" | "beside the image" | { readonly url: string };

/**
 * What the job says of its image's block map.
 *
 * @throws ProvisioningError when its URL cannot be used.
 */
export function bmapSource(ctx: PrepareContext, given: string | undefined): BmapSource {
  if (given === NONE) return "none";
  if (given === undefined) return "beside the image";
  checkDownload(ctx, { url: given });
  return { url: given };
}

/**
 * Gets the block map of an image, if there is one.
 *
 * @throws ProvisioningError when the one that the job names cannot be had, or one cannot be used:
 *   its author wants nothing else to be written.
 */
export async function findBmap(
  ctx: ConnectorContext,
  { bmap, image, cache }: {
    readonly bmap: BmapSource;
    readonly image: URL;
    /** Knows which images have none. */
    readonly cache?: ImageCache | undefined;
  },
): Promise<Bmap | undefined> {
  if (bmap === "none") return undefined;
  if (bmap !== "beside the image") {
    const url = new URL(bmap.url);
    const got = await read(ctx, url);
    if (got.kind !== "text") {
      throw new ProvisioningError(`Cannot get the block map ${shownUrl(url)}: ${got.why}`);
    }
    return parseBmap(got.text, shownUrl(url));
  }
  const urls = await Array.fromAsync(besideOf(image), async (url) => ({
    url,
    isKnown: await cache?.isAbsent(url.href, ctx.clock.now()) === true,
  }));
  const answers = await Promise.all(
    urls.filter(({ isKnown }) => !isKnown)
      .map(async ({ url }) => ({ url, got: await read(ctx, url) })),
  );
  for (const { url, got } of answers) {
    if (got.kind === "text" && looksLikeBmap(got.text)) return parseBmap(got.text, shownUrl(url));
    if (got.kind === "failed") {
      ctx.log.warning(
        `Cannot see whether there is a block map (${shownUrl(url)}): ${got.why}; every block is ` +
          `written`,
      );
    } else await cache?.noteAbsent(url.href, ctx.clock.now()).catch(() => {}); // It is asked again.
  }
  return undefined;
}

/** `i.img.xz.bmap`, and `i.img.bmap`, where most have it. */
function besideOf(image: URL): URL[] {
  const names = new Set([image.pathname, image.pathname.replace(PACKED, "")]);
  return [...names].filter((name) => basename(name) !== "").map((name) => {
    const url = new URL(image);
    url.hash = "";
    url.pathname = `${name}.bmap`;
    return url;
  });
}

type Got =
  | { readonly kind: "text"; readonly text: string }
  /** There is no such file. */
  | { readonly kind: "absent"; readonly why: string }
  | { readonly kind: "failed"; readonly why: string };

async function read(ctx: ConnectorContext, url: URL): Promise<Got> {
  if (url.protocol === "file:") {
    const path = fileURLToPath(url);
    try {
      // A link next to an attachment may lead to what is not the job's.
      if (!(await Deno.lstat(path)).isFile) return { kind: "absent", why: "it is not a file" };
      return { kind: "text", text: await Deno.readTextFile(path) };
    } catch (error) {
      return {
        kind: error instanceof Deno.errors.NotFound ? "absent" : "failed",
        why: fullMessageOf(error),
      };
    }
  }
  const answer = await ctx.http.send(url.href, {
    timeoutMs: TIMEOUT_MS,
    maxBytes: BMAP_MAX_BYTES,
  });
  if (answer.ended === "failed") return { kind: "failed", why: answer.message };
  if (answer.ok) return { kind: "text", text: answer.body };
  const why = `the server answered with status ${answer.status}`;
  // Some servers say 403 of what is not there.
  const isAbsent = answer.status >= 400 && answer.status < 500 && answer.status !== 429;
  return { kind: isAbsent ? "absent" : "failed", why };
}
