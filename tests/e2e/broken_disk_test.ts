import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { type AgentProcess, startProgram } from "../support/agent_process.ts";
import { Lab } from "../support/lab.ts";
import { mayMount, onOwnDisk } from "../support/small_disk.ts";

interface Ground {
  lab: Lab;
  disk: string;
  agent: AgentProcess;
  /** Runs a shell command where the agent's disk is mounted. */
  onDisk(command: string): Promise<void>;
}

/** An agent all of whose jobs are on a disk of its own. */
async function withDisk(test: (ground: Ground) => Promise<void>): Promise<void> {
  await using lab = await Lab.open({ config: { agent_id: `disk-${crypto.randomUUID()}` } });
  const disk = join(lab.folder, "disk");
  await Deno.mkdir(disk);
  const config = await lab.writeConfig({
    execution_basedir: join(disk, "run"),
    results_basedir: join(disk, "results"),
    logging_basedir: join(lab.folder, "logs"),
    polling_interval: 0.2,
    test_command: `disk=${disk}; eval "$(sed -n 's/.*"do": *"\\([^"]*\\)".*/\\1/p' ` +
      'testflinger.json)"; echo last line',
    cleanup_command: "echo cleaned",
  });
  await using agent = startProgram(["-c", config], {
    through: [...onOwnDisk("size=64m,nr_inodes=400"), disk],
  });
  const onDisk = async (command: string) => {
    const args = ["-t", `${agent.pid}`, "-m", "sh", "-c", command, "sh", disk];
    const { success, stderr } = await new Deno.Command("nsenter", { args }).output();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  };
  try {
    await test({ lab, disk, agent, onDisk });
  } catch (error) {
    throw new Error(`The agent said:\n${agent.output()}`, { cause: error });
  }
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
}

for (
  const { what, breaks, mends, says } of [
    {
      what: "is read-only",
      breaks: "for part in run results; do mount --bind $disk/$part $disk/$part; " +
        "mount -o remount,bind,ro $disk/$part; done",
      mends: 'umount "$1/run" "$1/results"',
      says: "Read-only file system",
    },
    {
      what: "has no inode left",
      breaks: "mkdir $disk/many; cd $disk/many; while mkdir x 2>/dev/null; do cd x; done",
      mends: 'rm -r "$1/many"',
      says: "inodes free, and a job may need",
    },
    {
      what: "has lost the agent's folders, which cannot be made again",
      breaks: "rm -r $disk/results; touch $disk/results",
      mends: 'rm "$1/results"',
      says: "Cannot make the folder",
    },
  ]
) {
  Deno.test({
    name:
      `a disk that ${what} during a job lets that job end and no other begin, until it is mended`,
    // Mounting needs root and a container that allows it.
    ignore: !mayMount,
    fn: () =>
      withDisk(async ({ lab, agent, onDisk }) => {
        const first = lab.submit({ test_data: { do: breaks } });
        await lab.complete(first);
        const second = lab.submit({ test_data: { a: 1 } });
        const { agent_id } = lab.config;
        const comment = await lab.until(() => {
          const { comment = "" } = lab.sandbox.agent(agent_id) ?? {};
          return comment.startsWith("No job is taken: ") && comment;
        }, "the agent says why");
        assertStringIncludes(comment, says);
        const rounds = lab.sandbox.requestCount;
        await lab.until(() => lab.sandbox.requestCount > rounds + 6, "some rounds");
        assertEquals(lab.sandbox.state(second), "waiting");
        assertStringIncludes(agent.output(), comment);

        await onDisk(mends);
        await lab.complete(second);
        assertEquals(lab.output(second, "test"), "last line\n");
        assertEquals(lab.statuses(second), { test: 0, cleanup: 0 });
      }),
  });
}

Deno.test({
  name: "folders that are removed under an agent are made again, and the next job runs in them",
  ignore: !mayMount,
  fn: () =>
    withDisk(async ({ lab, disk, agent, onDisk }) => {
      const first = lab.submit({ test_data: { do: "rm -r $disk/results" } });
      await lab.complete(first);
      const second = lab.submit({ test_data: { do: "rm -r $disk/run" } });
      await lab.complete(second);
      const third = lab.submit({ test_data: { a: 1 } });
      await lab.complete(third);
      assertEquals(lab.statuses(third), { test: 0, cleanup: 0 });
      assertStringIncludes(agent.output(), "Folders of this agent were removed while it ran");
      await onDisk(`test -S "$1"/results/agent-*/status.sock && test -f "$1"/results/agent-*/lock`);
      assertEquals(await Deno.stat(join(disk, "run")).catch(() => "seen here"), "seen here");
    }),
});
