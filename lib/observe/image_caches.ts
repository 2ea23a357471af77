/**
 * What device connectors count in addition to the images that a host keeps. Their stages are processes of
 * their own, so the counts are on disk, and are read when somebody asks.
 */
import { join } from "node:path";
import * as z from "zod";

/** The file is a line. */
const MOST_BYTES = 4096;

const Counts = z.object({
  hits: z.number().default(0),
  misses: z.number().default(0),
  savedBytes: z.number().default(0),
});
/** What a cache has been good for since it was made. */
export type ImageCacheCounts = z.infer<typeof Counts>;

const NOTHING: ImageCacheCounts = { hits: 0, misses: 0, savedBytes: 0 };

/** Reads what has been counted in the image cache of a folder; zeros where nothing has. */
export async function imageCacheCounts(folder: string): Promise<ImageCacheCounts> {
  const path = join(folder, "statistics.json");
  try {
    // Jobs run as the same user: nobody waits for what is no file.
    const info = await Deno.lstat(path);
    if (!info.isFile || info.size > MOST_BYTES) return NOTHING;
    return Counts.parse(JSON.parse(await Deno.readTextFile(path)));
  } catch {
    // Not there, or damaged: as good as nothing.
    return NOTHING;
  }
}
