import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  createLogPieces,
  createOutputText,
  createTail,
  piecesOf,
  showText,
} from "../../lib/observe/output_text.ts";

const encode = (text: string) => new TextEncoder().encode(text);

Deno.test("control characters are shown and do not act", () => {
  assertEquals(showText("\x1b[31mred\x07\0\x7f\x9b2J"), "␛[31mred␇␀␡\\x9b2J");
});

Deno.test("marks that reverse the direction of text are shown", () => {
  assertEquals(showText("a\u202eb\u2066c\u200f"), "a\\u202eb\\u2066c\\u200f");
});

Deno.test("every way to end a line is a new line, tabs stay", () => {
  assertEquals(showText("a\r\nb\rc\nd\u2028e\x0cf\tg"), "a\nb\nc\nd\ne\nf\tg");
});

Deno.test("text in every language and markup stay as they are", () => {
  assertEquals(showText("שלום 設備 🛠 <script>&amp;"), "שלום 設備 🛠 <script>&amp;");
});

Deno.test("the text is the same however its bytes are cut into pieces", () => {
  fc.assert(fc.property(
    fc.array(fc.constantFrom("\r", "\n", "ä", "🛠", "\x1b", "x", "\u202e"), { maxLength: 30 }),
    fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 30 }),
    (characters, sizes) => {
      const whole = characters.join("") + ".";
      const bytes = encode(whole);
      const text = createOutputText();
      let shown = "";
      for (let at = 0, n = 0; at < bytes.length; n++) {
        const size = sizes[n % sizes.length] ?? 1;
        shown += text.push(bytes.subarray(at, at + size));
        at += size;
      }
      assertEquals(shown, showText(whole));
    },
  ));
});

const bytes = (text: string) => new TextEncoder().encode(text);
const pieces = (text: string) => createLogPieces().push(bytes(text));

Deno.test("colours and weights become classes, and end where they are ended", () => {
  assertEquals(pieces("a\x1b[1;31mb\x1b[22mc\x1b[39md\x1b[4;92me\x1b[mf"), [
    "a",
    ["b", "bold fg1"],
    ["c", "fg1"],
    "d",
    ["e", "underline fg10"],
    "f",
  ]);
});

Deno.test("on a colour, and inverted, the text has the page's own colour", () => {
  assertEquals(pieces("\x1b[31;44ma\x1b[49mb\x1b[7mc\x1b[39md\x1b[27me"), [
    ["a", "bg4"],
    ["b", "fg1"],
    ["c", "bg1"],
    ["d", "bgt"],
    "e",
  ]);
});

Deno.test("of 256 or 16 million colours the nearest of sixteen is taken", () => {
  const look = (sequence: string) => pieces(`\x1b[${sequence}mx`)[0];
  assertEquals(look("38;5;9"), ["x", "fg9"]);
  assertEquals(look("38;5;196"), ["x", "fg9"]);
  assertEquals(look("38;5;22"), ["x", "fg2"]);
  assertEquals(look("48;2;10;10;200"), ["x", "bg4"]);
  assertEquals(look("38:5:240"), ["x", "fg8"]);
  assertEquals(look("38;2;255;255;255;1"), ["x", "bold fg15"]);
});

Deno.test("everything else that a terminal would obey is shown as text", () => {
  assertEquals(pieces("\x1b[2J\x1b]0;title\x07 \x1b[?25l\u202e\b\x1b[1;2Hx"), [
    "␛[2J␛]0;title␇ ␛[?25l\\u202e␈␛[1;2Hx",
  ]);
  // Numbers that mean nothing, and far too many of them.
  assertEquals(pieces("\x1b[999;38;48;5m\x1b[38mx"), ["x"]);
  assertEquals(pieces(`\x1b[${"1;".repeat(100)}1mx`), [["x", "bold"]]);
});

Deno.test("a sequence, a line end and a character may come in two parts", () => {
  const stream = createLogPieces();
  const parts = ["a\r", "\nb\x1b", "[3", "2mc"].flatMap((part) => stream.push(bytes(part)));
  assertEquals(parts, ["a", "\nb", ["c", "fg2"]]);
  const umlaut = bytes("ü");
  assertEquals(stream.push(umlaut.subarray(0, 1)), []);
  assertEquals(stream.push(umlaut.subarray(1)), [["ü", "fg2"]]);
});

Deno.test("phases begin at their place in the bytes, with colours going on", () => {
  const { pieces, stream } = piecesOf(bytes("one\n\x1b[32mtwo"), [
    { phase: "setup", at: 0 },
    { phase: "test", at: 4 },
  ]);
  assertEquals(pieces, [{ phase: "setup" }, "one\n", { phase: "test" }, ["two", "fg2"]]);
  assertEquals(stream.push(bytes("!")), [["!", "fg2"]]);
});

const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

Deno.test("a tail keeps everything until it is full, and then the end", () => {
  const tail = createTail(8);
  tail.push(encode("abcd"));
  assertEquals(decode(tail.bytes()), "abcd");
  tail.push(encode("efgh"));
  assertEquals(decode(tail.bytes()), "abcdefgh");
  tail.push(encode("ij"));
  assertEquals(decode(tail.bytes()), "cdefghij");
  tail.push(encode("0123456789"));
  assertEquals(decode(tail.bytes()), "23456789");
  tail.clear();
  assertEquals(decode(tail.bytes()), "");
});

Deno.test("a tail does not begin within a character", () => {
  const tail = createTail(8);
  tail.push(encode("🛠🛠🛠x"));
  assertEquals(decode(tail.bytes()), "🛠x");
});

Deno.test("a tail is the end of what was pushed, however it was cut into pieces", () => {
  fc.assert(fc.property(
    fc.array(fc.uint8Array({ max: 127, maxLength: 40 }), { maxLength: 20 }),
    fc.integer({ min: 1, max: 30 }),
    (pieces, size) => {
      const tail = createTail(size);
      for (const piece of pieces) tail.push(piece);
      const all = pieces.flatMap((piece) => [...piece]);
      assertEquals([...tail.bytes()], all.slice(-size));
    },
  ));
});

Deno.test("what was handed out does not change with what comes later", () => {
  const tail = createTail(4);
  tail.push(encode("ab"));
  const before = tail.bytes();
  tail.push(encode("cdef"));
  assertEquals(decode(before), "ab");
});
