/** What a failing disk, a person's hand or another version leaves of a job's journal. */
import { JOURNAL_VERSION } from "../../lib/outbox/entries.ts";
import { compacted, emptyJobState } from "../../lib/outbox/job_state.ts";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { JournalFile } from "../../lib/outbox/journal.ts";
import { Outbox } from "../../lib/outbox/outbox.ts";
import { Lab } from "../support/lab.ts";

const CONFIG = { cleanup_command: "echo cleaned" };

function ownFolder(lab: Lab): string {
  return join(lab.config.results_basedir, "agent-agent-1");
}

/** Behind everything that has been logged. */
const ALL = { output: 0, serial: 0 };

interface Left {
  jobId: string;
  folder: string;
}

/** A job that was killed while its test ran, when the server had the first line of its log. */
async function leaveInterrupted(lab: Lab, ...more: Record<string, unknown>[]): Promise<Left> {
  const jobId = lab.submit({ job_queue: "elsewhere" });
  const folder = join(ownFolder(lab), "jobs", jobId);
  await Deno.mkdir(folder, { recursive: true });
  const job = { job_id: jobId, job_queue: "queue-1", test_data: { a: 1 } };
  await Deno.writeTextFile(join(folder, "job.json"), JSON.stringify(job));
  await Deno.writeTextFile(join(folder, "output"), `first of ${jobId}\nsecond of ${jobId}\n`);
  const first = `first of ${jobId}\n`;
  const { file } = JournalFile.open(join(folder, "record"));
  for (
    const entry of [
      { t: "accepted", version: 1, at: 1, jobId, queue: "queue-1", rerun: false },
      { t: "phase_started", phase: "test" },
      { t: "region", log: "output", phase: "test", from: 0 },
      { t: "fragment", log: "output", number: 0, phase: "test", from: 0, to: first.length },
      { t: "fragment_settled", log: "output", how: "delivered" },
      ...more,
    ]
  ) file.append(entry);
  file.close();
  const posted = await lab.sandbox.fetch(
    new Request(`http://sandbox/v1/result/${jobId}/log/output`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        fragment_number: 0,
        timestamp: "2026-01-01T00:00:00+00:00",
        phase: "test",
        log_data: first,
      }),
    }),
  );
  assertEquals(posted.status, 200);
  return { jobId, folder };
}

function wholeLog({ jobId }: Left): string {
  return `first of ${jobId}\nsecond of ${jobId}\n`;
}

/** The lines that the job itself has printed. */
function printed(lab: Lab, { jobId }: Left): string {
  return lab.sandbox.log(jobId, "output").split("\n")
    .filter((line) => /^(first|second) of /.test(line)).map((line) => `${line}\n`).join("");
}

for (const name of ["record", "output", "serial", "job.json"]) {
  Deno.test(`a FIFO in place of a job's ${name} does not hang the start, and the job is ended`, async () => {
    await using lab = await Lab.open({ config: CONFIG });
    const left = await leaveInterrupted(lab);
    await Deno.remove(join(left.folder, name)).catch(() => {});
    await new Deno.Command("mkfifo", { args: [join(left.folder, name)] }).output();
    lab.start();
    await lab.complete(left.jobId);
    assertStringIncludes(lab.output(left.jobId, "cleanup"), "cleaned\n");
    assertEquals(lab.sandbox.state(await lab.run({})), "complete");
  });
}

Deno.test("what cannot be read of a job is put aside without its secrets, and named", async () => {
  await using lab = await Lab.open({ config: CONFIG });
  const left = await leaveInterrupted(lab);
  await Deno.remove(join(left.folder, "record"));
  await Deno.mkdir(join(left.folder, "record"));
  lab.start();
  await lab.complete(left.jobId);
  assertStringIncludes(lab.logged("error").join("\n"), `left in ${left.folder}`);
  const [aside = ""] = [...Deno.readDirSync(join(ownFolder(lab), "damaged"))].map((e) => e.name);
  const kept = [...Deno.readDirSync(join(ownFolder(lab), "damaged", aside))].map((e) => e.name);
  assertEquals(kept.sort(), ["output", "record"]);
});

Deno.test("journals that were swapped are refused: no job gets the log of another", async () => {
  await using lab = await Lab.open({ config: CONFIG });
  const one = await leaveInterrupted(lab);
  const two = await leaveInterrupted(lab);
  await Deno.rename(join(one.folder, "record"), join(lab.folder, "record"));
  await Deno.rename(join(two.folder, "record"), join(one.folder, "record"));
  await Deno.rename(join(lab.folder, "record"), join(two.folder, "record"));
  lab.start();
  for (const { jobId } of [one, two]) {
    await lab.complete(jobId);
    assertEquals(printed(lab, { jobId, folder: "" }), `first of ${jobId}\n`);
  }
  const errors = lab.logged("error").join("\n");
  assertStringIncludes(errors, `its journal is that of another job, ${two.jobId}`);
  assertStringIncludes(errors, `its journal is that of another job, ${one.jobId}`);
});

Deno.test("a job that is not the one its folder names is not taken for it", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "cat testflinger.json" } });
  const left = await leaveInterrupted(lab);
  const other = { job_id: crypto.randomUUID(), job_queue: "q", test_data: { secret: "other's" } };
  await Deno.writeTextFile(join(left.folder, "job.json"), JSON.stringify(other));
  lab.start();
  await lab.complete(left.jobId);
  assertEquals(lab.sandbox.log(left.jobId, "output", "cleanup").includes("other's"), false);
  assertStringIncludes(lab.logged("error").join("\n"), `is not job ${left.jobId}`);
});

