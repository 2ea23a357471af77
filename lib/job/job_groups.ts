/**
 * The control groups of one agent's jobs: one for each job, and in it one for each of its phases. Where
 * there are any, nothing that a job has started can hide when the job ends; they also say what a phase has
 * used, and keep a job within its limits.
 */
import type { AgentConfig } from "../config/agent_config.ts";
import { type Phase, PHASES } from "../phases.ts";
import { ControlGroup, type ControlGroups, type GroupCommand } from "../process/cgroup.ts";
import type { EndOptions } from "../process/grace.ts";
import type { JobState } from "../outbox/job_state.ts";
import { markOf } from "../process/mark.ts";
import type { Survivor, SurvivorsEnd } from "../process/survivors.ts";
import type { GroupUsage } from "../process/exit.ts";

/** More of an agent's name would leave no room for the job's. */
const LONGEST_AGENT_NAME = 40;

/** What bounds a job, and the controller that it takes. */
const LIMITS = { job_memory_max: "memory", job_pids_max: "pids" } as const;

/** The configured limits of jobs that nobody keeps with these controllers. */
export function unkeptLimits(
  config: Partial<Pick<AgentConfig, keyof typeof LIMITS>>,
  controllers: readonly string[],
): (keyof typeof LIMITS)[] {
  // Object.keys() does not tell its compiler which strings they are.
  const keys = Object.keys(LIMITS) as (keyof typeof LIMITS)[];
  return keys.filter((key) => config[key] !== undefined && !controllers.includes(LIMITS[key]));
}

/** Whatever a job has left running, and however much that takes: its cleanup is to run. */
function commandOf(phase: Phase): GroupCommand {
  return { name: phase, isLimited: phase !== "cleanup" };
}

/** The control groups of one agent's jobs. */
export class JobGroups {
  readonly #groups: ControlGroups;
  readonly #config: AgentConfig;
  readonly #prefix: string;

  /** @param agentFolder tells this agent from others of the same name, of which each has its own. */
  constructor(groups: ControlGroups, config: AgentConfig, agentFolder: string) {
    this.#groups = groups;
    this.#config = config;
    // For people: the mark alone would do.
    const name = config.agent_id.replaceAll(/[^\w-]/g, "_").slice(0, LONGEST_AGENT_NAME);
    this.#prefix = `job-${name}-${markOf(agentFolder).toString(36)}-`;
  }

  /** The group of a job, which an earlier process may have made. */
  of(jobId: string): JobGroup {
    return new JobGroup(this.#groups.group(this.#prefix + jobId), this.#groups, this.#config);
  }

  /** Ends and removes what is left of jobs other than these: nobody else will. */
  async removeOthers(jobIds: readonly string[], options: EndOptions): Promise<SurvivorsEnd> {
    const names = jobIds.map((jobId) => this.#prefix + jobId);
    const others = await this.#groups.others(this.#prefix, names);
    const ends = await Promise.all(others.map((group) => group.end(options)));
    return {
      ended: ends.flatMap(({ ended }) => ended),
      fleeting: 0,
      left: ends.flatMap(({ left }) => left),
    };
  }
}

/** The control group of one job. */
export class JobGroup {
  readonly #group: ControlGroup;
  readonly #config: AgentConfig;
  readonly #controllers: readonly string[];
  #prepared: Promise<boolean> | undefined;

  constructor(
    group: ControlGroup,
    { controllers }: Pick<ControlGroups, "controllers">,
    config: AgentConfig,
  ) {
    this.#group = group;
    this.#config = config;
    this.#controllers = controllers;
  }

  /** Where it is. */
  get folder(): string {
    return this.#group.folder;
  }

  /** Makes it, with all that is in it, unless that is done; says whether commands can join it. */
  prepare(): Promise<boolean> {
    const { job_memory_max, job_pids_max } = this.#config;
    const isKept = (controller: string) => this.#controllers.includes(controller);
    return this.#prepared ??= this.#group.prepare(PHASES.map(commandOf), {
      memoryMax: isKept("memory") ? job_memory_max : undefined,
      pidsMax: isKept("pids") ? job_pids_max : undefined,
    }).catch(() => false);
  }

  /** The folder that the command of a phase joins; undefined when it cannot. */
  async folderOf(phase: Phase): Promise<string | undefined> {
    return await this.prepare() ? this.#group.folderOf(commandOf(phase)) : undefined;
  }

  /** Whether there are controllers, which are taken from it when its agent hands over: they then count anew. */
  get isCountedAnew(): boolean {
    return this.#controllers.length > 0;
  }

  /** What the command of a phase has used so far. */
  async usage(phase: Phase): Promise<GroupUsage> {
    return await this.#group.usage(commandOf(phase));
  }

  /** What of a phase the kernel has killed because memory ran out, as far as its log can be read. */
  async victims(phase: Phase): Promise<Survivor[]> {
    return await this.#group.victims(commandOf(phase));
  }

  /** Ends everything in it, and removes it. It can be made again. */
  async end(options: EndOptions): Promise<SurvivorsEnd> {
    await this.#prepared;
    this.#prepared = undefined;
    return await this.#group.end(options);
  }
}

/**
 * All groups in which something of a job may run: where an agent moves from one service to another while a
 * job runs, what was started before the move stays in a group below the former service's.
 *
 * @param own the one that commands which are started now join.
 */
export function allGroupsOf(
  { cgroups }: Pick<JobState, "cgroups">,
  own: JobGroup | undefined,
): Pick<ControlGroup, "end">[] {
  const earlier = [...cgroups].filter((folder) => folder !== own?.folder)
    .map((folder) => new ControlGroup(folder, { path: "", controllers: [] }));
  return own === undefined ? earlier : [own, ...earlier];
}
