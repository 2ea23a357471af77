import { assert, assertEquals } from "@std/assert";
import { Backoff } from "../lib/backoff.ts";

Deno.test("the upper bound of the wait doubles up to 180 s and starts again after a success", () => {
  const backoff = new Backoff({ random: () => 1 });
  const waits = Array.from({ length: 10 }, () => backoff.next());
  assertEquals(waits, [1, 2, 4, 8, 16, 32, 64, 128, 180, 180].map((s) => s * 1000));
  backoff.reset();
  assertEquals(backoff.next(), 1000);
});

Deno.test("the wait is anywhere between nothing and the bound, so that agents do not come back together", () => {
  const numbers = [0, 0.25, 0.999];
  const backoff = new Backoff({ baseMs: 8000, random: () => numbers.shift() ?? 0 });
  assertEquals([backoff.next(), backoff.next(), backoff.next()], [0, 4000, 31968]);
});

Deno.test("a wait that the server asks for is kept, even beyond the cap", () => {
  const backoff = new Backoff({ random: () => 0.5 });
  assertEquals(backoff.next(7000), 7000);
  assertEquals(backoff.next(600_000), 600_000);
  assertEquals(backoff.next(0), 2000);
});

Deno.test("a thousand failures do not overflow the wait", () => {
  const backoff = new Backoff({ random: () => 1 });
  for (let i = 0; i < 1000; i++) assert(backoff.next() <= 180_000);
  assertEquals(backoff.next(), 180_000);
});
