/** `testflinger-agent jobs`: the last jobs of an agent. */
import { count } from "../observe/words.ts";
import { AGENT_OPERANDS, ALL_FLAG, CONFIG_FLAGS } from "./agents/flags.ts";
import { type Command, FORMAT_FLAG, readFormat, USAGE_STATUS } from "./command.ts";

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
    const { jobsTable, recentJobs } = await import("./agents/jobs_table.ts");
    const chosen = await chooseAgents(line, io, { manyByDefault: true });
    if (chosen === undefined) return 1;
    const status = chosen.isComplete ? 0 : 1;
    const lists = await Promise.all(chosen.agents.map(async (agent) => ({
      agent_id: agent.id,
      jobs: await recentJobs(agent, (text) => io.stderr(`${text}\n`)),
    })));
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
