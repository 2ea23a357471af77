import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { ImageCache } from "../../connectors/support/image/cache.ts";
import { type Emit, emitterOf } from "../../lib/observe/events.ts";
import { createMetrics, type Metrics } from "../../lib/observe/metrics.ts";
import { FakeClock } from "../support/fake_clock.ts";

const START = Date.UTC(2026, 10, 22, 12);

type Made = Metrics & { emit: Emit };

async function make(agentId = "agent-1"): Promise<Made> {
  const clock = new FakeClock(START);
  const metrics = await createMetrics({ version: "9.8.7", clock });
  metrics.add(agentId, "202011-12345", "");
  return { ...metrics, emit: emitterOf(agentId, { clock, sink: metrics.sink }) };
}

/** The value of a series, named as in the text format. */
async function value(metrics: Metrics, series: string): Promise<number | undefined> {
  const line = (await metrics.text()).split("\n").find((line) => line.startsWith(`${series} `));
  return line === undefined ? undefined : Number(line.slice(series.length + 1));
}

const ended = { status: 0, event: "test_success", seconds: 61, release: "22.04.5" };

Deno.test("the established agent's names, types, labels and buckets are served", async () => {
  const metrics = await make();
  const { emit } = metrics;
  emit({ type: "job_began", job: "j", queue: "q" });
  emit({ type: "phase_ended", job: "j", phase: "test", ...ended, status: 3 });
  emit({ type: "recovery_failed", job: "j" });
  const text = await metrics.text();
  for (
    const line of [
      "# TYPE jobs_total counter",
      'jobs_total{agent_id="agent-1"} 1',
      "# TYPE failures_total counter",
      'failures_total{agent_id="agent-1",test_phase="test"} 1',
      "# TYPE recovery_failures_total counter",
      'recovery_failures_total{agent_id="agent-1"} 1',
      "# TYPE phase_duration_seconds histogram",
    ]
  ) assert(text.split("\n").includes(line), `${line} is not in:\n${text}`);
  const buckets = text.split("\n").filter((line) =>
    line.startsWith("phase_duration_seconds_bucket")
  );
  const labels = 'agent_id="agent-1",test_phase="test",identifier="202011-12345",release="22.04.5"';
  assertEquals(
    buckets,
    ["60", "120", "300", "600", "1800", "3600", "7200", "14400", "+Inf"].map((le, n) =>
      `phase_duration_seconds_bucket{le="${le}",${labels}} ${n === 0 ? 0 : 1}`
    ),
  );
  assertStringIncludes(text, `phase_duration_seconds_sum{${labels}} 61`);
  assertMatch(metrics.contentType, /^text\/plain; version=0\.0\.4/);
});

Deno.test("counters are there with 0 before anything has happened", async () => {
  const metrics = await make();
  for (
    const series of [
      'jobs_total{agent_id="agent-1"}',
      'failures_total{agent_id="agent-1",test_phase="cleanup"}',
      'recovery_failures_total{agent_id="agent-1"}',
      'testflinger_agent_polls_total{agent_id="agent-1"}',
      'testflinger_agent_retries_total{agent_id="agent-1"}',
      'testflinger_agent_log_bytes_total{agent_id="agent-1"}',
      'testflinger_agent_undelivered_bytes{agent_id="agent-1"}',
      'testflinger_agent_undelivered_fragments{agent_id="agent-1"}',
      'testflinger_agent_undelivered_jobs{agent_id="agent-1"}',
      'testflinger_agent_last_contact_timestamp_seconds{agent_id="agent-1"}',
      'testflinger_agent_turned_away{agent_id="agent-1"}',
      'testflinger_agent_server_calls_total{agent_id="agent-1",outcome="failure"}',
      'testflinger_agent_cancellation_latency_seconds_count{agent_id="agent-1"}',
    ]
  ) assertEquals(await value(metrics, series), 0, series);
});

