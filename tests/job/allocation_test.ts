/** The device of a job is lent to its parent, and comes back whatever happens to the parent. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { waitWhileAllocated } from "../../lib/job/allocation.ts";
import { Job } from "../../lib/job/job.ts";
import { JobStore } from "../../lib/job/store.ts";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { createServerClient } from "../../lib/server/client.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

/** The time moves in steps of this, so that a request is answered long before its time is up. */
const STEP_MS = 5000;
/** Days. */
const MOST_STEPS = 50_000;

/** Lends the device of a job that the server knows, and says how and after how many seconds that ended. */
async function lend(
  job: Record<string, unknown>,
  during: (served: ServedSandbox, jobId: string, seconds: number) => void,
): Promise<{ line: string | undefined; seconds: number }> {
  const folder = await Deno.makeTempDir();
  const served = serveSandbox();
  const clock = new FakeClock();
  const log = recordingLog();
  const server = createServerClient({ address: served.url, agentId: "agent-1", clock, log });
  try {
    const jobId = served.sandbox.submit({ job_queue: "queue-1", ...job });
    const received = { job_queue: "queue-1", ...job, job_id: jobId };
    await server.postResult(jobId, { job_state: "allocate" });
    using outbox = await new JobStore(folder, log).accept(new Job(received), [], clock.now());
    const { signal } = new AbortController();
    const begun = clock.monotonic();
    let isOver = false;
    const options = { outbox, server, clock, log, signal, leave: signal };
    const ended = waitWhileAllocated(new Job(received), options).finally(() => isOver = true);
    await settle();
    outbox.append({ t: "settled", n: 0, how: "delivered" });
    for (let step = 0; !isOver; step++) {
      assert(step < MOST_STEPS, "the device is never given back");
      during(served, jobId, (clock.monotonic() - begun) / 1000);
      await settle();
      await clock.advance(STEP_MS);
    }
    return { line: await ended, seconds: (clock.monotonic() - begun) / 1000 };
  } finally {
    await server.close();
    await served.close();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the device is the parent's until the parent is complete", async () => {
  const parent = crypto.randomUUID();
  const { line, seconds } = await lend({ parent_job_id: parent }, ({ sandbox }, _, seconds) => {
    if (seconds === 0) sandbox.submit({ job_id: parent, job_queue: "multi" });
    if (seconds === 30) sandbox.cancel(parent);
  });
  assertEquals(line, undefined);
  assertEquals(seconds >= 30 && seconds < 60, true, `${seconds} s`);
});

Deno.test("a parent of which the server knows nothing for ten minutes is gone for good", async () => {
  const parent = crypto.randomUUID();
  const { line, seconds } = await lend({ parent_job_id: parent }, () => {});
  assertStringIncludes(line ?? "", `knows nothing of its parent (${parent}) any more`);
  assertEquals(seconds >= 600 && seconds < 700, true, `${seconds} s`);
});

Deno.test("the device is given back when the job's own allocation_timeout is over", async () => {
  const { line, seconds } = await lend({ allocation_timeout: 90 }, () => {});
  assertStringIncludes(line ?? "", "its time is up (allocation_timeout, 90s)");
  assertEquals(seconds >= 90 && seconds < 120, true, `${seconds} s`);
});

Deno.test("a server that asks for time while a device is lent is given it", async () => {
  const asked: number[] = [];
  let now = 0;
  let isBusy = true;
  await lend({}, ({ sandbox }, jobId, seconds) => {
    now = seconds;
    if (seconds === 0) {
      sandbox.intercept((request) => {
        if (!isBusy || request.method !== "GET") return undefined;
        asked.push(now);
        return new Response("later", { status: 503, headers: { "retry-after": "60" } });
      });
    }
    if (seconds === 200) {
      isBusy = false;
      sandbox.cancel(jobId);
    }
  });
  const pauses = asked.slice(1).map((at, index) => at - (asked[index] ?? 0));
  const least = 60 - STEP_MS / 1000;
  assertEquals(pauses.length > 0 && pauses.every((s) => s >= least), true, pauses.join(" "));
});
