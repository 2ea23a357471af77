/**
 * Which agents a host has: every configuration file in a folder, or those that were named; and what
 * has changed there since the last look.
 */
import type { Clock } from "../clock.ts";
import type { AgentConfig } from "../config/agent_config.ts";
import { quoted } from "../config/mistake.ts";
import { messageOf } from "../message.ts";
import { join, resolve } from "../path.ts";
import { lastConfiguration } from "../agent/last_configuration.ts";

/** In a folder of its own for each agent, as the established host charm lays them out. */
const FILE_NAME = "testflinger-agent.conf";
const SUFFIX = ".conf";

/** Where the configurations are. */
export type ConfigurationSource =
  | { files: readonly string[] }
  /** `FOLDER/*.conf`, and `FOLDER/<name>/testflinger-agent.conf`. */
  | { folder: string };

/** What reading one file comes to. */
export type ConfigurationRead =
  | { ok: true; config: AgentConfig; warnings: readonly string[] }
  | { ok: false; mistakes: readonly string[] };

/** One agent that the host should have. */
export interface Wanted {
  file: string;
  config: AgentConfig;
}

/** A file that cannot be used as it is. */
export interface BrokenFile {
  file: string;
  /** Each on one line, with file, line and column. */
  mistakes: readonly string[];
  /** When that was noticed; milliseconds since 1970. */
  since: number;
  /** The agent that keeps running with the previous configuration. */
  agentId?: string;
}

/** What there is. */
export interface Look {
  /** By agent id. */
  wanted: ReadonlyMap<string, Wanted>;
  broken: readonly BrokenFile[];
  /** Of files that are new or were changed. */
  warnings: readonly string[];
}

interface Known {
  text: string | undefined;
  read: ConfigurationRead;
  /** As the file last could be used. */
  good: AgentConfig | undefined;
}

/** The configurations of a host. */
export class Configurations {
  readonly #source: ConfigurationSource;
  readonly #read: (file: string) => Promise<ConfigurationRead>;
  readonly #clock: Pick<Clock, "now">;
  #known = new Map<string, Known>();
  #wanted: ReadonlyMap<string, Wanted> = new Map();
  /** Since when each broken file has been so. */
  #brokenSince = new Map<string, number>();
  /** Why the folder could not be listed, as it was last said. */
  #listingFailure: string | undefined;

  constructor(
    source: ConfigurationSource,
    read: (file: string) => Promise<ConfigurationRead>,
    clock: Pick<Clock, "now">,
  ) {
    this.#source = source;
    this.#read = read;
    this.#clock = clock;
  }

