/** What `ps` shows of a job: the agent and the job, before anything else of the command line. */
import { assert, assertEquals } from "@std/assert";
import { scaledClock } from "../../lib/clock.ts";
import { exists } from "../../lib/path.ts";
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
      // It waits without a program of its own: one that ends in the moment of looking has no arguments.
      test_command: `mkfifo ${temp.at("go")}; echo "begun as $0"; : >${temp.at("begun")}; read _ <${
        temp.at("go")
      }`,
      cleanup_command: "echo cleaned",
    },
  });
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(() => exists(temp.at("begun")), "the phase runs");

  // Those of the next phase are being made ready meanwhile: a program may be seen before it is what it becomes.
  let shown: string[] = [];
  await lab.eventually(async () => {
    shown = await argumentsOf(await processesWith(`TESTFLINGER_JOB_ID=${jobId}`));
    return shown.every((line) => isNamed(line, jobId));
  }, "each program says whose it is");
  const programs = shown.map((line) => line.split(" ")[0]);
  assert(programs.some((program) => program?.endsWith("awk")), programs.join(", "));
  await Deno.writeTextFile(temp.at("go"), "\n");
  await lab.complete(jobId);
  assertEquals(lab.output(jobId, "test"), "begun as /bin/sh\n");
});

/** Whether the start of a command line tells the job; the job's own shell has its command, and nothing else. */
function isNamed(line: string, jobId: string): boolean {
  if (line.startsWith("/bin/sh -c mkfifo ")) return true;
  if (line.startsWith("dd ")) return line.includes(`/jobs/${jobId}/command-`);
  return new RegExp(`# testflinger-agent: rack-2, job ${jobId}, (test|cleanup)`)
    .test(line.slice(0, SHOWN));
}

/** The command line of each process as `ps` has it; one that has ended has none. */
async function argumentsOf(pids: readonly number[]): Promise<string[]> {
  const { stdout } = await new Deno.Command("ps", {
    args: ["-ww", "-o", "args=", "-p", pids.join(",")],
    env: { LC_ALL: "C.UTF-8" },
  }).output();
  return new TextDecoder().decode(stdout).split("\n")
    .filter((line) => line !== "" && !line.endsWith(" <defunct>"));
}
