/** The commands about agents that run on this host: what they do is in `agents/` and `doctor/`. */
import type { PastJob } from "../observe/status_schema.ts";
import { count } from "../observe/words.ts";
import {
  type Command,
  DEFAULT_CONFIG,
  DEFAULT_TOKEN_FILE,
  type Flag,
  FORMAT_FLAG,
  readFormat,
  USAGE_STATUS,
} from "./command.ts";

/** What stands on the usage line, and how many of them there may be. */
const AGENT_OPERANDS = {
  operands: "[AGENT...]",
  positionals: { least: 0, most: Infinity },
} as const;

/** Configurations in place of agents' ids. */
export const CONFIG_FLAGS: readonly Flag[] = [
  {
    name: "config",
    short: "c",
    value: "FILE",
    repeats: true,
    help:
      `the agent's configuration (default: ${DEFAULT_CONFIG}, else agents set up or running here)`,
  },
  {
    name: "config-dir",
    value: "DIR",
    help:
      "the agents of DIR/*.conf and DIR/NAME/testflinger-agent.conf, or the named ones among them",
  },
];

/** Every agent that can be found. */
const ALL_FLAG: Flag = { name: "all", help: "every agent of this host" };

/** For requests that are carried out later. */
const WAIT_FLAGS: readonly Flag[] = [
  { name: "wait", help: "wait until it is done, and say each minute what is still missing" },
  {
    name: "timeout",
    value: "SECONDS",
    help: "wait at most this long, then end with exit status 3; the request stays",
  },
];

/** `testflinger-agent status`. */
export const statusCommand: Command = {
  name: "status",
  summary: "Shows what the agents of this host are doing: state and reason, job, phase, server.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, FORMAT_FLAG],
  examples: [
    {
      line: "testflinger-agent status",
      does: "all agents of this host, or the one configured here",
    },
    { line: "testflinger-agent status rpi4-1", does: "everything about one agent" },
    { line: "testflinger-agent status --all --format json", does: "for a program" },
    {
      line: "testflinger-agent status >/dev/null || echo trouble",
      does: "exit status 1: one does not run, hangs, or its configuration has mistakes",
    },
  ],
  async run(line, io) {
    const format = readFormat(line, io);
    if (format === undefined) return USAGE_STATUS;
    const { chooseAgents } = await import("./agents/choose.ts");
    const { findAgents } = await import("./agents/agent_ref.ts");
    const { askAgents, askHosts } = await import("./agents/ask_agent.ts");
    const { statusLines, statusTable } = await import("./agents/show_status.ts");
    const complaints: string[] = [];
    const stderr = (text: string) => void complaints.push(text);
    const chosen = await chooseAgents(line, { ...io, stderr }, { manyByDefault: true });
    const entries = await askAgents(
      chosen?.agents ?? [],
      async () => (await findAgents()).agents,
    );
    const said = entries.flatMap(({ answer }) =>
      format === "json" || answer.kind === "silent"
        ? []
        : answer.kind === "running"
        ? answer.status.broken_configuration?.mistakes ?? []
        : answer.why ?? []
    );
    for (const complaint of complaints) {
      if (!said.some((mistake) => isAbout(complaint, mistake))) io.stderr(complaint);
    }
    if (chosen === undefined) return USAGE_STATUS;
    // Those for which a host runs no agent, wherever its configurations are.
    const isNamed = line.positionals.length > 0 || (line.lists.config ?? []).length > 0;
    const unused = isNamed ? [] : (await askHosts(entries))
      .flatMap(({ broken_configurations: broken }) => broken)
      .filter(({ agent_id: id }) => id === undefined);
    for (const mistake of unused.flatMap(({ mistakes }) => mistakes)) {
      if (complaints.some((complaint) => isAbout(complaint, mistake))) continue;
      io.stderr(`A configuration cannot be used, and no agent runs for it: ${mistake}\n`);
    }
    const [only] = entries;
    if (format === "json") {
      const plain = entries.map(({ agent, answer: { kind, ...more } }) => ({
        agent_id: agent.id,
        file: agent.file,
        state: kind,
        ...more,
      }));
      io.stdout(`${JSON.stringify(plain, null, 2)}\n`);
    } else if (entries.length === 1 && only !== undefined) {
      io.stdout(statusLines(only.agent, only.answer));
    } else {
      io.stdout(statusTable(entries));
    }
    const isWell = chosen.isComplete && !chosen.isBroken && unused.length === 0 &&
      entries.every(({ answer }) =>
        answer.kind === "running" && answer.status.healthy &&
        answer.status.broken_configuration === undefined
      );
    return isWell ? 0 : 1;
  },
};

