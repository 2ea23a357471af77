/**
 * An image that can be read while it arrives: from a server, from another process of this host that
 * is downloading it just now, or from the host's cache, where it is verified as it is read.
 */
import { join } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { fullMessageOf, ProvisioningError } from "../errors.ts";
import { temporaryFolder } from "../files.ts";
import { downloadSource, expectChecksum } from "../http/download.ts";
import { CannotKeep, shownUrl } from "../http/transfer.ts";
import type { ImageCache, UrlEntry } from "./cache.ts";
import {
  type ArrivalSource,
  type ArrivedSoFar,
  arriving,
  type ArrivingImage,
  changed,
} from "./image_source.ts";
import { OwnTransfer, type WantedImage } from "./own_transfer.ts";

/** How often it is looked whether another process has written more. */
const FOLLOW_PAUSE_MS = 100;

/**
 * Gets an image.
 *
 * @param source `sha256` is what the job says it must be.
 * @param cache of this host; undefined: the image is kept in the job's folder while it is used.
 * @throws ProvisioningError when nothing of it can be had.
 */
export async function openArriving(
  ctx: ConnectorContext,
  source: { readonly url: string; readonly sha256?: string | undefined },
  cache: ImageCache | undefined,
): Promise<ArrivingImage> {
  const { url, wanted } = await downloadSource(ctx, source);
  if (cache === undefined) return arriving(await download(ctx, { url, wanted }));
  while (true) {
    let lock: Disposable | undefined;
    try {
      lock = await cache.tryLock(url.href);
    } catch (error) {
      ctx.log.warning(`The image cache is not used: ${fullMessageOf(error)}`);
      return arriving(await download(ctx, { url, wanted }));
    }
    if (lock === undefined) {
      const followed = await follow(ctx, { url, wanted, cache });
      if (followed !== undefined) return arriving(followed);
      continue;
    }
    return arriving(
      await lead(ctx, { url, wanted, cache, lock, known: await cache.lookUp(url.href) }),
    );
  }
}

/** Without a cache: a file in the job's folder, which is removed in the end. */
async function download(
  ctx: ConnectorContext,
  { url, wanted }: WantedImage,
): Promise<ArrivalSource> {
  const folder = await temporaryFolder({ dir: ctx.cwd, prefix: ".image-" });
  const path = join(folder.path, "image");
  const transfer = new OwnTransfer(ctx, { url, wanted, path });
  const close = async () => {
    await transfer.stop();
    await folder[Symbol.asyncDispose]();
  };
  try {
    await transfer.begun;
  } catch (error) {
    await close();
    throw error;
  }
  return {
    size: transfer.total,
    wait: transfer.wait,
    open: () => Deno.open(path),
    finalPath: () => path,
    close,
  };
}

/** A download for the cache. The lock is given up when it has ended. */
interface Lead extends WantedImage {
  readonly cache: ImageCache;
  readonly lock: Disposable;
  /** A version that need not be sent again. */
  readonly known?: UrlEntry | undefined;
}

async function transferFor(ctx: ConnectorContext, lead: Lead): Promise<OwnTransfer> {
  const { url, wanted, cache, lock, known } = lead;
  return new OwnTransfer(ctx, {
    url,
    wanted,
    path: cache.incomingPath(url.href),
    resume: await resumable(cache, url.href),
    known,
    onHead: async (size, validators) => {
      const isKept = await cache.reserve({ url: url.href, size, ...validators }).catch((error) => {
        throw new NotKept(fullMessageOf(error), { cause: error });
      });
      if (!isKept) {
        throw new NotKept(`${shownUrl(url)} is larger than the image cache may become`);
      }
    },
    onGrowth() {
      if (cache.hasRoomNow()) return;
      throw new ProvisioningError(
        `The image cache has no room for ${shownUrl(url)}, of which the server does not say how ` +
          `large it is: less than 'min_free_space' would be left on the disk`,
      );
    },
    onFetched: async ({ sha256, size, validators }, move) => {
      // Before the image is in its place: who reads it meanwhile looks for it there by the note.
      await cache.noteUrl({ url: url.href, digest: sha256, size, ...validators }).catch((error) =>
        ctx.log.warning(`The image will not be found in the cache: ${fullMessageOf(error)}`)
      );
      move(cache.contentPath(sha256));
      await cache.keep(url.href, sha256);
      await cache.count("miss", 0);
    },
    onEnded: async (how) => {
      // Only what broke off is worth going on with.
      if (how !== "broke off") await cache.forgetIncoming(url.href);
      lock[Symbol.dispose]();
    },
  });
}

/** The process that downloads, unless the server says that what is there is still right. */
async function lead(ctx: ConnectorContext, options: Lead): Promise<ArrivalSource> {
  const { url, wanted, cache, known } = options;
  const isWanted = known !== undefined && (wanted === undefined || known.digest === wanted);
  const transfer = await transferFor(ctx, { ...options, known: isWanted ? known : undefined });
  try {
    if (await transfer.begun === "not modified" && known !== undefined) {
      await transfer.stop();
      return await kept(ctx, cache, known);
    }
  } catch (error) {
    await transfer.stop();
    if (error instanceof NotKept || error instanceof CannotKeep) {
      ctx.log.warning(`The image is not kept in the cache: ${error.message}`);
      await cache.count("miss", 0);
      return await download(ctx, { url, wanted });
    }
    // What the job names by its checksum is right, whatever the server says.
    if (known !== undefined && wanted === known.digest) {
      ctx.log.warning(
        `${fullMessageOf(error)}; the image in the cache has the right checksum, and is used`,
      );
      return await kept(ctx, cache, known);
    }
    throw error;
  }
  return {
    size: transfer.total,
    wait: transfer.wait,
    open: () => transfer.open(),
    finalPath: () => transfer.finalPath,
    // What has arrived is kept: another process goes on from there.
    close: () => transfer.stop(),
  };
}

