import { assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { RefusedRequest } from "../../lib/sandbox/wire_form.ts";
import { joined, readUpload } from "../../lib/sandbox/upload.ts";

const latin = (text: string) => Uint8Array.from(text, (char) => char.charCodeAt(0));

/** A request whose body comes in the given pieces. */
function request(pieces: Uint8Array<ArrayBuffer>[], type: string): Request {
  const left = pieces.slice();
  const body = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      const piece = left.shift();
      if (piece === undefined) controller.close();
      else if (piece.length > 0) controller.enqueue(piece);
      else controller.enqueue(new Uint8Array(0));
    },
  });
  return new Request("http://server/", { method: "POST", body, headers: { "Content-Type": type } });
}

function form(content: string, name = "file"): string {
  return "--B\r\n" +
    'Content-Disposition: form-data; name="other"\r\n\r\nvalue\r\n' +
    "--B\r\n" +
    `Content-Disposition: form-data; name="${name}"; filename="file"\r\n` +
    "Content-Type: application/x-gzip\r\n\r\n" +
    `${content}\r\n--B--\r\n`;
}

const FORM = "multipart/form-data; boundary=B";

Deno.test("a file reads the same however the body is cut into pieces", async () => {
  // Bytes of which the boundary is made come often, so that there are many near misses.
  const content = fc.array(fc.constantFrom("\r", "\n", "-", "B", "\r\n", "\r\n--", "x", "\xff"))
    .map((parts) => parts.join(""))
    .filter((text) => !text.includes("\r\n--B"));
  await fc.assert(
    fc.asyncProperty(content, fc.array(fc.nat(400)), async (text, cuts) => {
      const bytes = latin(form(text));
      const places = [...new Set([0, ...cuts.map((cut) => cut % bytes.length), bytes.length])]
        .sort((a, b) => a - b);
      const pieces = places.slice(1).map((end, i) => bytes.slice(places[i], end));
      const file = await readUpload(request(pieces, FORM));
      assertEquals(joined(file), latin(text));
      assertEquals(file.size, text.length);
    }),
    { numRuns: 300 },
  );
});

Deno.test("the runtime's own forms are read, whatever their boundary", async () => {
  const body = new FormData();
  body.append("file", new Blob(["hello"]), "file");
  const file = await readUpload(new Request("http://server/", { method: "POST", body }));
  assertEquals(joined(file), latin("hello"));
});

Deno.test("a quoted boundary is understood", async () => {
  const type = 'multipart/form-data; charset=utf-8; boundary="B"';
  assertEquals(joined(await readUpload(request([latin(form("x"))], type))), latin("x"));
});

for (
  const [what, body, type] of [
    ["that is no form", "x", "application/x-gzip"],
    ["whose boundary is not told", form("x"), "multipart/form-data"],
    ["without a field 'file'", form("x", "profile"), FORM],
    ["that ends in the file", form("x".repeat(100)).slice(0, -50), FORM],
    ["that ends in the headers", form("x").slice(0, 60), FORM],
    ["that lacks the last two dashes", form("x").slice(0, -4), FORM],
    ["that is empty", "", FORM],
    ["whose headers have no end", `--B\r\n${"x".repeat(20_000)}`, FORM],
  ] as const
) {
  Deno.test(`an upload ${what} is refused with 400`, async () => {
    const error = await assertRejects(
      () => readUpload(request([latin(body)], type)),
      RefusedRequest,
    );
    assertEquals(error.status, 400);
  });
}