Deno.test("what is told shows up: polls, connectivity, backlog, retries, bytes, cancellation, state", async () => {
  const metrics = await make();
  const { emit } = metrics;
  emit({ type: "polled" });
  emit({ type: "polled" });
  emit({ type: "connectivity", ok: true });
  emit({ type: "connectivity", ok: false, message: "no route" });
  emit({ type: "undelivered", bytes: 10, fragments: 2, jobs: 1 });
  emit({ type: "retried" });
  emit({ type: "output", job: "j", bytes: new Uint8Array(1000) });
  emit({ type: "cancelled", job: "j", latencyMs: 1500 });
  emit({ type: "mode", state: "waiting", comment: "" });
  emit({ type: "mode", state: "provision", comment: "" });
  const expected: Record<string, number | undefined> = {
    'testflinger_agent_polls_total{agent_id="agent-1"}': 2,
    'testflinger_agent_server_calls_total{agent_id="agent-1",outcome="success"}': 1,
    'testflinger_agent_server_calls_total{agent_id="agent-1",outcome="failure"}': 1,
    'testflinger_agent_last_contact_timestamp_seconds{agent_id="agent-1"}': START / 1000,
    'testflinger_agent_undelivered_bytes{agent_id="agent-1"}': 10,
    'testflinger_agent_undelivered_fragments{agent_id="agent-1"}': 2,
    'testflinger_agent_undelivered_jobs{agent_id="agent-1"}': 1,
    'testflinger_agent_retries_total{agent_id="agent-1"}': 1,
    'testflinger_agent_log_bytes_total{agent_id="agent-1"}': 1000,
    'testflinger_agent_cancellation_latency_seconds_sum{agent_id="agent-1"}': 1.5,
    'testflinger_agent_state{agent_id="agent-1",state="provision"}': 1,
    'testflinger_agent_state{agent_id="agent-1",state="waiting"}': undefined,
    'testflinger_agent_info{agent_id="agent-1",version="9.8.7"}': 1,
  };
  for (const [series, number] of Object.entries(expected)) {
    assertEquals(await value(metrics, series), number, series);
  }
});

Deno.test("memory and start time of the process are served", async () => {
  const metrics = await make();
  assert((await value(metrics, "process_resident_memory_bytes") ?? 0) > 1_000_000);
  assert((await value(metrics, "process_start_time_seconds") ?? 0) > 1_600_000_000);
});

Deno.test("two agents of one process count apart, and one that is gone leaves nothing", async () => {
  const metrics = await make("a");
  metrics.add("b", "", "");
  const clock = new FakeClock(START);
  const ofB = emitterOf("b", { clock, sink: metrics.sink });
  metrics.emit({ type: "job_began", job: "j", queue: "q" });
  metrics.emit({ type: "mode", state: "test", comment: "" });
  metrics.emit({ type: "phase_ended", job: "j", phase: "test", ...ended });
  ofB({ type: "mode", state: "waiting", comment: "" });
  ofB({ type: "mode", state: "offline", comment: "" });
  assertEquals(await value(metrics, 'jobs_total{agent_id="a"}'), 1);
  assertEquals(await value(metrics, 'jobs_total{agent_id="b"}'), 0);
  // The neighbour's state does not reset it.
  assertEquals(await value(metrics, 'testflinger_agent_state{agent_id="a",state="test"}'), 1);
  assertEquals(
    await value(metrics, 'testflinger_agent_state{agent_id="b",state="waiting"}'),
    undefined,
  );
  await metrics.remove("a");
  const text = await metrics.text();
  assertEquals(text.includes('agent_id="a"'), false, text);
  assertEquals(await value(metrics, 'testflinger_agent_state{agent_id="b",state="offline"}'), 1);
});

Deno.test("an agent that begins again in its process goes on counting where it was", async () => {
  const metrics = await make();
  const { emit } = metrics;
  emit({ type: "job_began", job: "j", queue: "q" });
  emit({ type: "connectivity", ok: true });
  emit({ type: "access", problem: "no role" });
  emit({ type: "cancelled", job: "j", latencyMs: 700 });
  metrics.add("agent-1", "202011-12345", "");
  const now = (name: string) => value(metrics, `${name}{agent_id="agent-1"}`);
  assertEquals(await now("jobs_total"), 1);
  assertEquals(await now("testflinger_agent_cancellation_latency_seconds_count"), 1);
  assertEquals(await now("testflinger_agent_last_contact_timestamp_seconds"), START / 1000);
  // What its new life has not met yet.
  assertEquals(await now("testflinger_agent_turned_away"), 0);
});

Deno.test("an agent that comes back while its series are taken away has them", async () => {
  const metrics = await make();
  const gone = metrics.remove("agent-1");
  metrics.add("agent-1", "", "");
  await gone;
  assertEquals(await value(metrics, 'jobs_total{agent_id="agent-1"}'), 0);
});

