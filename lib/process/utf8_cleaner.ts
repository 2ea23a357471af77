import { isUtf8 } from "node:buffer";
import { cutAtEnd } from "../utf8.ts";
import { type ByteStage, concat, NO_BYTES } from "./bytes.ts";

/**
 * Makes a stream of bytes valid UTF-8: what is not becomes U+FFFD, as the WHATWG decoder does it for
 * the whole text, wherever the chunks were cut. A byte order mark stays. At most 3 bytes are held
 * back: the beginning of a character whose end has not come yet.
 *
 * A chunk that is valid comes back as it is, not copied.
 */
export function utf8Cleaner(): ByteStage & { readonly held: number } {
  let held = NO_BYTES;
  return {
    get held() {
      return held.byteLength;
    },
    push(bytes) {
      const text = concat(held, bytes);
      const end = text.byteLength - cutAtEnd(text);
      // A copy, or the few bytes would keep the whole chunk.
      held = end === text.byteLength ? NO_BYTES : text.slice(end);
      return cleanUtf8(text.subarray(0, end));
    },
    flush() {
      const rest = held;
      held = NO_BYTES;
      return cleanUtf8(rest);
    },
  };
}

/** A text that is complete, with U+FFFD in place of what is not UTF-8; not copied where it is. */
export function cleanUtf8(bytes: Uint8Array): Uint8Array {
  if (isUtf8(bytes)) return bytes;
  return new TextEncoder().encode(new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes));
}
