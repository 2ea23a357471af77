import { assertEquals, assertStringIncludes } from "@std/assert";
import { createPulse, type Liveness } from "../../lib/observe/liveness.ts";
import { createStatus, type StatusBoard, type StatusEvent } from "../../lib/observe/status.ts";
import { AgentStatus } from "../../lib/observe/status_schema.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { type RecordingLog, recordingLog } from "../support/recording_log.ts";

const START = Date.UTC(2026, 10, 22, 12);
const ok = { status: 0, event: "test_success", seconds: 61, release: "22.04.5" };

interface Made {
  board: StatusBoard;
  clock: FakeClock;
  log: RecordingLog;
  folder: string;
  liveness: Liveness;
}

async function make(folder: string): Promise<Made> {
  const clock = new FakeClock(START);
  const log = recordingLog();
  const liveness = createPulse({ clock, silenceLimitMs: 60_000 });
  const board = await createStatus({
    agentId: "agent-1",
    version: "9.8.7",
    serverAddress: "http://server",
    folder,
    clock,
    log,
    liveness,
  });
  return { board, clock, log, folder, liveness };
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

function runJob({ observer }: StatusBoard, jobId: string, reason = "normal_exit") {
  observer.jobStarted({ jobId, queue: "q" });
  observer.phaseStarted("test", {});
  observer.phaseEnded("test", ok);
  observer.jobEnded({ reason });
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
  withBoard(async ({ board, clock, liveness }) => {
    using _job = liveness.hold("job");
    const { observer } = board;
    observer.mode({ state: "waiting", comment: "" });
    observer.connectivity(true);
    observer.jobStarted({ jobId: "j-1", queue: "q", name: "nightly" });
    observer.phaseSkipped("setup", "no command");
    observer.mode({ state: "provision", comment: "" });
    observer.phaseStarted("provision", { totalMs: 3_600_000 });
    await clock.advance(100_000);
    observer.phaseEnded("provision", { ...ok, event: "provision_success", seconds: 100 });
    observer.phaseStarted("test", { totalMs: 3_600_000, silenceMs: 900_000 });
    await clock.advance(60_000);
    observer.output(new TextEncoder().encode("hello"));
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

Deno.test("a limit that is over shows 0 left and not less", () =>
  withBoard(async ({ board, clock }) => {
    board.observer.jobStarted({ jobId: "j", queue: "q" });
    board.observer.phaseStarted("test", { totalMs: 1000 });
    await clock.advance(5000);
    assertEquals(board.snapshot().job?.limits?.total_left_seconds, 0);
  }));

Deno.test("a mode that is told again keeps its time, a new comment shows", () =>
  withBoard(async ({ board, clock }) => {
    board.observer.mode({ state: "offline", comment: "" });
    await clock.advance(5000);
    board.observer.mode({ state: "offline", comment: "cable" });
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
    withBoard(({ board }) => {
      board.observer.connectivity(true);
      board.observer.mode({ state, comment });
      assertEquals(board.snapshot().ready, false);
      assertEquals(board.snapshot().not_ready_because, expected);
      assertEquals(board.snapshot().healthy, true);
    }));
}

Deno.test("an outage makes it not ready but healthy; a loop that hangs makes it neither", () =>
  withBoard(async ({ board, clock }) => {
    board.observer.mode({ state: "waiting", comment: "" });
    board.observer.connectivity(false, "GET http://server/v1: refused");
    assertStringIncludes(board.snapshot().not_ready_because ?? "", "refused");
    assertEquals(board.snapshot().healthy, true);
    assertEquals(board.snapshot().server.last_failure, "GET http://server/v1: refused");
    board.observer.connectivity(true);
    assertEquals(board.snapshot().ready, true);
    await clock.advance(61_000);
    const status = board.snapshot();
    assertEquals([status.healthy, status.ready], [false, false]);
    assertStringIncludes(status.trouble ?? "", "has not turned for 61 s");
    assertEquals(AgentStatus.parse(status), status);
  }));

Deno.test("the last twenty jobs are kept, newest first, and survive a restart", () =>
  withBoard(async ({ board, folder }) => {
    for (let n = 0; n < 25; n++) runJob(board, `j-${n}`);
    await board.close();
    const again = await make(folder);
    const ids = again.board.snapshot().recent_jobs.map(({ job_id }) => job_id);
    assertEquals(ids, Array.from({ length: 20 }, (_, n) => `j-${24 - n}`));
    assertEquals(again.board.snapshot().recent_jobs, board.snapshot().recent_jobs);
    assertEquals(again.log.lines, []);
    runJob(again.board, "j-25", "cancelled");
    await again.board.close();
    assertEquals(again.board.snapshot().recent_jobs[0]?.reason, "cancelled");
    assertEquals(again.board.snapshot().recent_jobs.length, 20);
  }));

Deno.test("a device that could not be recovered is remembered with its job", () =>
  withBoard(({ board }) => {
    board.observer.jobStarted({ jobId: "j", queue: "q" });
    board.observer.recoveryFailed();
    board.observer.jobEnded({ reason: "provision_fail" });
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
      const { board, log } = await make(folder);
      assertEquals(log.lines.map(({ level }) => level), ["warning"]);
      runJob(board, "j-1");
      await board.close();
      assertEquals((await make(folder)).board.snapshot().recent_jobs.length, 1);
    }));
}

Deno.test("a disk that takes no list of jobs is told once, and the jobs are still shown", () =>
  withBoard(async ({ folder }) => {
    const { board, log } = await make(`${folder}/gone`);
    runJob(board, "j-1");
    await board.close();
    runJob(board, "j-2");
    await board.close();
    assertEquals(log.lines.length, 1);
    assertEquals(board.snapshot().recent_jobs.length, 2);
  }));

Deno.test("a link in place of the list's new file is not followed", () =>
  withBoard(async ({ folder, board }) => {
    Deno.writeTextFileSync(`${folder}/victim`, "precious");
    Deno.symlinkSync(`${folder}/victim`, `${folder}/recent-jobs.json.new`);
    runJob(board, "j-1");
    await board.close();
    assertEquals(Deno.readTextFileSync(`${folder}/victim`), "precious");
    assertEquals(Deno.lstatSync(`${folder}/recent-jobs.json`).isFile, true);
  }));

Deno.test("subscribers hear output and that something is new, until they leave", () =>
  withBoard(({ board }) => {
    const events: StatusEvent["kind"][] = [];
    {
      using _subscription = board.subscribe(({ kind }) => events.push(kind));
      board.observer.mode({ state: "waiting", comment: "" });
      board.observer.mode({ state: "waiting", comment: "" });
      board.observer.connectivity(true);
      board.observer.connectivity(true);
      board.observer.output(new Uint8Array([65]));
      board.observer.undelivered({ bytes: 5, fragments: 1, jobs: 1 });
      board.observer.undelivered({ bytes: 6, fragments: 2, jobs: 1 });
    }
    board.observer.mode({ state: "offline", comment: "" });
    assertEquals(events, ["changed", "changed", "output", "changed"]);
  }));

Deno.test("the log of a job stays until the next job begins, 64 KiB of it", () =>
  withBoard(({ board }) => {
    board.observer.jobStarted({ jobId: "j", queue: "q" });
    board.observer.output(new Uint8Array(10 * 1024 * 1024).fill(0x78));
    board.observer.jobEnded({ reason: "normal_exit" });
    assertEquals(board.tail().length, 65536);
    board.observer.jobStarted({ jobId: "j2", queue: "q" });
    assertEquals(board.tail().length, 0);
  }));

Deno.test("a device that has a novel to tell does not keep the list of jobs from being read again", () =>
  withBoard(async ({ board, folder }) => {
    const novel = "x".repeat(1_000_000);
    for (let n = 0; n < 20; n++) {
      board.observer.jobStarted({ jobId: "j", queue: "q", name: novel });
      board.observer.phaseSkipped("setup", novel);
      board.observer.phaseStarted("test", {});
      board.observer.phaseEnded("test", { ...ok, event: novel, release: novel });
      board.observer.jobEnded({ reason: novel });
    }
    board.observer.connectivity(false, novel);
    await board.close();
    const again = await make(folder);
    assertEquals(again.board.snapshot().recent_jobs.length, 20);
    assertEquals(JSON.stringify(board.snapshot()).length < 100_000, true);
  }));

Deno.test("what is on its way and no phase is told while it is, with how much of it has come", () =>
  withBoard(async ({ board, clock }) => {
    const task = { what: "Fetching the attachments", jobId: "j", total: 100 };
    board.observer.transfer({ ...task, bytes: 0, isOver: false });
    await clock.advance(2000);
    board.observer.transfer({ ...task, bytes: 40, isOver: false });
    const { transfers } = AgentStatus.parse(board.snapshot());
    assertEquals(transfers, [
      { what: "Fetching the attachments", job_id: "j", bytes: 40, total_bytes: 100, seconds: 2 },
    ]);
    board.observer.transfer({ ...task, bytes: 40, isOver: true });
    assertEquals("transfers" in board.snapshot(), false);
  }));
