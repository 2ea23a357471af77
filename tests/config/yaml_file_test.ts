import { assertEquals, assertStringIncludes } from "@std/assert";
import * as z from "zod";
import { sourceLines } from "../../lib/config/mistake.ts";
import { readYamlFile } from "../../lib/config/yaml_file.ts";
import {
  accepted,
  Anything,
  complaints,
  complaintsAbout,
  read,
  refusal,
  refusedText,
  valueOf,
} from "./file_with.ts";

Deno.test("a file with a byte order mark and carriage returns is read", async () => {
  assertEquals(await valueOf("\ufeffa: 1\r\nb: x\r\n"), { a: 1, b: "x" });
});

Deno.test("a line that may hold a secret is not shown, nor one of a URL with a password", () => {
  const shown = (content: string) => {
    const schema = z.strictObject({ known: z.string().optional() });
    const result = refusedText(content, schema);
    return result.mistakes.map(sourceLines).join("");
  };
  for (
    const secret of [
      "known: {password: hunter2}\n",
      "api_key: hunter2\n",
      "known: [http://me:hunter2@host]\n",
      "known: sshpass -p hunter2: x\n",
      "the_token:\n  deep:\n  - 'hunter2\n",
      "password: |\n  some\n  hunter2\n bad: x\n",
    ]
  ) {
    assertEquals(shown(secret), "", secret);
  }
  assertStringIncludes(shown("knwon: hunter2\n"), "1 | knwon: hunter2\n");
});

Deno.test("of a long line the part around the place is shown, and control characters not at all", () => {
  const content = `known: {a: ${"x".repeat(200)}, b: \u2028${"y".repeat(200)}}\n`;
  const schema = z.strictObject({ known: z.strictObject({ a: z.string() }) });
  const result = refusedText(content, schema);
  const [line = "", caret = ""] = result.mistakes.map(sourceLines).join("").split("\n");
  assertEquals(line, `   1 | ...${"x".repeat(58)}, b:  ${"y".repeat(26)}...`);
  assertEquals(line.at(caret.indexOf("^")), "b");
});

Deno.test("beside a wrong key the right ones can be had, with defaults and places", () => {
  const schema = z.strictObject({
    a: z.number(),
    b: z.string().default("otherwise"),
    c: z.string().optional(),
    d: z.string(),
  });
  const result = refusedText("a: x\nc: y\nd:\n", schema);
  assertEquals(result.valid, { b: "otherwise", c: "y" });
  assertEquals(result.given, new Set(["a", "c"]));
  const place = result.placeOf(["c"]);
  assertEquals([place.line, place.column], [2, 4]);
});

Deno.test("bytes that are not UTF-8 are refused where they begin", async () => {
  const bytes = new Uint8Array([...new TextEncoder().encode("a: 1\nb: é"), 0xe9, 0x0a]);
  assertEquals(await complaintsAbout(bytes), ["agent.conf:2:5: is not UTF-8, must be"]);
  assertEquals(await complaintsAbout(new Uint8Array([0x61, 0xc3])), [
    "agent.conf:1:2: is not UTF-8, must be",
  ]);
});

Deno.test("UTF-16 is refused by name", async () => {
  const bytes = new Uint8Array([0xff, 0xfe, 0x61, 0x00, 0x3a, 0x00]);
  assertEquals(await complaintsAbout(bytes), ["agent.conf: is UTF-16, must be UTF-8"]);
});

Deno.test("a file that is not there, or is no file, is one mistake", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const missing = await readYamlFile(`${folder}/none.conf`, Anything);
    assertEquals(complaints(missing), ["none.conf: cannot be read: there is no such file"]);
    await Deno.mkdir(`${folder}/dir.conf`);
    const directory = await readYamlFile(`${folder}/dir.conf`, Anything);
    assertEquals(complaints(directory), [
      "dir.conf: cannot be read: it is a directory, must be a file",
    ]);
    const impossible = await readYamlFile(`${folder}/a\0b`, Anything);
    assertEquals(refusal(impossible).length, 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a file that cannot be opened is one mistake", async () => {
  const folder = await Deno.makeTempDir();
  try {
    using _socket = Deno.listen({ transport: "unix", path: `${folder}/socket` });
    assertEquals(complaints(await readYamlFile(`${folder}/socket`, Anything)), [
      "socket: cannot be read: No such device or address (os error 6)",
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a file that is too large, or has no end, is refused", async () => {
  const endless = await readYamlFile("/dev/zero", Anything);
  assertEquals(complaints(endless), [
    "zero: is larger than 1048576 bytes, must be a configuration file",
  ]);
});

Deno.test("numbers become the text of the file where it is asked for", async () => {
  const Env = z.object({ env: z.record(z.string(), z.string()), port: z.int() });
  assertEquals(
    await valueOf("env: {A: 1.10, B: 010}\nport: 010\n", Env, {
      numbersAsText: (path) => path[0] === "env",
    }),
    { env: { A: "1.10", B: "010" }, port: 8 },
  );
});

Deno.test("a review warns at the place of a value", async () => {
  const result = await read("a: 1\nb: {c: 2}\n", Anything, {
    review: (_written, warn) => warn(["b", "c"], "is odd"),
  });
  accepted(result);
  assertEquals(complaints(result), ["agent.conf:2:8: b.c: is odd"]);
});
