import { assertEquals } from "@std/assert";
import { followFile } from "../../lib/cli/agents/show_log.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";

async function withFile(test: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(`${folder}/log`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function lastLines(path: string, lines: number): Promise<string> {
  const clock = new FakeClock();
  let text = "";
  for await (const bytes of followFile(path, { lines, follow: false, clock })) {
    text += new TextDecoder().decode(bytes);
  }
  return text;
}

Deno.test("a log's end is so many lines, also when the file is long or its last line unfinished", () =>
  withFile(async (path) => {
    await Deno.writeTextFile(path, "one\ntwo\nthree\n");
    assertEquals(await lastLines(path, 2), "two\nthree\n");
    assertEquals(await lastLines(path, 9), "one\ntwo\nthree\n");
    assertEquals(await lastLines(path, 0), "");
    await Deno.writeTextFile(path, `${"x".repeat(200_000)}\n${"y".repeat(150_000)}\nz`);
    assertEquals((await lastLines(path, 2)).length, 150_002);
    await Deno.writeTextFile(path, "");
    assertEquals(await lastLines(path, 2), "");
  }));

Deno.test("of a file that others write, too, the last lines are those that count, however far back", () =>
  withFile(async (path) => {
    const lines = Array.from(
      { length: 5000 },
      (_, i) => `${i % 1000 === 7 ? "own" : "other"} ${i}`,
    );
    await Deno.writeTextFile(path, lines.map((line) => `${line} ${"x".repeat(40)}\n`).join(""));
    const clock = new FakeClock();
    const counts = (line: string) => line.startsWith("own");
    const shown = async (count: number) => {
      let text = "";
      for await (const bytes of followFile(path, { lines: count, counts, follow: false, clock })) {
        text += new TextDecoder().decode(bytes);
      }
      return text.split("\n").filter(counts).map((line) => line.split(" ")[1]);
    };
    assertEquals(await shown(1), ["4007"]);
    assertEquals(await shown(3), ["2007", "3007", "4007"]);
    assertEquals((await shown(9)).length, 5);
  }));

Deno.test("following goes on into the file that takes the place of a rotated one", () =>
  withFile(async (path) => {
    await Deno.writeTextFile(path, "a\n");
    const clock = new FakeClock();
    const end = new AbortController();
    let text = "";
    const reading = (async () => {
      for await (
        const bytes of followFile(path, { lines: 5, follow: true, clock, signal: end.signal })
      ) text += new TextDecoder().decode(bytes);
    })();
    const until = async (wanted: string) => {
      for (let i = 0; text !== wanted && i < 1000; i++) {
        await clock.advance(250);
        await settle();
      }
      assertEquals(text, wanted);
    };
    await until("a\n");
    await Deno.writeTextFile(path, "b\n", { append: true });
    await until("a\nb\n");
    await Deno.rename(path, `${path}.old`);
    await Deno.writeTextFile(`${path}.old`, "c\n", { append: true });
    await until("a\nb\nc\n");
    await Deno.writeTextFile(path, "d\n");
    await until("a\nb\nc\nd\n");
    await Deno.writeTextFile(path, "");
    await clock.advance(500);
    await Deno.writeTextFile(path, "e\n");
    await until("a\nb\nc\nd\ne\n");
    end.abort();
    await reading;
  }));
