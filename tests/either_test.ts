import { assertEquals } from "@std/assert";
import { either } from "../lib/either.ts";

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
