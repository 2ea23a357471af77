/** Which job a control group belongs to, on the control groups of this host. */
import { assertEquals } from "@std/assert";
import { AgentConfig } from "../../lib/config/agent_config.ts";
import { JobGroups, unkeptLimits } from "../../lib/job/job_groups.ts";
import { GROUPS, groupShell, testWithGroups } from "../support/control_groups.ts";
import { FakeClock } from "../support/fake_clock.ts";

const JOB = "3d2d431b-1706-43dd-823f-90d53b5b1ef6";
const OTHER_JOB = "64cd6feb-2c30-4255-a3d7-d80574c5bd18";

function configOf(agent_id: string): AgentConfig {
  return AgentConfig.parse({ agent_id, server_address: "http://127.0.0.1:1", job_queues: ["q"] });
}

/** The groups of an agent that nobody else has. */
function groupsOf(agentId: string, folder = `/${crypto.randomUUID()}`): JobGroups {
  return new JobGroups(GROUPS!, configOf(agentId), folder);
}

const now = () => ({ graceMs: 0, clock: new FakeClock() });

/** Starts a process in the group of a phase. */
async function fill(groups: JobGroups, jobId: string): Promise<Deno.ChildProcess> {
  const folder = await groups.of(jobId).folderOf("test");
  if (folder === undefined) throw new Error("The group cannot be made");
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", 'echo 0 >"$0/cgroup.procs" && echo in && exec sleep 1000', folder],
    stdin: "null",
    stdout: "piped",
  }).spawn();
  const reader = child.stdout.getReader();
  await reader.read();
  await reader.cancel();
  return child;
}

async function signalOf(child: Deno.ChildProcess): Promise<string | null> {
  return (await child.status).signal;
}

testWithGroups(
  "a job of two agents has a group of each, whatever the agents are called",
  async () => {
    const agents = [
      groupsOf("board 1 ä.é"),
      groupsOf("board 1 ä.é"),
      groupsOf("😀".repeat(100)),
    ];
    const children = await Promise.all(agents.map((groups) => fill(groups, JOB)));
    for (const [index, groups] of agents.entries()) {
      const { ended, left } = await groups.of(JOB).end(now());
      assertEquals([ended.map(({ pid }) => pid), left], [[children[index]?.pid], []]);
      assertEquals(await signalOf(children[index]!), "SIGKILL");
    }
  },
);

testWithGroups(
  "what is left of an agent's other jobs is ended, and nothing of another agent's",
  async () => {
    const folder = `/${crypto.randomUUID()}`;
    const [before, other] = [groupsOf("😀 board", folder), groupsOf("😀 board")];
    const [kept, old, another] = [
      await fill(before, JOB),
      await fill(before, OTHER_JOB),
      await fill(other, OTHER_JOB),
    ];
    // The next process of the agent knows of one job.
    const { ended } = await groupsOf("😀 board", folder).removeOthers([JOB], now());
    assertEquals(ended.map(({ pid }) => pid), [old.pid]);
    assertEquals(await signalOf(old), "SIGKILL");
    assertEquals((await before.of(JOB).end(now())).ended.map(({ pid }) => pid), [kept.pid]);
    assertEquals((await other.of(OTHER_JOB).end(now())).ended.map(({ pid }) => pid), [another.pid]);
    await Promise.all([kept.status, another.status]);
  },
);

testWithGroups("a group that was ended can be made again, and joined", async () => {
  const group = groupsOf("board").of(JOB);
  const folder = await group.folderOf("cleanup");
  await group.end(now());
  assertEquals(await groupShell('[ -e "$1" ] || echo gone', folder ?? ""), "gone");
  assertEquals(await group.folderOf("cleanup"), folder);
  assertEquals(await groupShell('[ -w "$1/cgroup.procs" ] && echo there', folder ?? ""), "there");
  await group.end(now());
});

Deno.test("limits that take a controller which is not there are named", () => {
  const limits = { job_memory_max: 2 ** 30, job_pids_max: 100 };
  assertEquals(unkeptLimits(limits, ["pids", "io"]), ["job_memory_max"]);
  assertEquals(unkeptLimits(limits, []), ["job_memory_max", "job_pids_max"]);
  assertEquals(unkeptLimits(limits, ["memory", "pids"]), []);
  assertEquals(unkeptLimits({}, []), []);
});