Deno.test("a device that names its release with quotes and new lines breaks no line", async () => {
  const metrics = await make();
  const { emit } = metrics;
  emit({ type: "phase_ended", job: "j", phase: "provision", ...ended, release: 'x"\n\\y' });
  assertStringIncludes(await metrics.text(), 'release="x\\"\\n\\\\y"');
});

Deno.test("devices that name a new release each time do not fill the memory", async () => {
  const metrics = await make();
  const { emit } = metrics;
  for (let n = 0; n < 500; n++) {
    emit({
      type: "phase_ended",
      job: "j",
      phase: "provision",
      ...ended,
      release: `${n}-${"x".repeat(1000)}`,
    });
  }
  const text = await metrics.text();
  const counts = text.split("\n").filter((line) => line.startsWith("phase_duration_seconds_count"));
  assertEquals(counts.length, 101);
  assertMatch(counts.at(-1) ?? "", /release="other"} 400$/);
  assertEquals(counts.every((line) => line.length < 250), true);
});

Deno.test({
  name: "Prometheus' own checker finds nothing wrong with the metrics",
  ignore: !(await isInstalled("promtool")),
  fn: async () => {
    const metrics = await make();
    const { emit } = metrics;
    emit({ type: "mode", state: "waiting", comment: "" });
    emit({ type: "phase_ended", job: "j", phase: "test", ...ended });
    const promtool = new Deno.Command("promtool", {
      args: ["check", "metrics"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    const writer = promtool.stdin.getWriter();
    await writer.write(new TextEncoder().encode(await metrics.text()));
    await writer.close();
    const { success, stdout, stderr } = await promtool.output();
    const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
    assertEquals([success, said], [true, ""]);
  },
});

async function isInstalled(program: string): Promise<boolean> {
  try {
    return (await new Deno.Command(program, { args: ["--version"] }).output()).success;
  } catch {
    return false;
  }
}

Deno.test("hits and saved bytes of an image cache are counted once, though agents share it", async () => {
  const root = await Deno.makeTempDir({ prefix: "caches-" });
  try {
    const folder = `${root}/images`;
    const opened = await ImageCache.open(folder, { maxBytes: 1e9, minFreeBytes: 0 });
    if (!opened.ok) throw new Error(opened.why);
    const metrics = await make();
    for (const agent of ["a", "b"]) metrics.add(agent, "", folder);
    metrics.add("c", "", `${root}/none`);
    const counts = async (place: string) =>
      await Promise.all(
        ["hits", "misses", "saved_bytes"].map((name) =>
          value(metrics, `testflinger_agent_image_cache_${name}_total{folder="${place}"}`)
        ),
      );
    assertEquals(await counts(folder), [0, 0, 0]);
    await opened.cache.count("miss", 0);
    await opened.cache.count("hit", 700);
    await opened.cache.count("hit", 700);
    assertEquals(await counts(folder), [2, 1, 1400]);
    assertEquals(await counts(`${root}/none`), [0, 0, 0]);
    for (const agent of ["a", "b"]) await metrics.remove(agent);
    assertEquals(await counts(folder), [undefined, undefined, undefined]);
    // Nobody waits for what a job has put there.
    await Deno.mkdir(`${root}/none`);
    await new Deno.Command("mkfifo", { args: [`${root}/none/statistics.json`] }).output();
    assertEquals(await counts(`${root}/none`), [0, 0, 0]);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("jobs that have ended are counted by how, and free space is what it was last", async () => {
  const metrics = await make();
  const ends = [
    ["normal_exit", undefined, false, "passed"],
    ["normal_exit", "test", false, "failed"],
    ["normal_exit", "test", true, "timeout"],
    ["provision_fail", "provision", false, "failed"],
    ["provision_fail", "provision", true, "timeout"],
    ["cancelled", "test", false, "cancelled"],
    ["stopped", undefined, false, "stopped"],
  ] as const;
  const series = (outcome: string) =>
    `testflinger_agent_jobs_ended_total{agent_id="agent-1",outcome="${outcome}"}`;
  for (const [reason, failed, timedOut, outcome] of ends) {
    const before = await value(metrics, series(outcome)) ?? NaN;
    metrics.emit({ type: "job_ended", job: "j", reason, failed, timedOut });
    assertEquals(await value(metrics, series(outcome)), before + 1, reason);
  }
  metrics.emit({ type: "free_space", bytes: 5 });
  metrics.emit({ type: "free_space", bytes: 3 });
  assertEquals(await value(metrics, 'testflinger_agent_free_bytes{agent_id="agent-1"}'), 3);
});
