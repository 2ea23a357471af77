import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { startProgram } from "./built_program.ts";
import { Lab } from "../support/lab.ts";
import { mayMount, onOwnDisk } from "../support/small_disk.ts";

Deno.test({
  name:
    "a disk that is full ends the phase with a clear message; what exists is delivered, and the agent goes on",
  // Mounting needs root and a container that allows it.
  ignore: !mayMount,
  async fn() {
    await using lab = await Lab.open({ config: { agent_id: `full-${crypto.randomUUID()}` } });
    const disk = join(lab.folder, "disk");
    await Deno.mkdir(disk);
    const config = await lab.writeConfig({
      execution_basedir: join(disk, "run"),
      results_basedir: join(disk, "results"),
      logging_basedir: join(lab.folder, "logs"),
      polling_interval: 0.2,
      test_command: `if grep -q '"flood"' testflinger.json; then echo first line; ` +
        "yes 'a line of output' | head -c 20000000; else echo fine; fi",
      cleanup_command: "echo cleaned",
    });
    const flood = lab.submit({ test_data: { flood: true } });
    await using agent = startProgram(["-c", config], { through: [...onOwnDisk("size=3m"), disk] });
    await lab.complete(flood);
    const output = lab.output(flood, "test");
    // The disk is full for the one who keeps what the command prints, or for the job's journal: a race.
    const end =
      /\n?ERROR: The agent cannot store the output, so the phase was ended: (.*No space left on device|the disk is full, or cannot be written to).*\n$/;
    assertMatch(output, end);
    const printed = `first line\n${"a line of output\n".repeat(20_000_000 / 17)}`;
    const kept = output.replace(end, "").replace(
      /\n?WARNING: test\.log in the job's folder ends here: .*\n?/,
      "",
    );
    assertEquals(printed.startsWith(kept), true, kept.slice(-200));
    assertEquals(lab.statuses(flood), { test: 100, cleanup: 0 });
    assertStringIncludes(lab.sandbox.log(flood, "output", "cleanup"), "cleaned\n");

    const next = lab.submit({ test_data: { a: 1 } });
    await lab.complete(next);
    assertEquals(lab.output(next, "test"), "fine\n");
    agent.kill("SIGTERM");
    assertEquals(await agent.exited, 0, agent.output());
  },
});