/** Whether a complaint is what an agent or its host says of a configuration: `FILE:LINE:COLUMN: ...`. */
function isAbout(complaint: string, mistake: string): boolean {
  return complaint.includes(mistake.replace(/^.*?:(?=\d+:\d+: )/, "").replace(/^\/\S+: /, ""));
}

/** `testflinger-agent jobs`. */
export const jobsCommand: Command = {
  name: "jobs",
  summary: "Lists the last 20 jobs of an agent, with their phases and durations.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, FORMAT_FLAG],
  examples: [
    { line: "testflinger-agent jobs rpi4-1", does: "newest first; times are UTC" },
    { line: "testflinger-agent jobs -c rpi4.conf --format json", does: "for a program" },
  ],
  async run(line, io) {
    const format = readFormat(line, io);
    if (format === undefined) return USAGE_STATUS;
    const { chooseAgents } = await import("./agents/choose.ts");
    const { jobsTable, recentJobs } = await import("./agents/show_status.ts");
    const chosen = await chooseAgents(line, io, { manyByDefault: true });
    if (chosen === undefined) return USAGE_STATUS;
    const lists: { agent_id: string; jobs: readonly PastJob[] }[] = [];
    for (const agent of chosen.agents) {
      const jobs = await recentJobs(agent, (text) => io.stderr(`${text}\n`));
      if (jobs !== undefined) lists.push({ agent_id: agent.id, jobs });
    }
    const status = chosen.isComplete && lists.length === chosen.agents.length ? 0 : 1;
    if (format === "json") {
      io.stdout(`${JSON.stringify(lists, null, 2)}\n`);
      return status;
    }
    for (const { agent_id, jobs } of lists) {
      io.stdout(
        `${agent_id}: ${
          jobs.length === 0 ? "no job yet" : `the last ${count(jobs.length, "job")}`
        }\n`,
      );
      if (jobs.length > 0) io.stdout(jobsTable(jobs));
    }
    return status;
  },
};

const DEFAULT_LINES = "50";

/** `testflinger-agent logs`. */
export const logsCommand: Command = {
  name: "logs",
  summary: "Shows the end of an agent's own log, or of the output of its job.",
  operands: "[AGENT]",
  positionals: { least: 0, most: 1 },
  flags: [
    ...CONFIG_FLAGS,
    { name: "follow", short: "f", help: "show new lines as they come, until Ctrl-C" },
    { name: "lines", short: "n", value: "N", help: `how many lines (default: ${DEFAULT_LINES})` },
    { name: "job", short: "j", help: "show the output of the running job instead of the log" },
  ],
  examples: [
    { line: "testflinger-agent logs -f rpi4-1", does: "watch the agent" },
    { line: "testflinger-agent logs --job -f rpi4-1", does: "watch the job that it runs" },
  ],
  async run(line, io) {
    const lines = Number(line.values.lines ?? DEFAULT_LINES);
    if (!Number.isInteger(lines) || lines < 0) {
      io.stderr(`--lines must be a whole number, 0 or more: it is '${line.values.lines}'\n`);
      return USAGE_STATUS;
    }
    const { chooseAgents } = await import("./agents/choose.ts");
    const chosen = await chooseAgents(line, io, { manyByDefault: false, isForOne: true });
    const [agent, ...more] = chosen?.agents ?? [];
    if (agent === undefined) return USAGE_STATUS;
    if (more.length > 0) {
      io.stderr("One log at a time: name one agent\n");
      return USAGE_STATUS;
    }
    const { showLog } = await import("./agents/show_log.ts");
    return await showLog(agent, io, {
      lines,
      follow: line.switches.has("follow"),
      job: line.switches.has("job"),
    });
  },
};

