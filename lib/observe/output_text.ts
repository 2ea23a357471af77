/**
 * Output of a job as text that can be shown: a stream of bytes in, text out in which nothing acts on
 * the screen. Control characters become their pictures (␛), marks that reverse the direction of text
 * become `\u202e`, and every way to end a line becomes a new line.
 */
export interface OutputText {
  /** Text that is complete; half a character or half a line end is held until the next bytes. */
  push(bytes: Uint8Array): string;
}

// deno-lint-ignore no-control-regex -- control characters are what is looked for
const LINE_END = /\r\n|[\r\x0b\x0c\x85\u2028\u2029]/g;
// deno-lint-ignore no-control-regex -- control characters are what is looked for
const UNSAFE = /[\0-\x08\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** Where Unicode has a picture for each control character below 0x20. */
const PICTURES = 0x2400;
const PICTURE_OF_DELETE = "\u2421";

/** Makes the text of one stream. */
export function createOutputText(): OutputText {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let held = "";
  return {
    push(bytes) {
      const text = held + decoder.decode(bytes, { stream: true });
      held = text.endsWith("\r") ? "\r" : "";
      return showText(text.slice(0, text.length - held.length));
    },
  };
}

/** The text with nothing in it that acts on the screen. */
export function showText(text: string): string {
  return text.replaceAll(LINE_END, "\n").replaceAll(UNSAFE, (unsafe) => {
    const code = unsafe.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(PICTURES + code);
    if (code === 0x7f) return PICTURE_OF_DELETE;
    return code < 0x100 ? `\\x${code.toString(16)}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
}
