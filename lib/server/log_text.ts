/**
 * The text of a piece of a log on its way to the server. The body that the server wants is made of it
 * once, which may be long before it leaves.
 */

const encoder = new TextEncoder();

/** What stands before the text in the body is far shorter. */
const HEAD_BYTES = 512;

/** Memory for one piece after the other: what each asked for anew would pile up until it is collected. */
export interface TextMemory {
  /** Of the text as it is in the log. */
  utf8: Uint8Array<ArrayBuffer>;
  /** Of the body; it grows where it must. */
  body: Uint8Array<ArrayBuffer>;
}

/** Memory for texts of up to so many bytes. */
export function textMemory(bytes: number): TextMemory {
  return { utf8: new Uint8Array(bytes), body: new Uint8Array(usualBodyBytes(bytes)) };
}

/** Of a log, about one character in fifty is escaped. */
function usualBodyBytes(bytes: number): number {
  return HEAD_BYTES + Math.ceil(bytes * 1.1) + STEP_BYTES;
}

/** The text of a piece. */
export class LogText {
  /** As it is in the log. */
  readonly utf8: Uint8Array<ArrayBuffer>;
  /** What it is in. */
  readonly memory: TextMemory | undefined;
  #isMemoryUsed = false;
  /** Space for a head, the text as a JSON string, and the end of an object. */
  #body: Uint8Array<ArrayBuffer> | undefined;

  /**
   * @param utf8 valid UTF-8.
   * @param memory what `utf8` is in; the body is made there, too.
   */
  constructor(utf8: Uint8Array<ArrayBuffer>, memory?: TextMemory) {
    this.utf8 = utf8;
    this.memory = memory;
  }

  /** Does now what `jsonWith()` would have to do. */
  prepareJson(): void {
    this.#body ??= this.#makeBody();
  }

  #makeBody(): Uint8Array<ArrayBuffer> {
    // Only once: of a request that was given up some may still be on its way.
    const memory = this.#isMemoryUsed ? undefined : this.memory;
    this.#isMemoryUsed = true;
    return bodyOf(this.utf8, memory ?? { body: new Uint8Array(usualBodyBytes(this.utf8.length)) });
  }

  /**
   * The JSON object `head` with one more member, which is this text; its bytes are the caller's.
   *
   * @param head an object with at least one member, of at most 400 bytes.
   */
  jsonWith(head: Record<string, unknown>, name: string): Uint8Array<ArrayBuffer> {
    const body = this.#body ?? this.#makeBody();
    this.#body = undefined;
    const before = encoder.encode(
      `${JSON.stringify(head).slice(0, -1)},${JSON.stringify(name)}:`,
    );
    body.set(before, HEAD_BYTES - before.length);
    return body.subarray(HEAD_BYTES - before.length);
  }
}

/**
 * The runtime's own way through strings is six times as fast as escaping the bytes here; but for longer
 * strings it asks the kernel for memory each time, which takes longer than the rest.
 */
const STEP_BYTES = 64 * 1024;

function bodyOf(utf8: Uint8Array, memory: Pick<TextMemory, "body">): Uint8Array<ArrayBuffer> {
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let { body } = memory;
  let end = HEAD_BYTES;
  const add = (json: string) => {
    let { read, written } = encoder.encodeInto(json, body.subarray(end));
    while (read < json.length) {
      const larger = new Uint8Array(body.length * 2);
      larger.set(body);
      memory.body = body = larger;
      ({ read, written } = encoder.encodeInto(json, body.subarray(end)));
    }
    end += written;
  };
  add('"');
  for (let at = 0; at < utf8.length; at += STEP_BYTES) {
    const isLast = at + STEP_BYTES >= utf8.length;
    const text = decoder.decode(utf8.subarray(at, at + STEP_BYTES), { stream: !isLast });
    add(JSON.stringify(text).slice(1));
    // Where it goes on, the string does not end.
    end--;
  }
  add('"}');
  return body.subarray(0, end);
}
