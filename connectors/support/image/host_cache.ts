/** Which image cache a stage uses: the agent says so in the environment of its phases. */
import type { ConnectorContext } from "../../context.ts";
import { ImageCache } from "./cache.ts";

/** Variables that the agent sets from its keys image_cache, image_cache_max and min_free_space. */
export const CACHE_VARIABLES = {
  folder: "TESTFLINGER_IMAGE_CACHE",
  maxBytes: "TESTFLINGER_IMAGE_CACHE_MAX",
  minFreeBytes: "TESTFLINGER_IMAGE_CACHE_MIN_FREE",
} as const;

/** The cache of this host; undefined where there is none, or it cannot be used, which is logged. */
export async function hostCache(
  { env, log }: Pick<ConnectorContext, "env" | "log">,
): Promise<ImageCache | undefined> {
  const folder = env[CACHE_VARIABLES.folder] ?? "";
  const maxBytes = Number(env[CACHE_VARIABLES.maxBytes] ?? 0);
  const minFreeBytes = Number(env[CACHE_VARIABLES.minFreeBytes] ?? 0);
  if (folder === "" || !(maxBytes > 0)) return undefined;
  const opened = await ImageCache.open(folder, { maxBytes, minFreeBytes: minFreeBytes || 0 });
  if (opened.ok) return opened.cache;
  log.warning(`The image cache is not used: ${opened.why}`);
  return undefined;
}
