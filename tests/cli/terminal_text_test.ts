// deno-lint-ignore-file no-control-regex -- control characters are what this file is about
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { TerminalText } from "../../lib/cli/terminal_text.ts";

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