/** The image cannot be kept; the message says why. */
class NotKept extends Error {}

/** What an earlier process has left of an image, if it can be gone on with. */
async function resumable(cache: ImageCache, url: string) {
  const entry = await cache.incoming(url);
  const info = await Deno.stat(cache.incomingPath(url)).catch(() => undefined);
  if (info === undefined || (entry?.etag ?? entry?.lastModified) === undefined) return undefined;
  return { etag: entry?.etag, lastModified: entry?.lastModified };
}

/** An image of the cache. It is verified as it is read, so that a damaged one is never taken for it. */
async function kept(
  ctx: ConnectorContext,
  cache: ImageCache,
  { digest, size, url }: { readonly digest: string; readonly size: number; readonly url: string },
): Promise<ArrivalSource> {
  await cache.touch(digest);
  await cache.count("hit", size);
  ctx.log.info(`The image is in the cache of this host: ${shownUrl(new URL(url))}`);
  const path = cache.contentPath(digest);
  return {
    size,
    open: () => Deno.open(path),
    wait: () => Promise.resolve({ size, isComplete: true, generation: 0 }),
    verify: async (found) => {
      if (found === digest) return;
      await cache.remove(digest);
      throw new ProvisioningError(
        `The image in the cache was damaged (its checksum is ${found}, expected ${digest}) and has ` +
          `been removed: run the job again`,
      );
    },
    finalPath: () => path,
    close: () => Promise.resolve(),
  };
}

/**
 * Reads what another process downloads, and goes on with the download when that process is gone.
 *
 * @returns undefined when there is nothing to read after all: look again.
 */
async function follow(
  ctx: ConnectorContext,
  { url, wanted, cache }: WantedImage & { readonly cache: ImageCache },
): Promise<ArrivalSource | undefined> {
  const path = cache.incomingPath(url.href);
  const file = await Deno.open(path).catch(() => undefined);
  const entry = await cache.incoming(url.href);
  if (file === undefined || entry === undefined) {
    file?.close();
    await ctx.clock.sleep(FOLLOW_PAUSE_MS, ctx.signal);
    return undefined;
  }
  ctx.log.info(`Another job of this host downloads the image: ${shownUrl(url)}`);
  const { ino } = await file.stat();
  let finished: string | undefined;
  let own: OwnTransfer | undefined;
  const isOurs = async (other: string) =>
    (await Deno.stat(other).catch(() => undefined))?.ino === ino;
  /** Is the file that we read what has arrived in the end? */
  const look = async () => {
    const now = await cache.lookUp(url.href);
    if (now !== undefined && await isOurs(cache.contentPath(now.digest))) finished = now.digest;
  };
  const wait = async (beyond: number, generation: number): Promise<ArrivedSoFar> => {
    while (own === undefined) {
      const { size } = await file.stat();
      if (size > beyond && finished === undefined) {
        return { size, isComplete: false, generation: 0 };
      }
      if (finished === undefined) await look();
      if (finished !== undefined) {
        expectChecksum(url, { found: finished, wanted });
        return { size: (await file.stat()).size, isComplete: true, generation: 0 };
      }
      const lock = await cache.tryLock(url.href);
      if (lock !== undefined) {
        await look();
        if (finished === undefined && await isOurs(path)) {
          ctx.log.warning("That job is gone: this one goes on with the download");
          own = await transferFor(ctx, { url, wanted, cache, lock });
          continue;
        }
        lock[Symbol.dispose]();
      } else if (!await isOurs(path)) {
        await look();
      }
      if (finished !== undefined) continue;
      if (!await isOurs(path)) throw changed();
      await ctx.clock.sleep(FOLLOW_PAUSE_MS, ctx.signal);
    }
    return await own.wait(beyond, generation);
  };
  /** A file of this name, if it is the one that we read: others may be on their way by now. */
  const openOurs = async (name: string) => {
    const opened = await Deno.open(name).catch(() => undefined);
    if (opened !== undefined && (await opened.stat()).ino === ino) return opened;
    opened?.close();
    return undefined;
  };
  return {
    size: entry.size,
    wait,
    async open() {
      if (own !== undefined) return await own.open();
      const arriving = await openOurs(path);
      if (arriving !== undefined) return arriving;
      await look();
      const whole = finished && await openOurs(cache.contentPath(finished));
      if (!whole) throw changed();
      return whole;
    },
    finalPath: () =>
      own?.finalPath ?? (finished === undefined ? path : cache.contentPath(finished)),
    async close() {
      file.close();
      await own?.stop();
      if (finished !== undefined) await cache.count("hit", entry.size ?? 0);
    },
  };
}
