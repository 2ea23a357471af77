import { assertEquals, assertRejects } from "@std/assert";
import { plainProgress, type Progress, progressWords, watched } from "../lib/progress.ts";
import { FakeClock } from "./support/fake_clock.ts";

Deno.test("progress is a line every 10 % where the total is known", () => {
  const lines: string[] = [];
  const clock = new FakeClock();
  const progress = plainProgress({ clock, say: (line) => lines.push(line) })
    .begin({ what: "Downloading i.img", total: 50_000_000 });
  for (let bytes = 0; bytes <= 50_000_000; bytes += 1_000_000) progress.at(bytes);
  progress.end();
  assertEquals(lines.length, 10);
  assertEquals(lines[0], "Downloading i.img: 10 % of 50.0 MB");
  assertEquals(lines.at(-1), "Downloading i.img: 100 % of 50.0 MB");
});

Deno.test("progress without a known total is a line every 30 s, and so is one that is slow", async () => {
  for (const total of [undefined, 1_000_000_000]) {
    const lines: string[] = [];
    const clock = new FakeClock();
    const progress = plainProgress({ clock, say: (line) => lines.push(line) })
      .begin({ what: "Downloading i.img", total });
    for (let second = 10; second <= 70; second += 10) {
      await clock.advance(10_000);
      progress.at(second * 100_000);
    }
    assertEquals(
      lines,
      total === undefined
        ? [
          "Downloading i.img: 3.0 MB so far, 0.1 MB/s",
          "Downloading i.img: 6.0 MB so far, 0.1 MB/s",
        ]
        : [
          "Downloading i.img: 0 % of 1000.0 MB, 0.1 MB/s, 2 h 47 min left",
          "Downloading i.img: 0 % of 1000.0 MB, 0.1 MB/s, 2 h 46 min left",
        ],
    );
  }
});

Deno.test("words about progress have per cent, rate and time left, as far as they are known", () => {
  const words = (total: number | undefined, bytes: number, seconds: number) =>
    progressWords({ what: "X", total }, bytes, seconds * 1000);
  assertEquals(words(100e6, 25e6, 5), "X: 25 % of 100.0 MB, 5.0 MB/s, 15 s left");
  assertEquals(words(100e6, 1e6, 10), "X: 1 % of 100.0 MB, 0.1 MB/s, 17 min left");
  assertEquals(words(100e9, 1e9, 100), "X: 1 % of 100000.0 MB, 10.0 MB/s, 2 h 45 min left");
  // A rate of the first moment would be a guess.
  assertEquals(words(100e6, 25e6, 1), "X: 25 % of 100.0 MB");
  assertEquals(words(100e6, 100e6, 10), "X: 100 % of 100.0 MB, 10.0 MB/s");
  assertEquals(words(undefined, 25e6, 5), "X: 25.0 MB so far, 5.0 MB/s");
  assertEquals(words(0, 0, 5), "X: 0.0 MB so far");
});

function recorder(): { progress: Progress; calls: (number | "end")[] } {
  const calls: (number | "end")[] = [];
  return { calls, progress: { at: (bytes) => calls.push(bytes), end: () => calls.push("end") } };
}

Deno.test("a watched stream is the stream as it is, and says how much has passed", async () => {
  const { progress, calls } = recorder();
  const source = ReadableStream.from([new Uint8Array([1, 2]), new Uint8Array([3])]);
  const bytes = await new Response(watched(source, progress)).bytes();
  assertEquals([[...bytes], calls], [[1, 2, 3], [2, 3, "end"]]);
});

Deno.test("a watched stream that fails or is cancelled is over", async () => {
  const failing = recorder();
  const broken = new ReadableStream<Uint8Array>({ pull: () => Promise.reject(new Error("cut")) });
  await assertRejects(
    () => new Response(watched(broken, failing.progress)).bytes(),
    Error,
    "cut",
  );
  assertEquals(failing.calls, ["end"]);
  const dropped = recorder();
  let reason: unknown;
  const source = new ReadableStream<Uint8Array>({ cancel: (why) => void (reason = why) });
  await watched(source, dropped.progress).cancel("enough");
  assertEquals([dropped.calls, reason], [["end"], "enough"]);
});
