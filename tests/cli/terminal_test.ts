// deno-lint-ignore-file no-control-regex -- control characters are what this file is about
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { Screen, TerminalText } from "../../lib/cli/terminal.ts";
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

/** What a terminal gets of the text, in one piece, without the end of the colours. */
function shown(...chunks: string[]): string {
  const screen = new TerminalText();
  const parts = chunks.map((chunk) => screen.push(chunk));
  return parts.join("") + screen.flush().replace(/\x1b\[0m$/, "");
}

Deno.test("text in every language, tabs and new lines stay as they are", () => {
  assertEquals(shown("Grüße\tשלום\n設備 🛠\n"), "Grüße\tשלום\n設備 🛠\n");
});

Deno.test("colours pass, also when they arrive in pieces", () => {
  const red = "\x1b[1;31mred\x1b[0m \x1b[38;5;208morange\x1b[m \x1b[38:2::1:2:3mtrue";
  assertEquals(shown(red), red);
  assertEquals(shown(...red), red);
});

for (
  const [what, sequence] of Object.entries({
    "clears the screen": "\x1b[2J",
    "moves the cursor": "\x1b[1;1H",
    "goes up and paints over": "\x1b[1A\x1b[2K",
    "sets the title": "\x1b]0;title\x07",
    "writes to the clipboard": "\x1b]52;c;cm0gLXJm\x07",
    "makes a link": "\x1b]8;;http://example.com\x1b\\",
    "asks who the terminal is": "\x1b[c",
    "asks where the cursor is": "\x1b[6n",
    "resets the terminal": "\x1bc",
    "switches the character set": "\x1b(0\x0e",
    "begins a string that has no end": "\x1bPq",
    "uses the one-character form": "\x9b2J\x9d0;title\x9c",
    "has a private parameter": "\x1b[?1049h",
    "hides in a colour": "\x1b[31;\x1b[2Jm",
    "rings, goes back, deletes": "\x07\x08\x7f",
    "stops the screen": "\x13",
  })
) {
  Deno.test(`a sequence that ${what} is shown and not obeyed`, () => {
    for (const text of [shown(`a${sequence}b`), shown("a", ...sequence, "b")]) {
      assertHarmless(text);
      assert(text.startsWith("a") && text.endsWith("b"), JSON.stringify(text));
    }
  });
}

Deno.test("what is not obeyed can be read", () => {
  assertEquals(shown("\x1b]0;title\x07"), "␛]0;title␇");
  assertEquals(shown("\x1b[2J"), "␛[2J");
});

Deno.test("a carriage return paints nothing over, and ends a line once", () => {
  assertEquals(shown("real\rfake\n"), "real\nfake\n");
  assertEquals(shown("one\r\ntwo\r\n"), "one\ntwo\n");
  assertEquals(shown("one\r", "\ntwo\r"), "one\ntwo\n");
});

Deno.test("marks that turn the direction of text are replaced", () => {
  assertEquals(shown("a\u202eb\u2066c\u200fd\u061c"), "a\ufffdb\ufffdc\ufffdd\ufffd");
});

Deno.test("the beginning of a sequence is held until its end comes, and shown when none comes", () => {
  const screen = new TerminalText();
  assertEquals(screen.push("a\x1b"), "a");
  assertEquals(screen.push("["), "");
  assertEquals(screen.push("3"), "");
  assertEquals(screen.flush(), "␛[3");
  assertEquals(shown(`\x1b[${"1;".repeat(100)}m`), `␛[${"1;".repeat(100)}m`);
});

Deno.test("colours end with the output, where there were any", () => {
  const screen = new TerminalText();
  screen.push("\x1b[31mred");
  assertEquals(screen.flush(), "\x1b[0m");
  assertEquals(screen.flush(), "");
});

Deno.test("nothing but text, colours and line ends gets through, however it is cut", () => {
  const piece = fc.oneof(
    fc.constantFrom(..."\x1b[];:?m0123456789AJHc\r\n\t\x07\x9b\x90\x18ab", "\x1b[", "\x1b[1m"),
    fc.string({ unit: "binary", maxLength: 3 }),
  );
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 30 }), (pieces) => {
      const whole = shown(pieces.join(""));
      assertHarmless(whole);
      assertEquals(shown(...pieces), whole);
    }),
    { numRuns: 10_000 },
  );
});

function assertHarmless(text: string): void {
  const left = text.replaceAll(/\x1b\[[0-9;:]*m/g, "");
  assert(!/[\0-\x08\x0b-\x1f\x7f-\x9f]/.test(left), JSON.stringify(text));
}
