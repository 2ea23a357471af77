import { assertEquals, assertRejects } from "@std/assert";
import { either, unlessAborted, untilAborted, within } from "../lib/wait.ts";
import { FakeClock } from "./support/fake_clock.ts";

Deno.test("either() aborts with the first of its signals, for its reason", () => {
  const [first, second] = [new AbortController(), new AbortController()];
  using both = either(first.signal, undefined, second.signal);
  assertEquals(both.signal.aborted, false);
  second.abort("second");
  first.abort("first");
  assertEquals(both.signal.reason, "second");
  using late = either(new AbortController().signal, first.signal);
  assertEquals(late.signal.reason, "first");
});

Deno.test("either() can be aborted by itself, and leaves its signals as they are", () => {
  const outer = new AbortController();
  using both = either(outer.signal);
  both.abort("enough");
  assertEquals([both.signal.reason, outer.signal.aborted], ["enough", false]);
});

Deno.test("either() hears nothing of its signals once it is disposed of", () => {
  const outer = new AbortController();
  const both = either(outer.signal);
  both[Symbol.dispose]();
  outer.abort();
  assertEquals(both.signal.aborted, false);
});

Deno.test("within() returns what comes in time, and its wait is over then", async () => {
  const clock = new FakeClock();
  assertEquals(await within(Promise.resolve("here"), { clock, ms: 1000 }), "here");
  assertEquals(clock.sleepers, 0);
});

Deno.test("within() returns nothing when the time is over first, and does not mind what comes later", async () => {
  const clock = new FakeClock();
  const thing = Promise.withResolvers<string>();
  const waited = within(thing.promise, { clock, ms: 1000 });
  await clock.advance(1000);
  assertEquals(await waited, undefined);
  thing.reject(new Error("too late to matter"));
});

Deno.test("within() throws what the thing throws, or the signal's reason", async () => {
  const clock = new FakeClock();
  const failing = Promise.reject(new Error("broken"));
  await assertRejects(() => within(failing, { clock, ms: 1000 }), Error, "broken");
  const never = Promise.withResolvers<void>().promise;
  const stop = new AbortController();
  const stopped = within(never, { clock, ms: 1000, signal: stop.signal });
  stop.abort(new Error("stopped"));
  await assertRejects(() => stopped, Error, "stopped");
  assertEquals(clock.sleepers, 0);
});

Deno.test("unlessAborted() throws the signal's reason as soon as it aborts", async () => {
  const stop = new AbortController();
  assertEquals(await unlessAborted(Promise.resolve(1), stop.signal), 1);
  const never = unlessAborted(Promise.withResolvers<void>().promise, stop.signal);
  stop.abort(new Error("stopped"));
  await assertRejects(() => never, Error, "stopped");
});

Deno.test("untilAborted() ends with the thing or the signal, and throws what the thing throws in time", async () => {
  const stop = new AbortController();
  await untilAborted(Promise.resolve(), stop.signal);
  const failing = Promise.reject(new Error("broken"));
  await assertRejects(() => untilAborted(failing, stop.signal), Error, "broken");
  const waits = untilAborted(Promise.withResolvers<void>().promise, stop.signal);
  stop.abort();
  await waits;
});
