import { requestWords } from "../../lib/observe/words.ts";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { type Emit, emitterOf } from "../../lib/observe/events.ts";
import { createLiveness, type Liveness } from "../../lib/observe/liveness.ts";
import { createStatus, type StatusBoard, type StatusEvent } from "../../lib/observe/status.ts";
import { AgentStatus } from "../../lib/observe/status_schema.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type RecordingLog, recordingLog } from "../support/recording_log.ts";

const START = Date.UTC(2026, 10, 22, 12);
const ok = { status: 0, event: "test_success", seconds: 61, release: "22.04.5" };

interface Made {
  board: StatusBoard;
  emit: Emit;
  clock: FakeClock;
  log: RecordingLog;
  folder: string;
  liveness: Liveness;
}

async function make(folder: string): Promise<Made> {
  const clock = new FakeClock(START);
  const log = recordingLog();
  const liveness = createLiveness({ clock, silenceLimitMs: 60_000 });
  const board = await createStatus({
    agentId: "agent-1",
    version: "9.8.7",
    serverAddress: "http://server",
    folder,
    clock,
    log,
    liveness,
  });
  const emit = emitterOf("agent-1", { clock, sink: board.sink });
  return { board, clock, emit, log, folder, liveness };
}

async function withBoard(test: (made: Made) => void | Promise<void>) {
  const folder = await Deno.makeTempDir();
  try {
    const made = await make(folder);
    await test(made);
    await made.board.close();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function runJob(emit: Emit, jobId: string, reason = "normal_exit") {
  emit({ type: "job_began", job: jobId, queue: "q" });
  emit({ type: "phase_began", job: "j", phase: "test", limits: {} });
  emit({ type: "phase_ended", job: "j", phase: "test", ...ok });
  emit({ type: "job_ended", job: "j", reason });
}

Deno.test("before it has begun an agent is healthy and not ready", () =>
  withBoard(({ board }) => {
    const status = board.snapshot();
    assertEquals(status.healthy, true);
    assertEquals(status.ready, false);
    assertEquals(status.mode, undefined);
    assertEquals(AgentStatus.parse(status), status);
    // Commands ask agents of other versions, too.
    assertEquals(AgentStatus.parse({ ...status, of_a_later_version: 1 }), status);
  }));

Deno.test("a job shows its phases, and what is left of the limits on the running one", () =>
  withBoard(async ({ emit, board, clock, liveness }) => {
    using _job = liveness.hold("job");
    emit({ type: "mode", state: "waiting", comment: "" });
    emit({ type: "connectivity", ok: true });
    emit({ type: "job_began", job: "j-1", queue: "q", name: "nightly" });
    emit({ type: "phase_skipped", job: "j", phase: "setup", reason: "no command" });
    emit({ type: "mode", state: "provision", comment: "" });
    emit({ type: "phase_began", job: "j", phase: "provision", limits: { totalMs: 3_600_000 } });
    await clock.advance(100_000);
    emit({
      type: "phase_ended",
      job: "j",
      phase: "provision",
      ...ok,
      event: "provision_success",
      seconds: 100,
    });
    emit({
      type: "phase_began",
      job: "j",
      phase: "test",
      limits: { totalMs: 3_600_000, silenceMs: 900_000 },
    });
    await clock.advance(60_000);
    emit({ type: "output", job: "j", phase: "test", bytes: new TextEncoder().encode("hello") });
    await clock.advance(40_000);
    const status = board.snapshot();
    assertEquals(AgentStatus.parse(status), status);
    assertEquals(status.ready, true);
    assertEquals(status.job, {
      job_id: "j-1",
      queue: "q",
      name: "nightly",
      started_at: "2026-11-22T12:00:00.000Z",
      recovery_failed: false,
      phases: [
        { phase: "setup", state: "skipped", reason: "no command" },
        {
          phase: "provision",
          state: "ended",
          started_at: "2026-11-22T12:00:00.000Z",
          status: 0,
          event: "provision_success",
          seconds: 100,
          release: "22.04.5",
        },
        {
          phase: "test",
          state: "running",
          started_at: "2026-11-22T12:01:40.000Z",
          seconds: 100,
        },
      ],
      limits: {
        total_seconds: 3600,
        total_left_seconds: 3500,
        silence_seconds: 900,
        silence_left_seconds: 860,
      },
    });
    assertEquals(new TextDecoder().decode(board.tail()), "hello");
  }));

Deno.test("the place of a phase in the log is before its banner, which comes before it begins", () =>
  withBoard(({ emit, board }) => {
    const bytes = new TextEncoder().encode("banner\n");
    emit({ type: "job_began", job: "j", queue: "q" });
    for (const phase of ["test", "cleanup"] as const) {
      emit({ type: "output", job: "j", phase, bytes });
      emit({ type: "phase_began", job: "j", phase, limits: {} });
      emit({ type: "output", job: "j", phase, bytes });
    }
    assertEquals(board.marks(), [{ phase: "test", at: 0 }, { phase: "cleanup", at: 14 }]);
    return Promise.resolve();
  }));

Deno.test("a limit that is over shows 0 left and not less", () =>
  withBoard(async ({ emit, board, clock }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    emit({ type: "phase_began", job: "j", phase: "test", limits: { totalMs: 1000 } });
    await clock.advance(5000);
    assertEquals(board.snapshot().job?.limits?.total_left_seconds, 0);
  }));

Deno.test("a mode that is told again keeps its time, a new comment shows", () =>
  withBoard(async ({ emit, board, clock }) => {
    emit({ type: "mode", state: "offline", comment: "" });
    await clock.advance(5000);
    emit({ type: "mode", state: "offline", comment: "cable" });
    assertEquals(board.snapshot().mode, {
      state: "offline",
      comment: "cable",
      since: "2026-11-22T12:00:00.000Z",
    });
  }));

for (
  const [state, comment, expected] of [
    ["offline", "cable broken", "the agent is offline: cable broken"],
    ["maintenance", "", "the agent is in maintenance"],
    ["restart", "", "the agent is about to restart"],
    ["stopping", "Agent stopped", "the agent is stopping: Agent stopped"],
  ] as const
) {
  Deno.test(`an agent that is ${state} is not ready, and says why`, () =>
    withBoard(({ emit, board }) => {
      emit({ type: "connectivity", ok: true });
      emit({ type: "mode", state, comment });
      assertEquals(board.snapshot().ready, false);
      assertEquals(board.snapshot().not_ready_because, expected);
      assertEquals(board.snapshot().healthy, true);
    }));
}

Deno.test("an outage makes it not ready but healthy; a loop that hangs makes it neither", () =>
  withBoard(async ({ emit, board, clock }) => {
    emit({ type: "mode", state: "waiting", comment: "" });
    emit({ type: "connectivity", ok: false, message: "GET http://server/v1: refused" });
    assertStringIncludes(board.snapshot().not_ready_because ?? "", "refused");
    assertEquals(board.snapshot().healthy, true);
    assertEquals(board.snapshot().server.last_failure, "GET http://server/v1: refused");
    emit({ type: "connectivity", ok: true });
    assertEquals(board.snapshot().ready, true);
    await clock.advance(61_000);
    const status = board.snapshot();
    assertEquals([status.healthy, status.ready], [false, false]);
    assertStringIncludes(status.trouble ?? "", "has not turned for 61 s");
    assertEquals(AgentStatus.parse(status), status);
  }));

Deno.test("the last twenty jobs are kept, newest first, and survive a restart", () =>
  withBoard(async ({ emit, board, folder }) => {
    for (let n = 0; n < 25; n++) runJob(emit, `j-${n}`);
    await board.close();
    const again = await make(folder);
    const ids = again.board.snapshot().recent_jobs.map(({ job_id }) => job_id);
    assertEquals(ids, Array.from({ length: 20 }, (_, n) => `j-${24 - n}`));
    assertEquals(again.board.snapshot().recent_jobs, board.snapshot().recent_jobs);
    assertEquals(again.log.lines, []);
    runJob(again.emit, "j-25", "cancelled");
    await again.board.close();
    assertEquals(again.board.snapshot().recent_jobs[0]?.reason, "cancelled");
    assertEquals(again.board.snapshot().recent_jobs.length, 20);
  }));

Deno.test("a device that could not be recovered is remembered with its job", () =>
  withBoard(({ emit, board }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    emit({ type: "recovery_failed", job: "j" });
    emit({ type: "job_ended", job: "j", reason: "provision_fail" });
    assertEquals(board.snapshot().recent_jobs[0]?.recovery_failed, true);
  }));

for (
  const [what, text] of Object.entries({
    "is not JSON": "{",
    "is of another version": '{"version": 2, "jobs": []}',
    "holds something else": '{"version": 1, "jobs": [{"job_id": 1}]}',
    "is far too large": " ".repeat(2_000_000),
  })
) {
  Deno.test(`a list of recent jobs that ${what} is told, and replaced by the next job`, () =>
    withBoard(async ({ folder }) => {
      Deno.writeTextFileSync(`${folder}/recent-jobs.json`, text);
      const { board, emit, log } = await make(folder);
      assertEquals(log.lines.map(({ level }) => level), ["warning"]);
      runJob(emit, "j-1");
      await board.close();
      assertEquals((await make(folder)).board.snapshot().recent_jobs.length, 1);
    }));
}

Deno.test("a disk that takes no list of jobs is told once, and the jobs are still shown", () =>
  withBoard(async ({ folder }) => {
    const { board, emit, log } = await make(`${folder}/gone`);
    runJob(emit, "j-1");
    await board.close();
    runJob(emit, "j-2");
    await board.close();
    assertEquals(log.lines.length, 1);
    assertEquals(board.snapshot().recent_jobs.length, 2);
  }));

Deno.test("a link in place of the list's new file is not followed", () =>
  withBoard(async ({ emit, folder, board }) => {
    Deno.writeTextFileSync(`${folder}/victim`, "precious");
    Deno.symlinkSync(`${folder}/victim`, `${folder}/recent-jobs.json.new`);
    runJob(emit, "j-1");
    await board.close();
    assertEquals(Deno.readTextFileSync(`${folder}/victim`), "precious");
    assertEquals(Deno.lstatSync(`${folder}/recent-jobs.json`).isFile, true);
  }));

Deno.test("subscribers hear output and that something is new, until they leave", () =>
  withBoard(({ emit, board }) => {
    const events: StatusEvent["kind"][] = [];
    {
      using _subscription = board.subscribe(({ kind }) => events.push(kind));
      emit({ type: "mode", state: "waiting", comment: "" });
      emit({ type: "mode", state: "waiting", comment: "" });
      emit({ type: "connectivity", ok: true });
      emit({ type: "connectivity", ok: true });
      emit({ type: "output", job: "j", bytes: new Uint8Array([65]) });
      emit({ type: "undelivered", bytes: 5, fragments: 1, jobs: 1 });
      emit({ type: "undelivered", bytes: 6, fragments: 2, jobs: 1 });
    }
    emit({ type: "mode", state: "offline", comment: "" });
    assertEquals(events, ["changed", "changed", "output", "changed"]);
  }));

Deno.test("the log of a job stays until the next job begins, 256 KiB of it", () =>
  withBoard(({ emit, board }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    emit({ type: "output", job: "j", bytes: new Uint8Array(10 * 1024 * 1024).fill(0x78) });
    emit({ type: "job_ended", job: "j", reason: "normal_exit" });
    assertEquals(board.tail().length, 262_144);
    emit({ type: "job_began", job: "j2", queue: "q" });
    assertEquals(board.tail().length, 0);
  }));

Deno.test("a device that has a novel to tell does not keep the list of jobs from being read again", () =>
  withBoard(async ({ emit, board, folder }) => {
    const novel = "x".repeat(1_000_000);
    for (let n = 0; n < 20; n++) {
      emit({ type: "job_began", job: "j", queue: "q", name: novel });
      emit({ type: "phase_skipped", job: "j", phase: "setup", reason: novel });
      emit({ type: "phase_began", job: "j", phase: "test", limits: {} });
      emit({ type: "phase_ended", job: "j", phase: "test", ...ok, event: novel, release: novel });
      emit({ type: "job_ended", job: "j", reason: novel });
    }
    emit({ type: "connectivity", ok: false, message: novel });
    await board.close();
    const again = await make(folder);
    assertEquals(again.board.snapshot().recent_jobs.length, 20);
    assertEquals(JSON.stringify(board.snapshot()).length < 100_000, true);
  }));

Deno.test("what is on its way and no phase is told while it is, with how much of it has come", () =>
  withBoard(async ({ emit, board, clock }) => {
    const task = { what: "Fetching the attachments", job: "j", total: 100 };
    emit({ type: "transfer", ...task, bytes: 0, isOver: false });
    await clock.advance(2000);
    emit({ type: "transfer", ...task, bytes: 40, isOver: false });
    const { transfers } = AgentStatus.parse(board.snapshot());
    assertEquals(transfers, [
      { what: "Fetching the attachments", job_id: "j", bytes: 40, total_bytes: 100, seconds: 2 },
    ]);
    emit({ type: "transfer", ...task, bytes: 40, isOver: true });
    assertEquals("transfers" in board.snapshot(), false);
  }));

Deno.test("what was asked waits until it is so, and is said in words", () =>
  withBoard(({ emit, board }) => {
    emit({ type: "mode", state: "test", comment: "" });
    emit({
      type: "requests",
      offline: { comment: "new\ncard", by: "on this host" },
      restart: { comment: "", by: "on the server" },
    });
    assertEquals(requestWords(board.snapshot().requests), [
      "goes offline: new card (asked on this host)",
      "restarts (asked on the server)",
    ]);
    emit({ type: "mode", state: "offline", comment: "new card" });
    assertEquals(Object.keys(board.snapshot().requests ?? {}), ["restart"]);
    emit({ type: "requests" });
    assertEquals(board.snapshot().requests, undefined);
  }));
