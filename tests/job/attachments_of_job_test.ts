import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { packTar, type TarEntry } from "modern-tar";
import { Lab } from "../support/lab.ts";

async function archive(entries: TarEntry[]): Promise<Uint8Array> {
  const tar = new Blob([new Uint8Array(await packTar(entries))]).stream();
  return new Uint8Array(
    await new Response(tar.pipeThrough(new CompressionStream("gzip"))).arrayBuffer(),
  );
}

const WITH_ATTACHMENTS = { attachments_status: "complete" };

Deno.test("attachments are in place before the first phase, and connectors still see them in the job", async () => {
  await using lab = await Lab.open({
    config: {
      setup_command: "cat attachments/test/hello.txt; grep -c hello.txt testflinger.json; " +
        "stat -c %a attachments",
    },
  });
  const tar = await archive([{ header: { name: "test/hello.txt", size: 6 }, body: "hello\n" }]);
  const jobId = await lab.run(
    { ...WITH_ATTACHMENTS, test_data: { attachments: [{ local: "hello.txt" }] } },
    tar,
  );
  assertEquals(lab.output(jobId, "setup"), "hello\n1\n755\n");
});

Deno.test("a phase that had nothing but attachments is skipped", async () => {
  await using lab = await Lab.open({ config: { provision_command: "true", test_command: "true" } });
  const tar = await archive([{ header: { name: "provision/x", size: 1 }, body: "x" }]);
  const jobId = await lab.run({
    ...WITH_ATTACHMENTS,
    provision_data: { attachments: [{ local: "x" }] },
    test_data: { test_cmds: "x", attachments: [] },
  }, tar);
  assertEquals(lab.statuses(jobId), { test: 0 });
});

Deno.test("attachments that climb out fail the job in setup, with the reason in log and event", async () => {
  await using lab = await Lab.open({
    config: { setup_command: "echo never", cleanup_command: "echo cleaned" },
  });
  const tar = await archive([{ header: { name: "test/../../escaped", size: 1 }, body: "x" }]);
  const jobId = await lab.run({
    ...WITH_ATTACHMENTS,
    job_status_webhook: "http://127.0.0.1:9/hook",
  }, tar);
  assertEquals(lab.statuses(jobId), { setup: 1, cleanup: 0 });
  assertStringIncludes(
    lab.sandbox.log(jobId, "output", "setup"),
    "ERROR: The attachments are refused: ",
  );
  await lab.until(() => lab.events(jobId).includes("job_end"), "the last event");
  const failure = lab.sandbox.events(jobId).find((event) => event.event_name === "setup_fail");
  assertStringIncludes(failure?.detail ?? "", "escaped");
  assertEquals(lab.output(jobId, "cleanup"), "cleaned\n");
  await lab.eventually(
    () => lab.inExecutionBasedir().length === 0,
    "nothing is left",
  );
});

Deno.test("a job that fails before its first phase counts as a failure of setup", async () => {
  const ended: unknown[] = [];
  await using lab = await Lab.open({
    sink: (event) => {
      if (event.type === "phase_ended") ended.push([event.phase, event.status, event.seconds]);
    },
  });
  const tar = await archive([{ header: { name: "test/../../escaped", size: 1 }, body: "x" }]);
  await lab.run({ attachments_status: "complete" }, tar);
  assertEquals(ended, [["setup", 1, undefined]]);
});

Deno.test("attachments that cannot be fetched fail the job in setup", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "true" } });
  lab.sandbox.intercept((request) =>
    request.url.endsWith("/attachments")
      ? Response.json({ message: "gone" }, { status: 400 })
      : undefined
  );
  const jobId = await lab.run({ ...WITH_ATTACHMENTS });
  assertEquals(lab.statuses(jobId), { setup: 1, cleanup: 0 });
  assertStringIncludes(
    lab.sandbox.log(jobId, "output", "setup"),
    "ERROR: Cannot fetch the attachments: ",
  );
});

Deno.test("attachments are fetched again when the server was busy", async () => {
  await using lab = await Lab.open({ config: { setup_command: "cat attachments/test/a" } });
  let failures = 2;
  lab.sandbox.intercept((request) =>
    request.url.endsWith("/attachments") && failures-- > 0
      ? new Response("busy", { status: 503 })
      : undefined
  );
  const tar = await archive([{ header: { name: "test/a", size: 2 }, body: "a\n" }]);
  const jobId = await lab.run({ ...WITH_ATTACHMENTS }, tar);
  assertEquals(lab.output(jobId, "setup"), "a\n");
});

Deno.test("an archive that is larger than attachments_max_download is refused", async () => {
  await using lab = await Lab.open({ config: { attachments_max_download: 100 } });
  const tar = await archive([{
    header: { name: "test/noise", size: 5000 },
    body: crypto.getRandomValues(new Uint8Array(5000)),
  }]);
  const jobId = await lab.run({ ...WITH_ATTACHMENTS }, tar);
  assertEquals(lab.statuses(jobId), { setup: 1 });
  assertStringIncludes(lab.sandbox.log(jobId, "output", "setup"), "attachments_max_download");
});

Deno.test("a job whose folder resists does not stop the agent", async () => {
  await using lab = await Lab.open({
    config: { test_command: "mkdir -p a/b; echo x > a/b/c; chmod 0 a/b a" },
  });
  await lab.run({ test_data: { a: 1 } });
  await lab.eventually(
    () => lab.inExecutionBasedir().length === 0,
    "the folder is gone",
  );
  await lab.run({ test_data: { a: 1 } });
  assertEquals(
    await Deno.stat(join(lab.config.execution_basedir)).then((i) => i.isDirectory),
    true,
  );
});
