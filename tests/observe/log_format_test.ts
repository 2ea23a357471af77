import { assertEquals, assertMatch } from "@std/assert";
import {
  escapeText,
  formatJournal,
  formatJson,
  formatText,
  isOfAnother,
  localDate,
  type LogEvent,
} from "../../lib/observe/log_format.ts";

const AT = new Date(2026, 10, 22, 23, 59, 58, 7).getTime();

function event(message: string, fields: LogEvent["fields"] = {}): LogEvent {
  return { time: AT, level: "WARNING", message, fields };
}

Deno.test("a line of text has local time with milliseconds, level, message and fields", () => {
  assertEquals(
    formatText(event("Phase ended", { phase: "test", status: 1, ok: false, gone: undefined })),
    "2026-11-22 23:59:58,007 WARNING Phase ended phase=test status=1 ok=false",
  );
  assertEquals(localDate(AT), "2026-11-22");
});

Deno.test("values that would not read as one word are quoted", () => {
  assertEquals(
    formatText(event("m", { a: "two words", b: "", c: 'say "x"', d: "k=v" })).slice(32),
    'm a="two words" b="" c="say \\"x\\"" d="k=v"',
  );
});

Deno.test("the journal gets a priority and neither time nor level", () => {
  const line = (level: LogEvent["level"]) => formatJournal({ ...event("m", { k: 1 }), level });
  assertEquals(line("ERROR"), "<3>m k=1");
  assertEquals(line("WARNING"), "<4>m k=1");
  assertEquals(line("INFO"), "<6>m k=1");
  assertEquals(line("DEBUG"), "<7>m k=1");
});

Deno.test("one event is one line, whatever it quotes", () => {
  const nasty = "a\nb\r\tc\x1b[31md\0\x9b\u2028\u202eevil\u2066\u200f";
  assertEquals(
    escapeText(nasty),
    "a\\nb\\r\\tc\\x1b[31md\\x00\\x9b\\u2028\\u202eevil\\u2066\\u200f",
  );
  assertEquals(formatText(event(nasty, { "k\n": nasty })).split(/[\n\r\u2028]/).length, 1);
  const json = formatJson(event(nasty, { k: nasty }), "agent-1");
  // deno-lint-ignore no-control-regex -- control characters are what is looked for
  assertEquals(/[\0-\x1f\x7f-\x9f\u2028\u202e\u2066\u200f]/.test(json), false);
  assertEquals(JSON.parse(json).message, nasty);
});

Deno.test("text in every language is left as it is", () => {
  assertEquals(escapeText("Gerät 設備 🛠 שלום"), "Gerät 設備 🛠 שלום");
});

Deno.test("half a surrogate pair becomes the replacement character", () => {
  assertEquals(escapeText("a\ud83db"), "a\ufffdb");
});

Deno.test("a message of ten megabytes is cut, and says how much is missing", () => {
  const line = formatText(event("x".repeat(10 * 1024 * 1024)));
  assertEquals(line.length < 5000, true);
  assertMatch(line, /x\.\.\. \(10481664 characters more\)$/);
});

Deno.test("a JSON line has the time in UTC, the agent, and the fields with their types", () => {
  assertEquals(JSON.parse(formatJson(event("m", { n: 1, t: true, s: "x", u: undefined }), "a-1")), {
    time: new Date(AT).toISOString(),
    level: "WARNING",
    agent: "a-1",
    message: "m",
    fields: { n: 1, t: true, s: "x" },
  });
  assertEquals("fields" in JSON.parse(formatJson(event("m"), "a-1")), false);
});

Deno.test("a line of a log file says whose it is, in text and in JSON", () => {
  for (const id of ["rpi4-1", "a b] c", 'quote"d', "new\nline"]) {
    const text = formatText(event("m"), id);
    const json = formatJson(event("m"), id);
    for (const line of [text, json]) {
      assertEquals(isOfAnother(line, id), false, line);
      assertEquals(isOfAnother(line, "rpi4-2"), true, line);
    }
  }
  // Of an older version, or the rest of a line.
  for (const line of [formatText(event("m")), "  at nowhere", "", "{", '{"a": 1}']) {
    assertEquals(isOfAnother(line, "rpi4-1"), false, line);
  }
});

Deno.test("a sentence of a server in one of ours ends with one full stop; dots that mean something stay", () => {
  const shown = (message: string) => formatText(event(message)).slice(32);
  assertEquals(
    shown("400: Invalid refresh token.. Try again"),
    "400: Invalid refresh token. Try again",
  );
  assertEquals(shown("it says 'no.'.. End.."), "it says 'no.'. End.");
  assertEquals(shown("a ../b .. c... d"), "a ../b .. c... d");
});
