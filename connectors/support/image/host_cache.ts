/** Which image cache a stage uses: the agent says so in the environment of its phases. */
import { statfs } from "node:fs/promises";
import { dirname } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { ImageCache } from "./cache.ts";

/** Where the disk is large, a cache is this large unless the configuration says otherwise. */
const DEFAULT_MAX_BYTES = 20 * 2 ** 30;
/** How many times that the disk must hold. */
const DISK_FACTOR = 10;

/** Variables that the agent sets from its keys image_cache, image_cache_max and min_free_space. */
const CACHE_VARIABLES = {
  folder: "TESTFLINGER_IMAGE_CACHE",
  maxBytes: "TESTFLINGER_IMAGE_CACHE_MAX",
  minFreeBytes: "TESTFLINGER_IMAGE_CACHE_MIN_FREE",
} as const;

/** The cache of this host; undefined where there is none, or it cannot be used, which is logged. */
export async function hostCache(
  { env, log }: Pick<ConnectorContext, "env" | "log">,
): Promise<ImageCache | undefined> {
  const folder = env[CACHE_VARIABLES.folder] ?? "";
  if (folder === "") return undefined;
  const maxBytes = Number(env[CACHE_VARIABLES.maxBytes] ?? await defaultMaxBytes(folder));
  const minFreeBytes = Number(env[CACHE_VARIABLES.minFreeBytes] ?? 0);
  if (!(maxBytes > 0)) return undefined;
  const opened = await ImageCache.open(folder, { maxBytes, minFreeBytes: minFreeBytes || 0 });
  if (opened.ok) return opened.cache;
  log.warning(`The image cache is not used: ${opened.why}`);
  return undefined;
}

/** How large a cache in this folder may become where nobody says; 0 on a small disk. */
export async function defaultMaxBytes(folder: string): Promise<number> {
  for (let place = folder;; place = dirname(place)) {
    try {
      const { blocks, bsize } = await statfs(place);
      return blocks * bsize >= DISK_FACTOR * DEFAULT_MAX_BYTES ? DEFAULT_MAX_BYTES : 0;
    } catch {
      // It is yet to be made; the root is there.
      if (place === dirname(place)) return 0;
    }
  }
}
