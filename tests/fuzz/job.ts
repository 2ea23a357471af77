import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { phaseEnvironment } from "../../lib/job/environment.ts";
import { Job } from "../../lib/job/job.ts";
import { prepareSecrets } from "../../lib/job/secrets.ts";
import { AgentConfig } from "../../lib/config/agent_config.ts";
import { PHASES } from "../../lib/phases.ts";
import { isJobId, readJob } from "../../lib/server/answers.ts";
import { anyBytes, deepJson, mutated, oddJson } from "./inputs.ts";
import { type FuzzTarget, plainTarget } from "./target.ts";

const config = AgentConfig.parse({
  agent_id: "a",
  server_address: "http://127.0.0.1",
  job_queues: ["q"],
});

const JOB_ID = "11111111-2222-4333-8444-555555555555";

const VALID = JSON.stringify({
  job_id: JOB_ID,
  job_queue: "rpi4",
  name: "é",
  parent_job_id: "22222222-2222-4333-8444-555555555555",
  job_status_webhook: "http://example.com/hook",
  global_timeout: 3600,
  output_timeout: "60",
  attachments_status: "complete",
  provision_data: { url: "http://example.com/image.xz", attachments: [{ local: "a" }] },
  test_data: { test_cmds: "true\n", secrets: { KEY: "sesame" }, attachments: [{ local: "b" }] },
  reserve_data: { ssh_keys: ["lp:me"], timeout: 60, skip: false },
});

const WORDS = [
  ...["job_id", "job_queue", "name", "parent_job_id", "job_status_webhook", "global_timeout"],
  ...["output_timeout", "attachments_status", "complete", "secrets", "skip", "attachments"],
  ...["test_username", "TESTFLINGER_JOB_ID", "A=B", "\0", "PATH", JOB_ID],
  ...PHASES.map((phase) => `${phase}_data`),
];

const withId = oddJson(WORDS).map((value) => ({ ...Object(value), job_id: JOB_ID }));
const withData = fc.record({
  job_id: fc.constant(JOB_ID),
  global_timeout: oddJson(WORDS),
  test_data: fc.record({ secrets: oddJson(WORDS), skip: oddJson(WORDS) }, { requiredKeys: [] }),
  provision_data: oddJson(WORDS),
  attachments_status: fc.constant("complete"),
});

const body = fc.oneof(
  { weight: 4, arbitrary: anyBytes },
  { weight: 8, arbitrary: mutated(VALID) },
  { weight: 8, arbitrary: oddJson(WORDS).map((value) => JSON.stringify(value)) },
  { weight: 16, arbitrary: fc.oneof(withId, withData).map((value) => JSON.stringify(value)) },
  { weight: 1, arbitrary: deepJson.map((deep) => `{"job_id":"${JOB_ID}","test_data":${deep}}`) },
);

/** Any answer to the question for a job is a job, none, a broken one, or a failure. */
export const jobs: FuzzTarget = plainTarget(
  "jobs",
  fc.property(body, (content) => {
    const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
    const offer = readJob({ what: "GET /v1/job", bytes });
    if (!offer.ok) {
      assert(!/[\p{Cc}]/u.test(offer.message), offer.message);
    } else if (offer.value.kind === "broken") {
      assert(isJobId(offer.value.jobId));
      checkJob({ job_id: offer.value.jobId, job_queue: "" });
    } else if (offer.value.kind === "job") {
      checkJob(offer.value.job);
    }
  }),
);

/** Whatever is in it, the job can be asked all that is asked of one. */
function checkJob(received: Record<string, unknown>): void {
  const before = JSON.stringify(received);
  const job = new Job(received);
  assert(/^[0-9a-f-]{36}$/.test(job.jobId), job.jobId);
  const { masks, refusal } = prepareSecrets(job);
  assert(refusal === undefined || !/[\p{Cc}]/u.test(refusal), refusal);
  for (let round = 0; round < 2; round++) {
    for (const phase of PHASES) {
      job.reasonToSkip(phase);
      const { env } = phaseEnvironment({ jobId: job.jobId, secrets: job.secrets(phase), config });
      assertEquals(env.TESTFLINGER_JOB_ID, job.jobId);
      for (const [name, value] of Object.entries(env)) {
        assert(!/[=\0]/.test(name) && name !== "" && !value.includes("\0"), name);
      }
    }
    for (const seconds of [job.globalTimeout(undefined), job.outputTimeout(60)]) {
      assert(seconds >= 0 && seconds <= 14_400, `${seconds}`);
    }
    assert(typeof job.testUsername === "string");
    masks.redactText(job.name ?? "");
    job.dropAttachments();
  }
  // The file for device connectors keeps everything.
  assertEquals(JSON.stringify(job.received), before);
}
