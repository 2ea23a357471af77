/** A piece of a log that was announced while the one before it was on its way. */
import { assert, assertEquals } from "@std/assert";
import { join } from "node:path";
import { Job } from "../../lib/job/job.ts";
import { JobStore } from "../../lib/job/store.ts";
import { Lab } from "../support/lab.ts";
import { recordingLog } from "../support/recording_log.ts";

const PIECES = ["one\n", "two\n"];
const LATER = "three\n";

/** A job that was killed with two pieces of its log announced. */
async function leave(lab: Lab): Promise<string> {
  const jobId = lab.sandbox.submit({ job_queue: "elsewhere" });
  const store = new JobStore(join(lab.config.results_basedir, "agent-agent-1"), recordingLog());
  using outbox = await store.accept(new Job({ job_id: jobId, job_queue: "queue-1" }), [], 0);
  outbox.append({ t: "phase_started", phase: "test" });
  for (const text of [...PIECES, LATER]) {
    await outbox.appendLog("output", "test", new TextEncoder().encode(text));
  }
  const piece = { log: "output", phase: "test" } as const;
  outbox.append({ t: "fragment", ...piece, number: 0, from: 0, to: 4 });
  outbox.append({ t: "fragment_ahead", ...piece, number: 1, from: 4, to: 8 });
  return jobId;
}

async function post(lab: Lab, jobId: string, number: number): Promise<void> {
  const answer = await fetch(`${lab.served.url}/v1/result/${jobId}/log/output`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({
      fragment_number: number,
      timestamp: "2026-01-01T00:00:00+00:00",
      phase: "test",
      log_data: PIECES[number],
    }),
  });
  await answer.body?.cancel();
  assert(answer.ok);
}

for (const [arrived, what] of ["neither", "the first", "both"].entries()) {
  Deno.test(`of two pieces that an agent had announced when it was killed, ${what} had arrived: each is there once`, async () => {
    await using lab = await Lab.open();
    const jobId = await leave(lab);
    for (let number = 0; number < arrived; number++) await post(lab, jobId, number);
    lab.start();
    await lab.complete(jobId);
    const text = lab.sandbox.log(jobId, "output", "test");
    assertEquals(text, `one\ntwo\nthree\nThe agent was interrupted during test\n`);
    const numbers = lab.sandbox.fragments(jobId, "output").map((each) => each.fragment_number);
    assertEquals(numbers, numbers.map((_, index) => index));
  });
}