for (const [what, kept] of Object.entries({ "the last entry": 4, "all entries of the log": 2 })) {
  Deno.test(`a power cut that fills ${what} with zeros doubles nothing`, async () => {
    await using lab = await Lab.open({ config: CONFIG });
    const left = await leaveInterrupted(lab);
    const journal = join(left.folder, "record");
    const lines = (await Deno.readTextFile(journal)).split("\n");
    const whole = new TextEncoder().encode(`${lines.slice(0, kept).join("\n")}\n`);
    const bytes = new Uint8Array((await Deno.stat(journal)).size);
    bytes.set(whole);
    await Deno.writeFile(journal, bytes);
    lab.start();
    await lab.complete(left.jobId);
    assertEquals(printed(lab, left), wholeLog(left));
    assertStringIncludes(lab.logged("error").join("\n"), "check the disk for errors");
  });
}

for (const kept of [0, 1, 3]) {
  Deno.test(`a job whose damaged journal a process has opened that was killed then does not run again: ${kept} lines kept`, async () => {
    await using lab = await Lab.open({ config: { ...CONFIG, setup_command: "echo set up" } });
    const left = await leaveInterrupted(lab);
    const journal = join(left.folder, "record");
    const lines = (await Deno.readTextFile(journal)).split("\n");
    const whole = new TextEncoder().encode(
      lines.slice(0, kept).map((line) => `${line}\n`).join(""),
    );
    const bytes = new Uint8Array((await Deno.stat(journal)).size);
    bytes.set(whole);
    await Deno.writeFile(journal, bytes);
    Outbox.open(left.folder, lab.log).outbox[Symbol.dispose]();
    lab.start();
    await lab.complete(left.jobId);
    assertEquals(lab.sandbox.log(left.jobId, "output", "setup").includes("set up"), false);
    assertEquals(printed(lab, left), wholeLog(left));
    assertStringIncludes(lab.output(left.jobId, "cleanup"), "cleaned\n");
  });
}

Deno.test("a job whose journal has lost that a command was started is cleaned up", async () => {
  await using lab = await Lab.open({ config: CONFIG });
  const left = await leaveInterrupted(lab);
  await Deno.mkdir(join(left.folder, "command-1"));
  lab.start();
  await lab.complete(left.jobId);
  assertStringIncludes(lab.output(left.jobId, "cleanup"), "cleaned\n");
  assertEquals(lab.statuses(left.jobId), { test: 100, cleanup: 0 });
});

/** Each line of a journal may be the one that a disk loses. */
Deno.test("a job that has ended is complete on the server whichever line of its journal is damaged", async () => {
  const ending = [
    { t: "phase_ended", phase: "test", status: 0 },
    { t: "message", n: 0, message: { kind: "status", status: { test: 0 } }, after: ALL },
    { t: "event", event: { event_name: "job_start", timestamp: "", detail: "" } },
    { t: "event", event: { event_name: "job_end", timestamp: "", detail: "" } },
    { t: "events_settled", count: 2, how: "delivered" },
    { t: "message", n: 1, message: { kind: "outcome", status: { test: 0 } }, after: ALL },
    { t: "finished", at: 2 },
  ];
  const lines = 5 + ending.length;
  await using lab = await Lab.open({ config: CONFIG });
  const all: Left[] = [];
  for (let line = 0; line < lines; line++) {
    const left = await leaveInterrupted(lab, ...ending);
    const journal = join(left.folder, "record");
    const text = (await Deno.readTextFile(journal)).split("\n");
    text[line] = `${text[line]?.slice(0, -1)}!`;
    await Deno.writeTextFile(journal, text.join("\n"));
    all.push(left);
  }
  lab.start();
  for (const left of all) {
    await lab.complete(left.jobId);
    assertEquals(printed(lab, left), wholeLog(left));
  }
  await lab.eventually(
    () => [...Deno.readDirSync(join(ownFolder(lab), "jobs"))].length === 0,
    "all is delivered",
  );
});

Deno.test("an entry of a newer version is kept and said so, and is no failing disk", async () => {
  await using lab = await Lab.open({ config: CONFIG });
  const left = await leaveInterrupted(lab, { t: "teleported", where: "elsewhere" });
  lab.start();
  await lab.complete(left.jobId);
  assertEquals(printed(lab, left), wholeLog(left));
  assertEquals(lab.logged("error"), []);
  const warnings = lab.logged("warning").join("\n");
  assertStringIncludes(warnings, "has 1 entries of a newer version of the agent");
  const [copy = ""] = [...Deno.readDirSync(join(ownFolder(lab), "damaged"))].map((e) => e.name);
  assertStringIncludes(
    await Deno.readTextFile(join(ownFolder(lab), "damaged", copy)),
    "teleported",
  );
});

Deno.test("an entry of a newer version about a log stays in the journal when that is compacted", () => {
  const newer = { t: "region", log: "console", from: 0 };
  const known = { t: "region", log: "output", phase: "test", from: 0 };
  const values = compacted([newer, known, { t: "teleported" }], emptyJobState());
  assertEquals(values.slice(0, 2), [newer, { t: "teleported" }]);
  assertEquals(values.includes(known), false);
});

Deno.test("a journal that a newer version has begun is said to be one, and its job is ended", async () => {
  await using lab = await Lab.open({ config: CONFIG });
  const left = await leaveInterrupted(lab);
  const { file } = JournalFile.open(join(ownFolder(lab), "jobs", left.jobId, "record"));
  const version = JOURNAL_VERSION + 1;
  file.append({ t: "accepted", version, at: 1, jobId: left.jobId, queue: "q", rerun: false });
  file.close();
  lab.start();
  await lab.complete(left.jobId);
  const warnings = lab.logged("warning").join("\n");
  assertStringIncludes(warnings, "has 1 entries of a newer version of the agent");
});
