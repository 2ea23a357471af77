import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { join } from "node:path";
import { JournalFile, readJournal } from "../../lib/outbox/journal.ts";

async function withRecord(test: (path: string) => void | Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await test(join(folder, "record"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function write(path: string, values: unknown[]): void {
  const { file } = JournalFile.open(path);
  for (const value of values) file.append(value);
  file.close();
}

function read(path: string): unknown[] {
  const { file, reading } = JournalFile.open(path);
  file.close();
  return reading.values;
}

Deno.test("a journal gives back what was appended to it, over several processes", () =>
  withRecord((path) => {
    write(path, [{ a: 1 }, "zwei\nZeilen"]);
    write(path, [["drei"]]);
    assertEquals(read(path), [{ a: 1 }, "zwei\nZeilen", ["drei"]]);
  }));

Deno.test("a torn last line is cut off, and what comes after it is read", () =>
  withRecord((path) => {
    write(path, ["whole", "torn"]);
    Deno.truncateSync(path, Deno.statSync(path).size - 3);
    assertEquals(read(path), ["whole"]);
    write(path, ["after"]);
    assertEquals(read(path), ["whole", "after"]);
  }));

Deno.test("a journal that is cut anywhere still gives back a beginning of what was appended", () =>
  withRecord((path) => {
    const values = ["one", { two: 2 }, [3, "drei"]];
    write(path, values);
    const bytes = Deno.readFileSync(path);
    for (let length = 0; length <= bytes.length; length++) {
      const found = readJournal(bytes.subarray(0, length));
      assertEquals(found.values, values.slice(0, found.values.length));
      assertEquals(found.damaged, 0);
    }
  }));

Deno.test("a damaged line in the middle is passed over and counted, the others are kept", () =>
  withRecord((path) => {
    write(path, ["first", "second", "third"]);
    const bytes = Deno.readFileSync(path);
    const at = new TextDecoder().decode(bytes).indexOf("second");
    bytes[at] = 0;
    assertEquals(readJournal(bytes).values, ["first", "third"]);
    assertEquals(readJournal(bytes).damaged, 1);
  }));

Deno.test("no bytes whatever make reading a journal throw", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
    const { wholeBytes } = readJournal(bytes);
    return wholeBytes <= bytes.length;
  }));
});

Deno.test("a journal in a folder that does not exist says so", () => {
  assertThrows(() => JournalFile.open("/nonexistent/record"), Deno.errors.NotFound);
});
