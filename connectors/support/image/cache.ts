/**
 * The images that a host keeps, for all agents and connectors on it. Contents are kept under their
 * digest and verified when they are used; what belongs to which URL is in a file of its own. One
 * process downloads an image, with a lock that the kernel frees when that process dies; the others
 * read what it writes.
 *
 *     content/<sha256>        the images
 *     urls/<key>.json         what a URL had last time: digest, validators
 *     incoming/<key>          an image on its way, and <key>.json with its validators
 *     incoming/<key>.lock     locked by who downloads it
 *     absent/<key>            when a server last said that it does not have something
 *     forms/<key>             in which form images last crossed the connection to a host the fastest
 *     room.lock               locked while room is made for an image
 *     statistics.json         how often the cache helped, and what that saved
 */
import { statfsSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { createHash } from "node:crypto";
import * as z from "zod";
import { join } from "../../../lib/path.ts";
import { fullMessageOf } from "../errors.ts";
import { writeFile } from "../files.ts";
import { SPARE_BYTES } from "../http/transfer.ts";

const FOLDERS = ["content", "urls", "incoming", "absent", "forms"];
const OWN_FOLDER = { recursive: true, mode: 0o700 } as const;
const DIGEST = /^[0-9a-f]{64}$/;

/** What a server does not have it may get: it is asked again after a day. */
const ABSENT_MS = 24 * 3_600_000;

/** Links and hosts change: what was the fastest is measured again after a day. */
const FORM_MS = 24 * 3_600_000;

/** An image that nobody goes on with is forgotten after a day. */
const STALE_INCOMING_MS = 24 * 3_600_000;

const validatorShape = {
  etag: z.string().optional(),
  lastModified: z.string().optional(),
};

const UrlEntry = z.object({
  url: z.string(),
  digest: z.string().regex(DIGEST),
  size: z.number(),
  ...validatorShape,
});
/** What a URL had when it was last asked. */
export type UrlEntry = z.infer<typeof UrlEntry>;

const IncomingEntry = z.object({ url: z.string(), size: z.number().optional(), ...validatorShape });
/** What is known of an image on its way. */
export type IncomingEntry = z.infer<typeof IncomingEntry>;

const Absent = z.object({ url: z.string(), at: z.number() });

const Form = z.object({ way: z.string(), form: z.string(), at: z.number() });

const Statistics = z.object({
  hits: z.int().default(0),
  misses: z.int().default(0),
  savedBytes: z.number().default(0),
});
/** How often the cache helped. */
export type CacheStatistics = z.infer<typeof Statistics>;

/** How much a cache may hold. */
export interface CacheLimits {
  /** All contents together, in bytes. */
  readonly maxBytes: number;
  /** What is left free on the disk at least, in bytes. */
  readonly minFreeBytes: number;
}

/** One image that is kept. */
export interface CachedContent {
  readonly digest: string;
  readonly path: string;
  readonly size: number;
  /** Milliseconds since 1970. */
  readonly usedAt: number;
  readonly urls: readonly string[];
}

/** A cache, or why there is none. */
export type OpenedCache =
  | { readonly ok: true; readonly cache: ImageCache }
  | {
    readonly ok: false;
    readonly why: string;
    /** The user whose it is, where it is another one's. */
    readonly owner?: number;
  };

/** The cache of a host. */
export class ImageCache {
  private constructor(readonly folder: string, readonly limits: CacheLimits) {}

  /**
   * Opens the cache in a folder, which is made if need be. A folder of another user, or that others
   * may write to, is not used: they would decide what is written to devices.
   */
  static async open(folder: string, limits: CacheLimits): Promise<OpenedCache> {
    return await ImageCache.#open(folder, limits, () => Deno.mkdir(folder, OWN_FOLDER));
  }

  /** The same for a cache that is there: nothing is made in a folder that is none. */
  static async openExisting(folder: string, limits: CacheLimits): Promise<OpenedCache> {
    return await ImageCache.#open(folder, limits, async () => {
      const isCache = await Deno.stat(join(folder, "content")).then(
        ({ isDirectory }) => isDirectory,
        (error) => error instanceof Deno.errors.PermissionDenied,
      );
      if (!isCache) throw new Error(`${folder} is no image cache: it has no folder 'content'`);
    });
  }

  static async #open(
    folder: string,
    limits: CacheLimits,
    make: () => Promise<void>,
  ): Promise<OpenedCache> {
    try {
      await make();
      const { isDirectory, uid, mode } = await Deno.lstat(folder);
      if (!isDirectory) return { ok: false, why: `${folder} is not a folder` };
      if (uid !== Deno.uid()) {
        return { ok: false, why: `${folder} belongs to user ${uid}`, owner: uid ?? 0 };
      }
      if (((mode ?? 0) & 0o022) !== 0) {
        return { ok: false, why: `other users may write to ${folder}: chmod 700 it` };
      }
      for (const name of FOLDERS) await Deno.mkdir(join(folder, name), OWN_FOLDER);
    } catch (error) {
      return { ok: false, why: fullMessageOf(error) };
    }
    return { ok: true, cache: new ImageCache(folder, limits) };
  }

  contentPath(digest: string): string {
    return join(this.folder, "content", digest);
  }

  incomingPath(url: string): string {
    return join(this.folder, "incoming", keyOf(url));
  }

  /** What is known of a URL, if its image is still there. */
  async lookUp(url: string): Promise<UrlEntry | undefined> {
    const entry = UrlEntry.safeParse(await readJson(this.#urlFile(url))).data;
    if (entry === undefined || entry.url !== url) return undefined;
    return await this.has(entry.digest) ? entry : undefined;
  }

  async has(digest: string): Promise<boolean> {
    const info = await Deno.stat(this.contentPath(digest)).catch(() => undefined);
    return info?.isFile === true;
  }

  /** What is known of an image on its way. */
  async incoming(url: string): Promise<IncomingEntry | undefined> {
    const entry = IncomingEntry.safeParse(await readJson(`${this.incomingPath(url)}.json`)).data;
    return entry?.url === url ? entry : undefined;
  }

  /**
   * Makes room for an image that is about to arrive, and notes it, so that it is reckoned with when
   * room is made for another one. The caller has its lock.
   *
   * @returns false when there is no room for it even in an empty cache: then nothing is done.
   */
  async reserve(entry: IncomingEntry): Promise<boolean> {
    using lock = await this.#openLock(join(this.folder, "room.lock"));
    await lock.lock(true);
    if (!await this.makeRoom(entry.size ?? 0, entry.url)) return false;
    await writeJson(`${this.incomingPath(entry.url)}.json`, entry);
    return true;
  }

  /** Is as much free on the disk as is to be? For images whose size nobody says. */
  hasRoomNow(): boolean {
    const { bavail, bsize } = statfsSync(this.folder);
    return bavail * bsize >= this.#spareBytes();
  }

  /**
   * Tries to become the one that downloads an image.
   *
   * @returns what gives the right up again; undefined while another process has it.
   */
  async tryLock(url: string): Promise<Disposable | undefined> {
    const file = await this.#openLock(`${this.incomingPath(url)}.lock`);
    if (await file.tryLock(true)) return file;
    file.close();
    return undefined;
  }

  /** Puts an image that has arrived where it is kept. The caller has its lock. */
  async keep(url: string, digest: string): Promise<void> {
    await Deno.rename(this.incomingPath(url), this.contentPath(digest));
    await Deno.remove(`${this.incomingPath(url)}.json`).catch(() => {});
  }

  /** Notes that a URL has this image, which may be yet to be put in its place. */
  async noteUrl(entry: UrlEntry): Promise<void> {
    await writeJson(this.#urlFile(entry.url), entry);
  }

  /** Notes that a server does not have something. */
  async noteAbsent(url: string, now: number): Promise<void> {
    await writeJson(this.#absentFile(url), { url, at: now });
  }

  /** Did a server say not long ago that it does not have it? */
  async isAbsent(url: string, now: number): Promise<boolean> {
    const noted = Absent.safeParse(await readJson(this.#absentFile(url))).data;
    return noted?.url === url && Math.abs(now - noted.at) < ABSENT_MS;
  }

  /** Notes in which form an image crosses the fastest on a way: to a host, of a kind of image. */
  async noteForm(way: string, form: string, now: number): Promise<void> {
    await writeJson(this.#formFile(way), { way, form, at: now });
  }

  /** The form that was the fastest on a way, not long ago. */
  async fastestForm(way: string, now: number): Promise<string | undefined> {
    const noted = Form.safeParse(await readJson(this.#formFile(way))).data;
    return noted?.way === way && Math.abs(now - noted.at) < FORM_MS ? noted.form : undefined;
  }

  /** Gives up what has arrived of an image. The caller has its lock. */
  async forgetIncoming(url: string): Promise<void> {
    for (const suffix of ["", ".json"]) {
      await Deno.remove(this.incomingPath(url) + suffix).catch(() => {});
    }
  }

  /** An image that is used is not the next to go. */
  async touch(digest: string): Promise<void> {
    const now = new Date();
    await Deno.utime(this.contentPath(digest), now, now).catch(() => {});
  }

  /** Removes an image. Who reads it at this moment can go on. */
  async remove(digest: string): Promise<void> {
    await Deno.remove(this.contentPath(digest)).catch(() => {});
  }

  /** All images, the one that was used last first. */
  async list(): Promise<CachedContent[]> {
    const urls = new Map<string, string[]>();
    for await (const { name } of Deno.readDir(join(this.folder, "urls"))) {
      const entry = UrlEntry.safeParse(await readJson(join(this.folder, "urls", name))).data;
      if (entry !== undefined) {
        urls.set(entry.digest, [...urls.get(entry.digest) ?? [], entry.url]);
      }
    }
    const contents: CachedContent[] = [];
    for await (const { name: digest } of Deno.readDir(join(this.folder, "content"))) {
      const path = this.contentPath(digest);
      const info = await Deno.stat(path).catch(() => undefined);
      if (info === undefined || !DIGEST.test(digest)) continue;
      contents.push({
        digest,
        path,
        size: info.size,
        usedAt: info.mtime?.getTime() ?? 0,
        urls: urls.get(digest) ?? [],
      });
    }
    return contents.sort((a, b) => b.usedAt - a.usedAt);
  }

  /**
   * Makes room for an image by removing those that were not used for the longest time.
   *
   * @param needed its size in bytes.
   * @param url its own, where it is about to arrive.
   * @returns false when there is no room for it even in an empty cache: then nothing is removed.
   */
  async makeRoom(needed: number, url?: string): Promise<boolean> {
    const contents = await this.list();
    const { maxBytes } = this.limits;
    const held = contents.reduce((sum, { size }) => sum + size, 0);
    const { bavail, bsize } = await statfs(this.folder);
    const underWay = await this.#underWay(url);
    const tooMuch = Math.max(
      held + underWay.arrived + underWay.expected + needed - maxBytes,
      needed + underWay.expected + this.#spareBytes() - bavail * bsize,
    );
    if (needed > maxBytes || tooMuch > held) return false;
    let freed = 0;
    for (const { digest, size } of contents.reverse()) {
      if (freed >= tooMuch) break;
      await this.remove(digest);
      freed += size;
    }
    return true;
  }

  #spareBytes(): number {
    return Math.max(this.limits.minFreeBytes, SPARE_BYTES);
  }

  /** How many bytes of other images on their way there are, and how many are still to come. */
  async #underWay(but: string | undefined): Promise<{ arrived: number; expected: number }> {
    let [arrived, expected] = [0, 0];
    for await (const { name } of Deno.readDir(join(this.folder, "incoming"))) {
      if (!name.endsWith(".json")) continue;
      const entry = IncomingEntry.safeParse(
        await readJson(join(this.folder, "incoming", name)),
      ).data;
      if (entry === undefined || entry.url === but) continue;
      const size = await Deno.stat(this.incomingPath(entry.url)).then((info) => info.size, () => 0);
      arrived += size;
      using unlocked = await this.tryLock(entry.url);
      // Nobody goes on with it just now.
      if (unlocked === undefined) expected += Math.max(0, (entry.size ?? 0) - size);
    }
    return { arrived, expected };
  }

  async #openLock(path: string): Promise<Deno.FsFile> {
    return await Deno.open(path, { read: true, write: true, create: true, mode: 0o600 });
  }

  /**
   * Brings the cache below its limits, and forgets what is of no use: notes of images that are gone,
   * and images on their way that nobody goes on with.
   *
   * @returns how many bytes became free.
   */
  async prune(now: number): Promise<number> {
    const before = (await this.list()).reduce((sum, { size }) => sum + size, 0);
    await this.makeRoom(0);
    for await (const { name } of Deno.readDir(join(this.folder, "urls"))) {
      const file = join(this.folder, "urls", name);
      const entry = UrlEntry.safeParse(await readJson(file)).data;
      if (entry === undefined || !await this.has(entry.digest)) await Deno.remove(file);
    }
    await this.#removeOlder("absent", now - ABSENT_MS);
    await this.#removeOlder("forms", now - FORM_MS);
    const stale = await this.#removeOlder("incoming", now - STALE_INCOMING_MS);
    const after = (await this.list()).reduce((sum, { size }) => sum + size, 0);
    return before - after + stale;
  }

  /** @returns how many bytes became free. */
  async #removeOlder(folder: string, then: number): Promise<number> {
    let freed = 0;
    for await (const { name } of Deno.readDir(join(this.folder, folder))) {
      const file = join(this.folder, folder, name);
      const info = await Deno.stat(file).catch(() => undefined);
      if (info === undefined || (info.mtime?.getTime() ?? 0) > then) continue;
      await Deno.remove(file).catch(() => {});
      freed += info.size;
    }
    return freed;
  }

  /** Counts a use of the cache. No image is given up for a number that cannot be written. */
  async count(use: "hit" | "miss", savedBytes: number): Promise<void> {
    await this.#count(use, savedBytes).catch(() => {});
  }

  async #count(use: "hit" | "miss", savedBytes: number): Promise<void> {
    const path = join(this.folder, "statistics.json");
    using lock = await this.#openLock(`${path}.lock`);
    await lock.lock(true);
    const { hits, misses, savedBytes: saved } = await this.statistics();
    await writeJson(path, {
      hits: hits + (use === "hit" ? 1 : 0),
      misses: misses + (use === "miss" ? 1 : 0),
      savedBytes: saved + savedBytes,
    });
  }

  async statistics(): Promise<CacheStatistics> {
    const text = await readJson(join(this.folder, "statistics.json"));
    return Statistics.safeParse(text).data ?? { hits: 0, misses: 0, savedBytes: 0 };
  }

  #absentFile(url: string): string {
    return join(this.folder, "absent", keyOf(url));
  }

  #formFile(way: string): string {
    return join(this.folder, "forms", keyOf(way));
  }

  #urlFile(url: string): string {
    return join(this.folder, "urls", `${keyOf(url)}.json`);
  }
}

/** A name for a URL, or a way, that every file system takes. */
function keyOf(url: string): string {
  return createHash("sha256").update(url).digest("hex").slice(0, 32);
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await Deno.readTextFile(path));
  } catch {
    // Not there, or cut short by a power cut: as good as nothing.
    return undefined;
  }
}

async function writeJson(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}`;
  await writeFile(temporary, JSON.stringify(value), { mode: 0o600 });
  await Deno.rename(temporary, path);
}