  /**
   * Looks which files there are, and reads those that are new, have changed, or could not be used.
   *
   * @param options.all reads the others, too: what they say may depend on files next to them.
   */
  async look({ all = false } = {}): Promise<Look> {
    const before = this.#known;
    const known = new Map<string, Known>();
    const warnings: string[] = [];
    let files: readonly string[];
    try {
      files = "files" in this.#source ? this.#source.files : await filesIn(this.#source.folder);
      this.#listingFailure = undefined;
    } catch (error) {
      // A folder that cannot be read for a moment takes no agent away.
      files = [...before.keys()];
      const why = messageOf(error);
      if (why !== this.#listingFailure) {
        warnings.push(`The configurations cannot be listed, so nothing changes: ${why}`);
      }
      this.#listingFailure = why;
    }
    for (const file of files) {
      const earlier = before.get(file);
      const text = await Deno.readTextFile(file).catch(() => undefined);
      const isSame = earlier !== undefined && earlier.text === text;
      if (isSame && earlier.read.ok && !all) {
        known.set(file, earlier);
        continue;
      }
      const read = await this.#readOne(file);
      if (read.ok && !isSame) warnings.push(...read.warnings);
      known.set(file, { text, read, good: read.ok ? read.config : earlier?.good });
    }
    this.#known = known;
    const { wanted, broken } = sortOut(known, {
      wanted: this.#wanted,
      lastOf: lastConfiguration,
    });
    this.#wanted = wanted;
    const now = this.#clock.now();
    this.#brokenSince = new Map(
      broken.map(({ file }) => [file, this.#brokenSince.get(file) ?? now]),
    );
    const dated = broken.map((one) => ({ ...one, since: this.#brokenSince.get(one.file) ?? now }));
    return { wanted, broken: dated, warnings };
  }

  /** Whatever goes wrong with one file is that file's. */
  async #readOne(file: string): Promise<ConfigurationRead> {
    try {
      return await this.#read(file);
    } catch (error) {
      return { ok: false, mistakes: [`${file}: cannot be read: ${messageOf(error)}`] };
    }
  }
}

/** Of several files with one id, those with which its agent has run last. */
function ownersOf<File extends Wanted>(
  agentId: string,
  all: readonly File[],
  { wanted, lastOf }: Before,
): File[] {
  const had = all.filter(({ file }) => wanted.get(agentId)?.file === file);
  return had.length > 0 ? had : all.filter(({ file, config }) => lastOf(config) === resolve(file));
}

/** What `sortOut()` knows of the time before. */
interface Before {
  wanted: ReadonlyMap<string, Wanted>;
  /** The configuration that this agent last ran with, in this process or an earlier one. */
  lastOf(config: AgentConfig): string | undefined;
}

/**
 * Which agents follow from the files. An id that several files name stays that one's whose agent has it (a
 * copy that was not changed yet disturbs nobody), also over a restart. Where that is none of them no agent
 * runs: which one is right only a person knows.
 */
function sortOut(
  known: ReadonlyMap<string, Known>,
  before: Before,
): { wanted: Look["wanted"]; broken: Omit<BrokenFile, "since">[] } {
  const wanted = new Map<string, Wanted>();
  const broken: Omit<BrokenFile, "since">[] = [];
  const byId = new Map<string, (Wanted & { isRead: boolean })[]>();
  for (const [file, { read, good }] of known) {
    const agentId = good?.agent_id;
    if (!read.ok) {
      broken.push({ file, mistakes: read.mistakes, ...(agentId !== undefined && { agentId }) });
    }
    if (good === undefined || agentId === undefined) continue;
    byId.set(agentId, [...byId.get(agentId) ?? [], { file, config: good, isRead: read.ok }]);
  }
  for (const [agentId, all] of byId) {
    const [owner, ...others] = all.length === 1 ? all : ownersOf(agentId, all, before);
    if (owner !== undefined && others.length === 0) {
      wanted.set(agentId, { file: owner.file, config: owner.config });
    }
    for (const { file, isRead } of all) {
      if (!isRead || wanted.get(agentId)?.file === file) continue;
      const same = all.filter((one) => one.file !== file).map((one) => one.file);
      broken.push({ file, mistakes: [`${file}: agent_id: ${sameIdWords(agentId, same)}`] });
    }
  }
  return { wanted, broken: broken.sort((a, b) => a.file < b.file ? -1 : 1) };
}

/** What is wrong with an id that other files name, too, and what to do. */
export function sameIdWords(agentId: string, others: readonly string[]): string {
  return `${quoted(agentId)} is the agent_id of ${others.join(" and ")} too: ` +
    "remove one of the files, or give it another agent_id";
}

/** The configuration files in a folder, in the order of their names. */
export async function filesIn(folder: string): Promise<string[]> {
  const files: string[] = [];
  for await (const { name } of Deno.readDir(folder)) {
    if (name.startsWith(".")) continue;
    const path = join(folder, name);
    const info = await Deno.stat(path).catch(() => undefined);
    if (info?.isFile && name.endsWith(SUFFIX)) files.push(path);
    if (!info?.isDirectory) continue;
    const inside = join(path, FILE_NAME);
    // What may not be looked at is there: who reads it says that it cannot be read.
    const isThere = await Deno.stat(inside).then(
      ({ isFile }) => isFile,
      (error) => error instanceof Deno.errors.PermissionDenied,
    );
    if (isThere) files.push(inside);
  }
  return files.sort();
}
