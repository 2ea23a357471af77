import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { compileSecrets } from "../../lib/process/redactor.ts";
import { startProgram } from "../support/agent_process.ts";
import { Lab } from "../support/lab.ts";

/** More steps than a job has: the test ends at the first one that is not reached. */
const MOST_STEPS = 80;

/** Each step waits most of the time. */
const PARALLEL = 4;

const SECRET = "open sesame";

/** Runs a command with `$1` on a disk of its own, as the kernel sees it: nothing can be moved out of it. */
const ON_OTHER_DISK = [
  "unshare",
  "--mount",
  "/bin/sh",
  "-c",
  'mount --bind "$1" "$1" && shift && exec "$@"',
  "sh",
];

const mayMount = await (async () => {
  const folder = await Deno.makeTempDir();
  try {
    const [program = "", ...args] = [...ON_OTHER_DISK, folder, "true"];
    return (await new Deno.Command(program, { args, stderr: "null" }).output()).success;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
})();

/** Where an agent is killed, and where its jobs run. */
interface Kill {
  moment: "before" | "after";
  step: number;
  /** The working folders are on another disk than what the agent keeps. */
  otherDisk: boolean;
}

/** Kills the agent at one append to a journal, lets the next one go on, and checks what the server has. */
async function killAt({ moment, step, otherDisk }: Kill): Promise<"killed" | "not reached"> {
  await using lab = await Lab.open({ config: { agent_id: `step-${crypto.randomUUID()}` } });
  const { agent_id, execution_basedir } = lab.config;
  const truth = join(lab.folder, "truth");
  const config = await lab.writeConfig({
    polling_interval: 1,
    cancel_grace: 1,
    provision_command: `echo provision >>${truth}; echo provisioned`,
    test_command: `echo test >>${truth}; echo "one $KEY"; sleep 0.2; echo two; ` +
      "mkdir -p artifacts; echo x > artifacts/x; exit 3",
    cleanup_command: `echo cleanup >>${truth}; echo cleaned`,
  });
  const jobId = lab.submit({
    provision_data: { url: "x" },
    test_data: { secrets: { KEY: SECRET } },
    job_status_webhook: "http://127.0.0.1:9/hook",
  });
  const clockFactor = 20;
  await Deno.mkdir(execution_basedir);
  const through = otherDisk ? [...ON_OTHER_DISK, execution_basedir] : [];
  const host = { clockFactor, crashAt: { moment, append: step } };
  await using first = startProgram(["-c", config], { through, host });
  const jobs = join(lab.config.results_basedir, `agent-${agent_id}`, "jobs");
  const isOver = () =>
    lab.sandbox.state(jobId) === "complete" && [...Deno.readDirSync(jobs)].length === 0;
  let status: number | undefined;
  void first.exited.then((code) => status = code);
  await lab.eventually(() => status !== undefined || isOver(), "killed, or the job delivered");
  if (status === undefined) {
    first.kill("SIGTERM");
    await first.exited;
    return "not reached";
  }
  await using second = startProgram(["-c", config], { through, host: { clockFactor } });
  await lab.complete(jobId);
  await lab.eventually(isOver, `the journal is removed; step ${step}:\n${second.output()}`);
  second.kill("SIGTERM");
  assertEquals(await second.exited, 0, second.output());

  const at = `killed ${moment} step ${step}:\n${second.output()}`;
  const masked = compileSecrets([SECRET]).redactText(SECRET);
  assertEquals(lab.output(jobId, "provision"), "provisioned\n", at);
  assertEquals(lab.output(jobId, "test"), `one ${masked}\ntwo\n`, at);
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n", at);
  assertEquals(lab.statuses(jobId), { provision: 0, test: 3, cleanup: 0 }, at);
  assertEquals(await Deno.readTextFile(truth), "provision\ntest\ncleanup\n", at);
  assertEquals(lab.sandbox.artifact(jobId) !== undefined, true, `the artifact, ${at}`);
  assertEquals(lab.sandbox.log(jobId, "output").includes(SECRET), false, at);
  const numbers = lab.sandbox.fragments(jobId, "output").map((f) => f.fragment_number).sort((
    a,
    b,
  ) => a - b);
  assertEquals(numbers, numbers.map((_, index) => index), `fragment numbers, ${at}`);
  const events = lab.events(jobId);
  assertEquals(new Set(events).size, events.length, `events, ${at}`);
  assertEquals([events[0], events.at(-1)], ["job_start", "job_end"], at);
  assertEquals(lab.inExecutionBasedir(), [], at);
  return "killed";
}

async function killAtEveryStep(kill: Omit<Kill, "step">): Promise<void> {
  let next = 1;
  let last = MOST_STEPS;
  const work = async () => {
    while (next <= last) {
      const step = next++;
      if (await killAt({ ...kill, step }) === "not reached") last = Math.min(last, step);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, work));
  assertEquals(last > 20 && last < MOST_STEPS, true, `${last} steps`);
}

for (const moment of ["before", "after"] as const) {
  Deno.test(`an agent that is killed right ${moment} any entry of its journal disturbs no job`, () =>
    killAtEveryStep({ moment, otherDisk: false }));
}

Deno.test({
  name: "an agent that is killed after any step loses nothing with its jobs on another disk, too",
  // Mounting needs root and a container that allows it.
  ignore: !mayMount,
  fn: () => killAtEveryStep({ moment: "after", otherDisk: true }),
});
