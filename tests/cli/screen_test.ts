// deno-lint-ignore-file no-control-regex -- control characters are what this file is about
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Screen } from "../../lib/cli/screen.ts";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { FakeClock } from "../support/fake_clock.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const PATIENCE_MS = 60_000;

/** A screen on a terminal of that width, or on none; what it wrote, both streams in order. */
function screen(columns: number | undefined, sharesTerminal = columns !== undefined) {
  const clock = new FakeClock();
  const written: string[] = [];
  const write = (text: string) => void written.push(text);
  const made = new Screen({
    stdout: write,
    stderr: write,
    clock,
    columns: columns === undefined ? undefined : () => columns,
    sharesTerminal,
  });
  return { screen: made, clock, take: () => written.splice(0).join("") };
}

const ERASE = "\r\x1b[K";

Deno.test("on a terminal the line is painted over, at most ten times a second", async () => {
  const { screen: s, clock, take } = screen(80);
  s.now("one");
  s.now("two");
  await clock.advance(99);
  s.now("three");
  assertEquals(take(), `${ERASE}one`);
  await clock.advance(1);
  s.now("four");
  assertEquals(take(), `${ERASE}four`);
});

Deno.test("output comes where the line was, whole, and the line comes again below it", async () => {
  const { screen: s, clock, take } = screen(80);
  s.now("working");
  await clock.advance(100);
  take();
  s.out("job output\n");
  assertEquals(take(), `${ERASE}job output\n${ERASE}working`);
  // In the middle of somebody's line there is no room for ours.
  await clock.advance(100);
  s.out("50 %... ");
  await clock.advance(100);
  s.now("working still");
  assertEquals(take(), `${ERASE}50 %... `);
  s.out("done\n");
  assertEquals(take(), `done\n${ERASE}working still`);
  s.clear();
  assertEquals(take(), ERASE);
  s.clear();
  assertEquals(take(), "");
});

Deno.test("a line never reaches the last column, and moves the cursor nowhere", () => {
  const { screen: s, take } = screen(10);
  s.now("ab\x1b[2J\n\u202eabcdefgh");
  assertEquals(take(), `${ERASE}ab?[2J??a`);
});

Deno.test("standard output that goes to a file leaves the terminal's line alone", () => {
  const { screen: s, take } = screen(80, false);
  s.now("working");
  take();
  s.out("to the file");
  assertEquals(take(), "to the file");
});

Deno.test("without a terminal there is a plain line every 30 s, never within another one", async () => {
  const { screen: s, clock, take } = screen(undefined);
  for (let second = 0; second < 30; second += 10) {
    s.now(`for ${second} s`);
    await clock.advance(10_000);
  }
  assertEquals(take(), "");
  s.out("in the middle ");
  s.now("for 30 s");
  assertEquals(take(), "in the middle ");
  s.out("of a line\n");
  s.now("for 31 s");
  assertEquals(take(), "of a line\nfor 31 s\n");
  s.clear();
  assertEquals(take(), "");
});

/** A folder with a job that does `commands`, and an attachment. */
async function withJob(commands: string, test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(`${folder}/data`, "x".repeat(1000));
    const lines = commands.split("\n").map((line) => `    ${line}\n`).join("");
    await Deno.writeTextFile(
      `${folder}/job.yaml`,
      `test_data:\n  attachments: [{local: data}]\n  test_cmds: |\n${lines}`,
    );
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const TRY = ["run", "--quiet", ...PERMISSIONS, MAIN, "try", "job.yaml"];

/** Runs `try` on a terminal of its own; its process id is in the file `pid`. */
function onTerminal(folder: string, env: Record<string, string>): Deno.ChildProcess {
  const words = [Deno.execPath(), ...TRY].map((word) => `'${word}'`).join(" ");
  return new Deno.Command("script", {
    args: ["-qefc", `stty cols 60; echo $$ >pid; exec ${words}`, "/dev/null"],
    cwd: folder,
    env,
    stdin: "null",
    stdout: "piped",
  }).spawn();
}

Deno.test("try shows on a terminal what goes on, around the job's output, and leaves nothing behind", () =>
  withJob("printf 'first '\nsleep 1.5\necho second", async (folder) => {
    const { code, stdout } = await onTerminal(folder, { TERM: "xterm" }).output();
    const text = new TextDecoder().decode(stdout);
    assertEquals(code, 0, text);
    assertMatch(text, /\r\x1b\[K\[try\] test for \d+ s, at most 4 h 0 min; \d+ s in/);
    assertStringIncludes(text, "first second\r\n");
    // What a person sees in the end: each line as it stands after the last time it was painted over.
    const seen = text.split("\n").map((line) => line.slice(line.lastIndexOf("\x1b[K") + 1));
    assertEquals(seen.filter((line) => line.includes("[try]")), []);
    for (const painted of text.matchAll(/\x1b\[K(\[try\][^\r\n]*)/g)) {
      assert((painted[1] ?? "").length < 60);
    }
  }));

Deno.test("try paints nothing on a terminal that cannot, nor into a pipe", () =>
  withJob("echo done", async (folder) => {
    const dumb = await onTerminal(folder, { TERM: "dumb" }).output();
    const piped = await new Deno.Command(Deno.execPath(), {
      args: TRY,
      cwd: folder,
      env: { TERM: "xterm" },
      stdin: "null",
    }).output();
    for (const { code, stdout } of [dumb, piped]) {
      const text = new TextDecoder().decode(stdout);
      assertEquals(code, 0, text);
      assertEquals(text.includes("\x1b"), false, text);
      assertStringIncludes(text, "done");
    }
    assertEquals(new TextDecoder().decode(piped.stderr), "");
  }));

Deno.test("Ctrl-C leaves the terminal as it was, with the last word on a line of its own", () =>
  withJob("touch begun\nsleep 600", async (folder) => {
    // The job runs in a folder of its own: the sign that it has begun is what it prints.
    const child = onTerminal(folder, { TERM: "xterm" });
    let text = "";
    const decoder = new TextDecoder();
    const limit = AbortSignal.timeout(PATIENCE_MS);
    let asked = false;
    for await (const bytes of child.stdout) {
      text += decoder.decode(bytes, { stream: true });
      if (limit.aborted) throw new Error(text);
      if (asked || !text.includes("[try] test for")) continue;
      asked = true;
      Deno.kill(Number(await Deno.readTextFile(`${folder}/pid`)), "SIGINT");
    }
    assertEquals((await child.status).code, 1);
    assertMatch(text, /\r\x1b\[K\r\nThe job is cancelled; cleanup runs\./);
    assertMatch(text, /\ntest +failed +status +\d+ .*\(cancelled\)/);
    const end = text.slice(text.lastIndexOf("cleanup "));
    assertEquals(end.includes("[try] test"), false);
    // Nothing was hidden or coloured that would have to be put back.
    const sequences = [...text.matchAll(/\x1b[^a-zA-Z]*[a-zA-Z]/g)].map(([sequence]) => sequence);
    assertEquals([...new Set(sequences)], ["\x1b[K"]);
  }));
