/** What an operator and a user of the lab meet, on the built file: a whole job, the page, each command. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { packTar } from "modern-tar";
import { loadConnectors } from "../../connectors/registry.ts";
import { VERSION } from "../../lib/version.ts";
import { freePort } from "../support/free_port.ts";
import { Lab } from "../support/lab.ts";
import { PROGRAM, startProgram } from "./built_program.ts";

/** What a command printed, both streams, and its exit status. */
async function run(args: string[], cwd?: string): Promise<{ code: number; output: string }> {
  await using program = startProgram(args, {
    env: { NO_COLOR: "1" },
    ...cwd !== undefined && { cwd },
  });
  const code = await program.exited;
  return { code, output: program.output() };
}

async function tarGz(files: Record<string, string>): Promise<Uint8Array> {
  const tar = await packTar(
    Object.entries(files).map(([name, body]) => ({ header: { name, size: body.length }, body })),
  );
  const packed = new Blob([new Uint8Array(tar)]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(packed).arrayBuffer());
}

/** A lab with the agent's configuration in a file, its page on a port. */
async function labWithPage(): Promise<{ lab: Lab; file: string; page: string }> {
  const lab = await Lab.open({ config: { agent_id: `operator-${crypto.randomUUID()}` } });
  const port = freePort();
  await Deno.writeTextFile(join(lab.folder, "device.yaml"), "agent_name: rpi4\n");
  const file = await lab.writeConfig({
    polling_interval: 0.2,
    metrics_port: port,
    connector: "fake_connector",
    connector_config: "device.yaml",
  });
  return { lab, file, page: `http://127.0.0.1:${port}` };
}

Deno.test("a job with an attachment, a secret and an artifact; page, metrics, check, doctor, status, jobs, logs", async () => {
  const { lab: opened, file, page } = await labWithPage();
  await using lab = opened;
  const id = lab.config.agent_id;
  const token = ["--token-file", join(lab.folder, "none")];
  await using agent = startProgram(["-c", file, ...token]);
  const jobId = lab.submit({
    attachments_status: "complete",
    test_data: {
      attachments: [{ local: "greeting.txt" }],
      secrets: { KEY: "open sesame" },
      test_cmds: 'cat attachments/test/greeting.txt; echo "key $KEY"; ' +
        "mkdir -p artifacts; echo kept > artifacts/file",
    },
  }, await tarGz({ "test/greeting.txt": "greetings from an attachment\n" }));
  await lab.complete(jobId);
  const output = lab.output(jobId, "test");
  assertStringIncludes(output, "greetings from an attachment\n");
  assertMatch(output, /\nkey \*\*[0-9a-f]{6}\*\*\n/);
  assertEquals(lab.statuses(jobId), { setup: 0, test: 0, cleanup: 0 });
  assert(lab.sandbox.artifact(jobId) !== undefined, "the artifact is on the server");

  const get = async (path: string) => {
    const response = await fetch(`${page}${path}`);
    return `${response.status} ${await response.text()}`;
  };
  await lab.eventually(
    async () => (await get(`/v1/agents/${id}`)).includes(`"recent_jobs":[{`),
    "over",
  );
  assertStringIncludes(await get("/metrics"), `\njobs_total{agent_id="${id}"} 1\n`);
  assertMatch(
    await get("/metrics"),
    /\nphase_duration_seconds_count\{[^}]*test_phase="test"[^}]*\} 1\n/,
  );
  const html = await get("/");
  assertMatch(html, /^200\s+<!doctype html>/i);
  assertStringIncludes(html, jobId);

  // As docs/operations.md has it: the process says what it is, its version and its configuration.
  const ps = await new Deno.Command("ps", { args: ["-o", "args=", "-C", "testflinger-agent"] })
    .output();
  assertMatch(
    new TextDecoder().decode(ps.stdout),
    new RegExp(`^/\\S+/${VERSION}-\\S+/testflinger-agent .* -c ${file}( |$)`, "m"),
  );

  assertMatch((await run(["check", file])).output, /0 mistakes, 0 warnings\n/);
  const doctor = await run(["doctor", "-c", file, ...token]);
  assertEquals(doctor.code, 0, doctor.output);
  assertStringIncludes(doctor.output, "held by the agent, process ");
  const status = await run(["status", "-c", file]);
  assertEquals(status.code, 0, status.output);
  assertMatch(status.output, new RegExp(`^${id}  waiting for .*\n[^]* {2}Server +http`));
  assertStringIncludes(status.output, VERSION);
  const jobs = await run(["jobs", "-c", file]);
  assertStringIncludes(jobs.output, jobId);
  assertStringIncludes((await run(["logs", "-c", file])).output, `Agent ${id} starts`);

  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
  assertStringIncludes((await run(["status", "-c", file])).output, "does not run");
});

Deno.test("the built file describes each connector, and prints its manual, its help and its completions", async () => {
  const list = await run(["device-connector", "list"]);
  for (const { name, summary } of await loadConnectors()) {
    assertStringIncludes(list.output, name);
    const described = await run(["device-connector", "describe", name]);
    assertEquals(described.code, 0, described.output);
    assertStringIncludes(described.output.replaceAll(/\s+/g, " "), summary.replaceAll(/\s+/g, " "));
  }
  assertMatch((await run(["help", "--man"])).output, /^\.TH TESTFLINGER/);
  assertMatch((await run(["--help"])).output, /^usage: testflinger-agent/);
  for (const shell of ["bash", "zsh", "fish"]) {
    assertStringIncludes((await run(["completion", shell])).output, "doctor");
  }
  assertStringIncludes((await run(["version", "--licenses"])).output, "the Deno authors");
});

Deno.test("called by a relative path or through a link, the built file runs connectors as itself", async () => {
  const { lab: opened, file } = await labWithPage();
  await using lab = opened;
  const link = join(lab.folder, "link");
  await Deno.symlink(PROGRAM, link);
  const job = join(lab.folder, "job.yaml");
  await Deno.writeTextFile(job, "test_data:\n  test_cmds: echo tested\n");
  const { code, stdout } = await new Deno.Command("./link", {
    args: ["try", job, "-c", file],
    cwd: lab.folder,
    stdin: "null",
    env: { NO_COLOR: "1" },
  }).output();
  assertEquals(code, 0);
  assertStringIncludes(new TextDecoder().decode(stdout), "\ntested\n");
});
