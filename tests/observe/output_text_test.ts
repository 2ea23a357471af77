import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { createOutputText, showText } from "../../lib/observe/output_text.ts";

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
