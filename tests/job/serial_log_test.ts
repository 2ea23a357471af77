/** The serial log of a phase, which a job's own commands can write, too. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { AgentEvent } from "../../lib/observe/events.ts";
import { scaledClock } from "../../lib/clock.ts";
import { Lab } from "../support/lab.ts";

const serial = (lab: Lab, jobId: string) => lab.sandbox.log(jobId, "serial", "test");

Deno.test("holes of a serial log are left out with a line that says so, and what is around them arrives", async () => {
  await using lab = await Lab.open({
    config: {
      test_command: "printf before > test-serial.log; truncate -s 100M test-serial.log; " +
        "printf 'after\\n' >> test-serial.log",
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  const [first, hole, last, rest] = serial(lab, jobId).split("\n");
  assertEquals(first?.replaceAll("\0", ""), "before");
  assertEquals(last?.replaceAll("\0", ""), "after");
  assertEquals(rest, "");
  const left = Number(
    /^\[A hole of (\d+) bytes in the serial log is left out\.\]$/.exec(hole!)![1],
  );
  // What is in the same blocks as data may be there as zeros.
  assertEquals(left > 100 * 1024 ** 2 - 3 * 4096 && left < 100 * 1024 ** 2, true, `${left}`);
});

Deno.test("zeros that are really in a serial log are copied", async () => {
  await using lab = await Lab.open({
    config: { test_command: "head -c 20000 /dev/zero > test-serial.log" },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(serial(lab, jobId), "\0".repeat(20_000));
});

Deno.test("a serial log of petabytes of nothing holds up neither the end of its phase nor the agent", async () => {
  await using lab = await Lab.open({
    // Copying has 30 s of this clock, and the machine may have much else to do.
    clock: scaledClock(1),
    config: {
      test_command:
        "printf x > test-serial.log; truncate -s 15T test-serial.log; printf end >> test-serial.log",
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  const log = serial(lab, jobId);
  assertEquals(log.startsWith("x"), true);
  assertEquals(log.endsWith("end"), true);
  assertEquals(log.length < 20_000, true, `${log.length}`);
  assertEquals(lab.statuses(jobId), { test: 0 });
});

Deno.test("a serial log waits while half of max_spool is used up, and what is left of it then is left out with a line", async () => {
  await using lab = await Lab.open({
    config: {
      max_spool: 2_000_000,
      test_command: "head -c 6000000 /dev/zero | tr '\\0' x > test-serial.log",
    },
  });
  let isAway = true;
  lab.sandbox.intercept((request) =>
    isAway && request.url.includes("/log/") ? new Response("busy", { status: 503 }) : undefined
  );
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  const place = join(lab.config.results_basedir, "agent-agent-1", "jobs", jobId, "record");
  await lab.eventually(
    () => Deno.readTextFile(place).then((text) => text.includes('"phase_ended"'), () => false),
    "the phase has ended",
  );
  isAway = false;
  await lab.complete(jobId);
  const log = serial(lab, jobId);
  const left = /\n\[The last (\d+) bytes of the serial log are left out\.\]\n$/.exec(log);
  const copied = log.indexOf("\n");
  assertEquals(copied + Number(left?.[1]), 6_000_000);
  assertEquals(copied < 1_100_000, true, `${copied}`);
});

Deno.test("a serial log that grows faster than it is copied ends with its phase", async () => {
  await using lab = await Lab.open({
    config: {
      // What goes on writing is ended with the job, not with the phase.
      test_command: "setsid sh -c 'while :; do head -c 1000000 /dev/zero; done' " +
        "> test-serial.log 2>/dev/null & sleep 0.2",
      cleanup_command: "echo cleaned",
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.statuses(jobId), { test: 0, cleanup: 0 });
  assertStringIncludes(lab.output(jobId, "cleanup"), "cleaned");
});

Deno.test("events tell of the serial log, and of the phase that failed first", async () => {
  const told: AgentEvent[] = [];
  await using lab = await Lab.open({
    sink: (event) => {
      told.push(event.type === "serial" ? { ...event, bytes: event.bytes.slice() } : event);
    },
    config: { test_command: "echo login: > test-serial.log; exit 3", cleanup_command: "exit 4" },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  await lab.until(() => told.some(({ type }) => type === "job_ended"), "the job's end is told");
  const text = told.map((event) =>
    event.type === "serial" && event.job === jobId ? new TextDecoder().decode(event.bytes) : ""
  );
  assertEquals(text.join(""), "login:\n");
  const ends = told.flatMap((event) =>
    event.type === "job_ended" ? [[event.job, event.failed]] : []
  );
  assertEquals(ends, [[jobId, "test"]]);
});