/** `testflinger-agent restart`. */
export const restartCommand: Command = {
  name: "restart",
  summary: "Asks agents to restart as soon as they are online and run no job.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, ...WAIT_FLAGS],
  examples: [
    { line: "testflinger-agent restart rpi4-1", does: "after the running job, if any" },
    { line: "testflinger-agent restart --all --wait", does: "until all have restarted" },
    {
      line: "testflinger-agent restart --all --timeout 3600",
      does: "the same, for an hour; exit status 3 when one has not, 1 when one could not be asked",
    },
  ],
  async run(line, io) {
    const { requestRestart, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestRestart });
  },
};

/** `testflinger-agent reload`. */
export const reloadCommand: Command = {
  name: "reload",
  summary: "Switches to the installed program and changed configurations now; jobs go on.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG],
  examples: [
    { line: "testflinger-agent reload", does: "all agents of this host, after an upgrade" },
    {
      line: "testflinger-agent reload rpi4-1",
      does: "only the process of this agent; returns when its agents ask for jobs again",
    },
    {
      line: "testflinger-agent reload --config-dir /etc/testflinger-agent",
      does: "configurations that were added, changed or removed there",
    },
  ],
  async run(line, io) {
    const { runReload } = await import("./agents/reload.ts");
    return await runReload(line, io);
  },
};

/** `testflinger-agent offline`. */
export const offlineCommand: Command = {
  name: "offline",
  summary: "Asks agents to take no more jobs; a running job is finished first.",
  ...AGENT_OPERANDS,
  flags: [
    ...CONFIG_FLAGS,
    ALL_FLAG,
    { name: "comment", value: "TEXT", help: "reason, shown with the agent on the server" },
    ...WAIT_FLAGS,
  ],
  examples: [{
    line: "testflinger-agent offline rpi4-1 --comment 'new SD card' --wait",
    does: "wait until the device is free",
  }],
  async run(line, io) {
    const { requestOffline, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestOffline });
  },
};

/** `testflinger-agent online`. */
export const onlineCommand: Command = {
  name: "online",
  summary: "Takes back 'offline', and brings back agents that went offline by themselves.",
  ...AGENT_OPERANDS,
  flags: [...CONFIG_FLAGS, ALL_FLAG, ...WAIT_FLAGS],
  examples: [{ line: "testflinger-agent online rpi4-1", does: "let it take jobs again" }],
  async run(line, io) {
    const { requestOnline, runRequest } = await import("./agents/requests.ts");
    return await runRequest(line, io, { request: requestOnline });
  },
};

/** `testflinger-agent doctor`. */
export const doctorCommand: Command = {
  name: "doctor",
  summary: "Checks whether an agent can work on this host, and says what to do; changes nothing.",
  ...AGENT_OPERANDS,
  flags: [
    ...CONFIG_FLAGS,
    ALL_FLAG,
    {
      name: "token-file",
      value: "FILE",
      help: `JSON with the refresh_token (default: ${DEFAULT_TOKEN_FILE})`,
    },
    FORMAT_FLAG,
  ],
  examples: [
    {
      line: "testflinger-agent doctor rpi4-1",
      does: "server, token, folders, lock, programs, device; takes no job",
    },
    { line: "testflinger-agent doctor --all", does: "for each agent, only the problems" },
    {
      line: "sudo testflinger-agent doctor -c rpi4.conf",
      does: "check folders and files as the user that the agent runs as",
    },
  ],
  async run(line, io) {
    const { runDoctor } = await import("./doctor/run_doctor.ts");
    return await runDoctor(line, io);
  },
};
