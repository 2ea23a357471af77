import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  createLiveEvents,
  type LiveEvents,
  type LogMessage,
  pageFeed,
} from "../../lib/observe/live_events.ts";
import { type Emit, emitterOf } from "../../lib/observe/events.ts";
import { createLiveness } from "../../lib/observe/liveness.ts";
import { createStatus, type StatusBoard, TAIL_BYTES } from "../../lib/observe/status.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

const bytes = (text: string) => new TextEncoder().encode(text);

async function withLive(
  test: (
    made: { board: StatusBoard; emit: Emit; clock: FakeClock; live: LiveEvents },
  ) => Promise<void>,
) {
  const folder = await Deno.makeTempDir();
  const clock = new FakeClock();
  const log = recordingLog();
  const board = await createStatus({
    agentId: "agent-1",
    version: "1",
    serverAddress: "",
    folder,
    clock,
    log,
    liveness: createLiveness({ clock }),
  });
  const live = createLiveEvents({ board, clock });
  try {
    await test({ board, clock, emit: emitterOf("agent-1", { clock, sink: board.sink }), live });
  } finally {
    live.close();
    await Deno.remove(folder, { recursive: true });
  }
}

interface Event {
  event: string;
  data: unknown;
}

/** Reads events as a browser does. */
function reader(stream: ReadableStream<Uint8Array> | undefined) {
  assert(stream !== undefined);
  const lines = stream?.pipeThrough(new TextDecoderStream()).getReader();
  return {
    /** The events of the next piece that comes. */
    async next(): Promise<Event[]> {
      const { value = "" } = await lines?.read() ?? {};
      return value.split("\n\n").filter((part) => part.startsWith("event:")).map((part) => {
        const [, event = "", data = ""] = /^event: (.*)\ndata: (.*)$/.exec(part) ?? [];
        return { event, data: JSON.parse(data) };
      });
    },
    raw: () => lines?.read(),
    cancel: () => lines?.cancel(),
  };
}

Deno.test("who comes late first gets the end of the log, then what is new, ten times a second", () =>
  withLive(async ({ emit, clock, live }) => {
    emit({ type: "output", job: "j", bytes: bytes("before\n") });
    const browser = reader(live.open());
    assertEquals(await browser.next(), [{ event: "tail", data: "before\n" }]);
    for (const letter of "hello") emit({ type: "output", job: "j", bytes: bytes(letter) });
    emit({ type: "mode", state: "test", comment: "" });
    emit({ type: "mode", state: "cleanup", comment: "" });
    const next = browser.next();
    await clock.advance(100);
    assertEquals(await next, [
      { event: "output", data: "hello" },
      { event: "changed", data: {} },
    ]);
  }));

Deno.test("output cannot forge an event, nor end one", () =>
  withLive(async ({ emit, clock, live }) => {
    const browser = reader(live.open());
    await browser.next();
    emit({
      type: "output",
      job: "j",
      bytes: bytes("a\n\nevent: changed\ndata: {}\n\n\r\r<script>\u2028\x1b[2J."),
    });
    const next = browser.next();
    await clock.advance(100);
    assertEquals(await next, [
      { event: "output", data: "a\n\nevent: changed\ndata: {}\n\n\n\n<script>\n␛[2J." },
    ]);
  }));

Deno.test("a new job begins with an empty log", () =>
  withLive(async ({ emit, clock, live }) => {
    emit({ type: "output", job: "j", bytes: bytes("of the last job\n") });
    const browser = reader(live.open());
    await browser.next();
    emit({ type: "output", job: "j", bytes: bytes("its end\n") });
    emit({ type: "job_began", job: "j", queue: "q" });
    emit({ type: "output", job: "j", bytes: bytes("of this job\n") });
    const next = browser.next();
    await clock.advance(100);
    assertEquals(await next, [
      { event: "tail", data: "of this job\n" },
      { event: "changed", data: {} },
    ]);
  }));

Deno.test("a character that was cut in two arrives whole", () =>
  withLive(async ({ emit, clock, live }) => {
    const browser = reader(live.open());
    await browser.next();
    const wrench = bytes("🛠");
    emit({ type: "output", job: "j", bytes: wrench.subarray(0, 2) });
    await clock.advance(100);
    const next = browser.next();
    emit({ type: "output", job: "j", bytes: wrench.subarray(2) });
    await clock.advance(100);
    assertEquals(await next, [{ event: "output", data: "🛠" }]);
  }));

