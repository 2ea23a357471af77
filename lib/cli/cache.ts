/** `testflinger-agent cache`: the images that the device connectors of this host keep. */
import { CONFIG_FLAGS } from "./agent_commands.ts";
import {
  type Command,
  type CommandLine,
  FORMAT_FLAG,
  type Io,
  PROGRAM,
  readFormat,
  USAGE_STATUS,
} from "./command.ts";

const ACTIONS = ["list", "verify", "prune"] as const;

/** `testflinger-agent cache`. */
export const cacheCommand: Command = {
  name: "cache",
  summary: "Lists, verifies or prunes the image cache of this host's device connectors.",
  operands: "[list|verify|prune]",
  positionals: { least: 0, most: 1 },
  flags: [
    ...CONFIG_FLAGS,
    { name: "dir", value: "DIR", help: "folder of the cache, instead of a configuration" },
    FORMAT_FLAG,
  ],
  examples: [
    {
      line: "testflinger-agent cache -c rpi4.conf",
      does: "cached images, most recently used first",
    },
    {
      line: "testflinger-agent cache verify",
      does: "read all images, and remove damaged ones",
    },
    { line: "testflinger-agent cache prune", does: "remove what exceeds the limits" },
  ],
  async run(line, io) {
    const [word = "list"] = line.positionals;
    const action = ACTIONS.find((name) => name === word);
    const format = readFormat(line, io);
    if (action === undefined) {
      io.stderr(`There is no 'cache ${word}': it is ${ACTIONS.join(", ")}\n`);
      return USAGE_STATUS;
    }
    if (format === undefined) return USAGE_STATUS;
    const caches = await cachesOf(line, io);
    if (caches === undefined) return USAGE_STATUS;
    const { ImageCache } = await import("../../connectors/support/image/cache.ts");
    let status = 0;
    for (const { folder, ...limits } of caches) {
      if (!await Deno.stat(folder).then((info) => info.isDirectory, () => false)) {
        io.stdout(`${folder}: no image has been kept yet\n`);
        continue;
      }
      const opened = await ImageCache.openExisting(folder, limits);
      if (!opened.ok) {
        const hint = opened.owner === undefined
          ? ""
          : `; try as that user: sudo -u '#${opened.owner}' ${PROGRAM} cache ${action} --dir ${folder}`;
        io.stderr(`The image cache cannot be used: ${opened.why}${hint}\n`);
        status = 1;
        continue;
      }
      const { cache } = opened;
      if (action === "list") io.stdout(await listing(cache, format));
      else if (action === "prune") {
        const words = await import("../observe/words.ts");
        io.stdout(`${folder}: ${words.size(await cache.prune(Date.now()))} became free\n`);
      } else if (!await verify(cache, io)) status = 1;
    }
    return status;
  },
};

interface CachePlace {
  folder: string;
  maxBytes: number;
  minFreeBytes: number;
}

/** The caches of the chosen agents, each once. */
async function cachesOf(line: CommandLine, io: Io): Promise<CachePlace[] | undefined> {
  const { defaultMaxBytes } = await import("../../connectors/support/image/host_cache.ts");
  const { dir } = line.values;
  if (dir !== undefined) {
    return [{ folder: dir, maxBytes: await defaultMaxBytes(dir), minFreeBytes: 0 }];
  }
  const { chooseAgents } = await import("./agents/choose.ts");
  const chosen = await chooseAgents({ ...line, positionals: [] }, io, { manyByDefault: true });
  if (chosen === undefined) return undefined;
  const places = new Map<string, CachePlace>();
  const { imageCacheFolder, loadAgentConfig } = await import("../config/agent_config.ts");
  for (const { id, file } of chosen.agents) {
    const read = await loadAgentConfig(file);
    if (!read.ok) {
      io.stderr(`The configuration of ${id} cannot be used: check it with 'check ${file}'\n`);
      continue;
    }
    const config = read.value;
    const folder = imageCacheFolder(config);
    if (folder === "") continue;
    places.set(folder, {
      folder,
      maxBytes: config.image_cache_max ?? await defaultMaxBytes(folder),
      minFreeBytes: config.min_free_space,
    });
  }
  if (places.size === 0) io.stderr("No agent here has an image cache\n");
  return [...places.values()];
}

type Cache = import("../../connectors/support/image/cache.ts").ImageCache;

async function listing(cache: Cache, format: "text" | "json"): Promise<string> {
  const contents = await cache.list();
  const statistics = await cache.statistics();
  if (format === "json") {
    return `${
      JSON.stringify({ folder: cache.folder, ...statistics, images: contents }, null, 2)
    }\n`;
  }
  const words = await import("../observe/words.ts");
  const { showText } = await import("../observe/output_text.ts");
  const total = contents.reduce((sum, { size }) => sum + size, 0);
  const lines = contents.map(({ digest, size, usedAt, urls }) =>
    `  ${words.size(size).padStart(9)}  ${new Date(usedAt).toISOString().slice(0, 16)}Z  ` +
    `${digest.slice(0, 12)}  ${urls.map(showText).join(" ") || "(no URL any more)"}\n`
  );
  return `${cache.folder}: ${words.count(contents.length, "image")}, ${
    words.size(total)
  } of at most ${words.size(cache.limits.maxBytes)}; used ${
    words.count(statistics.hits, "time")
  }, which saved ${words.size(statistics.savedBytes)}; ${
    words.count(statistics.misses, "download")
  }\n` +
    lines.join("");
}

/** @returns whether all are as they should be. */
async function verify(cache: Cache, io: Io): Promise<boolean> {
  // Loaded only now: the table of commands is loaded at each start.
  const { createHash } = await import("node:crypto");
  let damaged = 0;
  const contents = await cache.list();
  for (const { digest, path } of contents) {
    const hash = createHash("sha256");
    using file = await Deno.open(path);
    const buffer = new Uint8Array(1024 * 1024);
    for (let read = await file.read(buffer); read !== null; read = await file.read(buffer)) {
      hash.update(buffer.subarray(0, read));
    }
    if (hash.digest("hex") === digest) continue;
    damaged++;
    await cache.remove(digest);
    io.stderr(`${path} was damaged, and has been removed\n`);
  }
  const whole = contents.length - damaged;
  io.stdout(`${cache.folder}: ${whole} of ${contents.length} images are intact\n`);
  return damaged === 0;
}
