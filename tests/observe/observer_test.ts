import { assertEquals } from "@std/assert";
import { combineObservers, noObserver, type Observer } from "../../lib/observe/observer.ts";
import { recordingLog } from "../support/recording_log.ts";

/** An observer that writes down the name and the arguments of every call. */
function recorder(): { observer: Observer; calls: [string, ...unknown[]][] } {
  const calls: [string, ...unknown[]][] = [];
  const note = (name: string) => (...args: unknown[]) => void calls.push([name, ...args]);
  return {
    calls,
    observer: {
      mode: note("mode"),
      recovering: note("recovering"),
      jobStarted: note("jobStarted"),
      phaseStarted: note("phaseStarted"),
      phaseSkipped: note("phaseSkipped"),
      phaseEnded: note("phaseEnded"),
      jobEnded: note("jobEnded"),
      recoveryFailed: note("recoveryFailed"),
      output: note("output"),
      transfer: note("transfer"),
      polled: note("polled"),
      connectivity: note("connectivity"),
      access: note("access"),
      retried: note("retried"),
      undelivered: note("undelivered"),
      cancelled: note("cancelled"),
    },
  };
}

/** Says one of everything; returns what was said, in order. */
function sayEverything(observer: Observer): [string, ...unknown[]][] {
  const bytes = new Uint8Array([1, 2]);
  const ended = { status: 1, event: "test_fail", seconds: 3, release: "22.04.5" };
  observer.mode({ state: "waiting", comment: "" });
  observer.recovering("i");
  observer.jobStarted({ jobId: "j", queue: "q" });
  observer.phaseStarted("test", { totalMs: 5 });
  observer.phaseSkipped("reserve", "no data");
  observer.phaseEnded("test", ended);
  observer.jobEnded({ reason: "normal_exit" });
  observer.recoveryFailed();
  observer.output(bytes);
  observer.transfer({ what: "Fetching", jobId: "j", bytes: 1, isOver: false });
  observer.polled();
  observer.connectivity(false, "no route");
  observer.retried();
  observer.undelivered({ bytes: 1, fragments: 2, jobs: 3 });
  observer.cancelled(12);
  return [
    ["mode", { state: "waiting", comment: "" }],
    ["recovering", "i"],
    ["jobStarted", { jobId: "j", queue: "q" }],
    ["phaseStarted", "test", { totalMs: 5 }],
    ["phaseSkipped", "reserve", "no data"],
    ["phaseEnded", "test", ended],
    ["jobEnded", { reason: "normal_exit" }],
    ["recoveryFailed"],
    ["output", bytes],
    ["transfer", { what: "Fetching", jobId: "j", bytes: 1, isOver: false }],
    ["polled"],
    ["connectivity", false, "no route"],
    ["retried"],
    ["undelivered", { bytes: 1, fragments: 2, jobs: 3 }],
    ["cancelled", 12],
  ];
}

Deno.test("every listener hears everything, in order", () => {
  const one = recorder();
  const two = recorder();
  const said = sayEverything(combineObservers([one.observer, noObserver, two.observer]));
  assertEquals(one.calls, said);
  assertEquals(two.calls, said);
});

Deno.test("a listener that fails disturbs neither the others nor the agent, and is reported once", () => {
  const log = recordingLog();
  const good = recorder();
  const bad: Observer = {
    ...noObserver,
    polled() {
      throw new Error("broken gauge");
    },
    retried() {
      throw new Error("broken again");
    },
  };
  const said = sayEverything(combineObservers([bad, good.observer], log));
  assertEquals(good.calls, said);
  assertEquals(log.lines.length, 1);
  assertEquals(log.lines[0]?.level, "error");
  assertEquals(String(log.lines[0]?.fields.error).includes("broken gauge"), true);
});