Deno.test("a browser that does not read costs no memory, and gets the end of the log when it does", () =>
  withLive(async ({ emit, clock, live }) => {
    const browser = reader(live.open());
    for (let n = 0; n < 1000; n++) {
      emit({ type: "output", job: "j", bytes: new Uint8Array(10_000).fill(0x61 + n % 26) });
      if (n % 100 === 0) await clock.advance(100);
    }
    await clock.advance(100);
    let last = "";
    let pieces = 0;
    for (; !last.endsWith(String.fromCharCode(0x61 + 999 % 26)); pieces++) {
      for (const { event, data } of await browser.next()) {
        last = event === "tail" ? String(data) : last + data;
      }
    }
    assertEquals(last.length, TAIL_BYTES);
    assert(pieces < 6);
  }));

Deno.test("a connection without events is kept alive, and ends when the browser goes", () =>
  withLive(async ({ emit, clock, live }) => {
    const browser = reader(live.open());
    await browser.next();
    const next = browser.raw();
    await clock.advance(15_000);
    assertStringIncludes((await next)?.value ?? "", ": here");
    await browser.cancel();
    await settle();
    assertEquals(clock.sleepers, 0);
    emit({ type: "output", job: "j", bytes: bytes("nobody hears this") });
    assertEquals(clock.sleepers, 0);
  }));

Deno.test("no more than twenty may watch; when one goes another may come", () =>
  withLive(async ({ live }) => {
    const streams = Array.from({ length: 20 }, () => live.open());
    assert(streams.every((stream) => stream !== undefined));
    assertEquals(live.open(), undefined);
    await streams[0]?.cancel();
    assert(live.open() !== undefined);
  }));

Deno.test("close() ends every stream", () =>
  withLive(async ({ live, clock }) => {
    const browser = reader(live.open());
    await browser.next();
    live.close();
    assertEquals((await browser.raw())?.done, true);
    assertEquals(clock.sleepers, 0);
  }));

Deno.test("a page gets the log in pieces with their colours, the phases that begin, and the serial log", () =>
  withLive(async ({ emit, clock, board }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    emit({ type: "phase_began", job: "j", phase: "provision", limits: {} });
    emit({ type: "output", job: "j", bytes: bytes("before\n") });
    const live = createLiveEvents({ board, clock, feed: pageFeed });
    const browser = reader(live.open());
    assertEquals(await browser.next(), [
      { event: "log", data: { kind: "reset", pieces: [{ phase: "provision" }, "before\n"] } },
      { event: "serial", data: { kind: "reset", pieces: [] } },
    ]);
    emit({ type: "phase_began", job: "j", phase: "test", limits: {} });
    for (const part of ["\x1b[3", "1mred", "\x1b[0m", " pl", "ain"]) {
      emit({ type: "output", job: "j", bytes: bytes(part) });
    }
    emit({ type: "serial", job: "j", bytes: bytes("login:") });
    const next = browser.next();
    await clock.advance(100);
    assertEquals(await next, [
      {
        event: "log",
        data: { kind: "more", pieces: [{ phase: "test" }, ["red", "fg1"], " plain"] },
      },
      { event: "serial", data: { kind: "more", pieces: ["login:"] } },
      { event: "changed", data: {} },
    ]);
    live.close();
  }));

Deno.test("of a log that comes too fast a page gets its end, from a line's beginning, twice a second", () =>
  withLive(async ({ emit, clock, board }) => {
    const live = createLiveEvents({ board, clock, feed: pageFeed });
    const browser = reader(live.open());
    await browser.next();
    const flood = () => {
      for (let n = 0; n < 100; n++) {
        emit({ type: "output", job: "j", bytes: bytes(`line ${n} `.repeat(200) + "\n") });
      }
    };
    flood();
    const first = browser.next();
    await clock.advance(100);
    const [log] = await first;
    const { kind, pieces } = log?.data as LogMessage;
    assertEquals([kind, pieces.length], ["gap", 1]);
    const text = String(pieces[0]);
    assert(text.length <= 65_536);
    assert(/^line \d+ line/.test(text));
    assert(text.endsWith("line 99 \n"));
    flood();
    assertEquals(clock.dues.includes(500), true);
    live.close();
  }));

Deno.test("a page that comes late finds the phases where they are in the end of the log", () =>
  withLive(async ({ emit, clock, board }) => {
    emit({ type: "job_began", job: "j", queue: "q" });
    for (const phase of ["setup", "provision", "test"] as const) {
      emit({ type: "phase_began", job: "j", phase, limits: {} });
      emit({
        type: "output",
        job: "j",
        bytes: bytes(`${phase}\n`.repeat(phase === "provision" ? 40_000 : 1)),
      });
    }
    const live = createLiveEvents({ board, clock, feed: pageFeed });
    const [log] = await reader(live.open()).next();
    const { pieces } = log?.data as LogMessage;
    // What is left of provision begins with its mark; setup is no longer there.
    assertEquals(pieces[0], { phase: "provision" });
    assertEquals(pieces.slice(2), [{ phase: "test" }, "test\n"]);
    live.close();
  }));
