/**
 * Reading a `multipart/form-data` upload as a stream, so that an archive costs its own size in
 * memory and no more.
 */
import { RefusedRequest } from "./wire_form.ts";

/** A file, in the pieces in which it came. */
export interface StoredFile {
  readonly chunks: readonly Uint8Array<ArrayBuffer>[];
  readonly size: number;
}

/** A part's header lines are a few hundred bytes; more than this is not a form. */
const HEADER_LIMIT_BYTES = 16 * 1024;

const CR = 13;
const BLANK_LINE = new TextEncoder().encode("\r\n\r\n");

/**
 * Reads the form's part `file`; other parts are passed over.
 *
 * @throws RefusedRequest 400 when this is not a form, has no such part, or ends too early.
 */
export async function readUpload(request: Request): Promise<StoredFile> {
  const type = request.headers.get("Content-Type") ?? "";
  const boundary = /^multipart\/form-data\s*;.*\bboundary=(?:"([^"]+)"|([^\s;]+))/i.exec(type);
  const name = boundary?.[1] ?? boundary?.[2];
  if (name === undefined || request.body === null) {
    throw new RefusedRequest(400, "The upload is not multipart/form-data");
  }
  const source = new Source(request.body);
  // What stands between parts. The first one lacks the line end: give it one.
  const delimiter = new TextEncoder().encode(`\r\n--${name}`);
  source.prepend(new TextEncoder().encode("\r\n"));
  await source.until(delimiter, () => {});
  let file: StoredFile | undefined;
  while (!(await source.startsWith("--"))) {
    const headers = await readHeaders(source);
    const chunks: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    const wanted = /^content-disposition:.*\bname="?file"?\s*(?:;|\r|$)/im.test(headers) &&
      file === undefined;
    await source.until(delimiter, (chunk) => {
      if (!wanted) return;
      chunks.push(chunk);
      size += chunk.byteLength;
    });
    if (wanted) file = { chunks, size };
  }
  await source.drain();
  if (file === undefined) throw new RefusedRequest(400, "The upload has no field 'file'");
  return file;
}

/** The whole file in one piece. */
export function joined(file: StoredFile): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(file.size);
  let at = 0;
  for (const chunk of file.chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}

/** The file as a body, made as fast as the reader takes it. */
export function streamFile(file: StoredFile): ReadableStream<Uint8Array<ArrayBuffer>> {
  let next = 0;
  return new ReadableStream({
    pull(controller) {
      const chunk = file.chunks[next++];
      if (chunk === undefined) controller.close();
      else controller.enqueue(chunk);
    },
  }, { highWaterMark: 0 });
}

async function readHeaders(source: Source): Promise<string> {
  const lines: Uint8Array[] = [];
  let size = 0;
  await source.until(BLANK_LINE, (chunk) => {
    size += chunk.byteLength;
    if (size > HEADER_LIMIT_BYTES) {
      throw new RefusedRequest(400, "The upload's headers have no end");
    }
    lines.push(chunk);
  });
  const decoder = new TextDecoder();
  return lines.map((line) => decoder.decode(line, { stream: true })).join("").trimStart();
}

/** Bytes of a body, with a look ahead. */
class Source {
  #reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  #held: Uint8Array<ArrayBuffer> = new Uint8Array(0);

  constructor(body: ReadableStream<Uint8Array<ArrayBuffer>>) {
    this.#reader = body.getReader();
  }

  prepend(bytes: Uint8Array<ArrayBuffer>): void {
    this.#held = bytes;
  }

  /** Gives everything before `mark` to `take`, and passes over `mark`. */
  async until(mark: Uint8Array, take: (chunk: Uint8Array<ArrayBuffer>) => void): Promise<void> {
    while (true) {
      const { at, whole } = find(this.#held, mark);
      if (at > 0) take(this.#held.subarray(0, at));
      if (whole) {
        this.#held = this.#held.subarray(at + mark.length);
        return;
      }
      this.#held = this.#held.subarray(at);
      await this.#more();
    }
  }

  /** Whether the next bytes are this text. */
  async startsWith(text: string): Promise<boolean> {
    while (this.#held.length < text.length) await this.#more();
    return new TextDecoder().decode(this.#held.subarray(0, text.length)) === text;
  }

  /** Reads what is left and forgets it. */
  async drain(): Promise<void> {
    while (!(await this.#reader.read()).done);
  }

  async #more(): Promise<void> {
    const { done, value } = await this.#reader.read();
    if (done) throw new RefusedRequest(400, "The upload ended in the middle");
    if (this.#held.length === 0) {
      this.#held = value;
      return;
    }
    // What is held is shorter than a mark: joining copies one chunk at most.
    const both = new Uint8Array(this.#held.length + value.length);
    both.set(this.#held);
    both.set(value, this.#held.length);
    this.#held = both;
  }
}

/**
 * Where `mark` stands in `bytes`; or, not `whole`, where a mark begins that the end of `bytes`
 * cuts off (the length of `bytes` when none does).
 */
function find(bytes: Uint8Array, mark: Uint8Array): { at: number; whole: boolean } {
  // Every mark begins with a carriage return.
  for (let at = bytes.indexOf(CR); at >= 0; at = bytes.indexOf(CR, at + 1)) {
    let same = 1;
    while (same < mark.length && at + same < bytes.length && bytes[at + same] === mark[same]) {
      same++;
    }
    if (same === mark.length) return { at, whole: true };
    if (at + same === bytes.length) return { at, whole: false };
  }
  return { at: bytes.length, whole: false };
}
