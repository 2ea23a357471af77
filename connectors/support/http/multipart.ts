import { basename } from "../../../lib/path.ts";
import type { HttpBody } from "./exchange.ts";

const CHUNK_BYTES = 1024 * 1024;

/** What a form has. */
export interface MultipartForm {
  /** Texts, by their names. */
  readonly fields: Readonly<Record<string, string>>;
  readonly file: {
    /** Of the field. */
    readonly name: string;
    /** On disk; its base name goes along. */
    readonly path: string;
  };
}

/** A form with one file, which is read from disk while it is sent: images have gigabytes. */
export async function multipartBody({ fields, file }: MultipartForm): Promise<HttpBody> {
  const boundary = `testflinger-${crypto.randomUUID()}`;
  const encoder = new TextEncoder();
  const part = (head: string) => `--${boundary}\r\nContent-Disposition: form-data; ${head}\r\n`;
  const before = encoder.encode(
    Object.entries(fields).map(([name, value]) => `${part(`name="${name}"`)}\r\n${value}\r\n`)
      .join("") +
      part(`name="${file.name}"; filename="${quoted(basename(file.path))}"`) +
      "Content-Type: application/octet-stream\r\n\r\n",
  );
  const after = encoder.encode(`\r\n--${boundary}--\r\n`);
  const { size } = await Deno.stat(file.path);
  return {
    type: `multipart/form-data; boundary=${boundary}`,
    length: before.length + size + after.length,
    async *pieces() {
      yield before;
      using open = await Deno.open(file.path);
      while (true) {
        const buffer = new Uint8Array(CHUNK_BYTES);
        const length = await open.read(buffer);
        if (length === null) break;
        yield buffer.subarray(0, length);
      }
      yield after;
    },
  };
}

/** As browsers write names of files. */
function quoted(name: string): string {
  return name.replace(/["\r\n]/g, (char) => encodeURIComponent(char));
}
