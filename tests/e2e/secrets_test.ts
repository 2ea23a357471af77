/** Where a job's secrets are, and where they are not, as far as a process and a disk can tell. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { maskOf } from "../../lib/process/patterns.ts";
import { startProgram } from "./built_program.ts";
import { Lab } from "../support/lab.ts";
import { freePort } from "../support/free_port.ts";

const SECRET = "sesame-open-the-door";
const NUMBER = "7194386520";

/** A lab, and the configuration of its agent as a file. */
async function labWith(config: Record<string, unknown>): Promise<{ lab: Lab; file: string }> {
  const lab = await Lab.open({ config: { agent_id: `secrets-${crypto.randomUUID()}` } });
  const file = await lab.writeConfig({ polling_interval: 0.2, ...config });
  // What to look for, where no command line shows it.
  await Deno.writeTextFile(join(lab.folder, "pattern"), SECRET);
  return { lab, file };
}

/** The files in a folder that hold the secret. */
async function holders(folder: string): Promise<string[]> {
  const { stdout } = await new Deno.Command("grep", { args: ["-rlF", SECRET, folder] }).output();
  return new TextDecoder().decode(stdout).split("\n")
    .filter((line) => line !== "" && !line.endsWith("/pattern")).sort();
}

Deno.test("a secret is on the disk in two files of the agent's alone, on no command line, and gone after the job", async () => {
  const { lab: opened, file } = await labWith({
    setup_command: "env | grep -c -F -f ../../pattern; true",
    test_command: [
      "echo environment $(env | grep -c -F -f ../../pattern)",
      "echo arguments $(grep -l -F -f ../../pattern /proc/[0-9]*/cmdline 2>/dev/null | wc -l)",
      "echo core $(ulimit -S -c)",
      "find ../.. -type f ! -name pattern -exec grep -l -F -f ../../pattern {} + " +
      '| while read f; do echo "$(stat -c %a $f) $(stat -c %a $(dirname $f)) $(basename $f)"; done | sort',
    ].join("; "),
    cleanup_command: "env | grep -c -F -f ../../pattern; true",
  });
  await using lab = opened;
  await using agent = startProgram(["-c", file]);
  const jobId = await submitAndWait(lab, { test_data: { secrets: { KEY: SECRET } } });
  assertEquals(lab.output(jobId, "setup"), "0\n");
  assertEquals(
    lab.output(jobId, "test"),
    "environment 1\narguments 0\ncore 0\n600 700 job.json\n600 700 testflinger.json\n",
  );
  assertEquals(lab.output(jobId, "cleanup"), "0\n");
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  assertEquals(await holders(lab.folder), []);
});

async function submitAndWait(lab: Lab, job: Record<string, unknown>): Promise<string> {
  const jobId = lab.submit(job);
  await lab.complete(jobId);
  return jobId;
}

Deno.test("after an agent was killed during a job, the next one leaves no file that holds its secrets", async () => {
  const { lab: opened, file } = await labWith({
    test_command: "mkdir -p artifacts; echo printed; until [ -e ../go ]; do sleep 0.02; done",
    cancel_grace: 0,
  });
  await using lab = opened;
  await using first = startProgram(["-c", file]);
  const jobId = lab.submit({ test_data: { secrets: { KEY: SECRET } } });
  await lab.until(() => lab.output(jobId, "test").includes("printed"), "the test runs");
  first.kill("SIGKILL");
  await first.exited;
  assertEquals((await holders(lab.folder)).length, 2, "as long as nobody has tidied up");
  await using second = startProgram(["-c", file]);
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  second.kill("SIGTERM");
  assertEquals(await second.exited, 0, second.output());
  assertEquals(await holders(lab.folder), []);
});

Deno.test("a secret is masked wherever the job puts it: name, logs, events, device information, artifacts' names, agent's log, status page", async () => {
  const port = freePort();
  const { lab: opened, file } = await labWith({
    logging_level: "DEBUG",
    metrics_port: port,
    test_command: `
printf %s "$KEY" | head -c 9; sleep 0.05; printf '%s\\n' "$KEY" | tail -c +10
printf %s "x$KEY" | base64
printf '%s\\n' "$KEY" > test-serial.log
printf '{"device_info": {"%s": ["%s", {"pin": %s}]}}' "$KEY" "$KEY" "$PIN" > device-info.json
printf '{"test_exception_info": {"exception_name": "Oops", "exception_message": "%s"}}' "$KEY" \\
  > device-connector-error.json
mkdir artifacts; mkfifo "artifacts/$KEY"
exit 1`,
    cleanup_command: "echo cleaning; until [ -e ../go ]; do sleep 0.02; done",
  });
  await using lab = opened;
  await using agent = startProgram(["-c", file]);
  const jobId = lab.submit({
    name: `job of ${SECRET}`,
    job_status_webhook: "http://127.0.0.1:9/hook",
    test_data: { secrets: { KEY: SECRET, PIN: NUMBER } },
  });
  await lab.until(() => lab.output(jobId, "cleanup").includes("cleaning"), "cleanup runs");
  const page = async (path: string) =>
    await (await fetch(`http://127.0.0.1:${port}${path}`)).text();
  const status = `/v1/agents/${encodeURIComponent(lab.config.agent_id)}`;
  const shown = [await page("/"), await page("/v1/status"), await page(status)];
  shown.push(await page("/metrics"));
  await Deno.writeTextFile(join(lab.config.execution_basedir, "go"), "");
  await lab.complete(jobId);
  shown.push(await page("/"), await page(status));
  // What the agent says of itself reaches the server with its last post.
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());

  const mask = maskOf(SECRET);
  const { sandbox } = lab;
  const logs = [sandbox.log(jobId, "output"), sandbox.log(jobId, "serial")];
  const events = JSON.stringify(sandbox.events(jobId));
  const result = JSON.stringify(sandbox.result(jobId));
  const record = JSON.stringify(sandbox.agent(lab.config.agent_id));
  const own = await Deno.readTextFile(join(lab.config.logging_basedir, "testflinger-agent.log"));
  // Each of them was there to be masked.
  for (const text of [...logs, events, result, shown[0] ?? ""]) assertStringIncludes(text, mask);
  assertStringIncludes(shown[0] ?? "", `job of ${mask}`);
  assertStringIncludes(logs[0] ?? "", `The artifact "artifacts/${mask}" is`);
  assertStringIncludes(result, `{"pin":"${maskOf(NUMBER)}"}`);
  for (const text of [...logs, events, result, record, own, agent.output(), ...shown]) {
    for (const secret of [SECRET, NUMBER, btoa(SECRET), btoa(`x${SECRET}`).slice(2, -3)]) {
      assert(!text.includes(secret), `${secret} in ${text}`);
    }
  }
  assertEquals(await holders(lab.config.logging_basedir), []);
});
