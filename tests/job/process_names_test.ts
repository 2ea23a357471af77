/** What `ps` shows of a job: the agent and the job, before anything else of the command line. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { scaledClock } from "../../lib/clock.ts";
import { exists } from "../../lib/exists.ts";
import { processesWith } from "../../lib/process/proc.ts";
import { Lab } from "../support/lab.ts";
import { TempFolder } from "../support/temp_folder.ts";

/** As much as a terminal of 160 columns shows behind the columns of `ps -ef`. */
const SHOWN = 110;

Deno.test("ps names the agent, the job and the phase for each program that keeps a job's command", async () => {
  await using temp = new TempFolder();
  await using lab = await Lab.open({
    clock: scaledClock(1),
    config: {
      agent_id: "rack-2",
      test_command: `echo "begun as $0"; : >${temp.at("begun")}; until [ -e ${
        temp.at("go")
      } ]; do sleep 0.02; done`,
      cleanup_command: "echo cleaned",
    },
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(() => exists(temp.at("begun")), "the phase runs");

  const shown = await argumentsOf(await processesWith(`TESTFLINGER_JOB_ID=${jobId}`));
  const programs = shown.map((line) => line.split(" ")[0]);
  assert(programs.some((program) => program?.endsWith("awk")), programs.join(", "));
  for (const line of shown) {
    if (line.startsWith("sleep ")) continue;
    // The job's own shell has the command that the configuration gives it, and nothing else.
    if (line.startsWith("/bin/sh -c echo ")) continue;
    if (line.startsWith("dd ")) {
      assertStringIncludes(line, `/jobs/${jobId}/command-`);
      continue;
    }
    assertMatch(
      line.slice(0, SHOWN),
      new RegExp(`# testflinger-agent: rack-2, job ${jobId}, (test|cleanup)`),
    );
  }
  await Deno.writeTextFile(temp.at("go"), "");
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "begun as /bin/sh\n");
});

/** The command line of each process as `ps` has it; one that has ended has none. */
async function argumentsOf(pids: readonly number[]): Promise<string[]> {
  const { stdout } = await new Deno.Command("ps", {
    args: ["-ww", "-o", "args=", "-p", pids.join(",")],
    env: { LC_ALL: "C.UTF-8" },
  }).output();
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}
