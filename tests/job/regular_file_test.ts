import { assertEquals, assertThrows } from "@std/assert";
import {
  NotRegular,
  openForReading,
  openForWriting,
  readSmallFile,
  rewriteFile,
} from "../../lib/job/regular_file.ts";
import { makeFifo, TempFolder } from "../support/temp_folder.ts";

const MODE = 0o600;
const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** What may stand where a file should be. */
const ODD: Record<string, (path: string, victim: string) => Promise<void>> = {
  "a link": (path, victim) => Deno.symlink(victim, path),
  "a link to nothing": (path, victim) => Deno.symlink(`${victim}-not-there`, path),
  "a FIFO": (path) => makeFifo(path),
  "a folder": (path) => Deno.mkdir(path),
  "a link to a device": (path) => Deno.symlink("/dev/null", path),
};

for (const [what, make] of Object.entries(ODD)) {
  Deno.test(`${what} is opened neither for reading nor for writing, and nothing waits for it`, async () => {
    await using folder = new TempFolder();
    const victim = folder.at("victim");
    await Deno.writeTextFile(victim, "precious");
    const path = folder.at("file");
    await make(path, victim);
    assertThrows(() => openForReading(path), NotRegular, path);
    assertThrows(() => openForWriting(path, { mode: MODE }), NotRegular, path);
    assertThrows(() => rewriteFile(path, "mine now", MODE), NotRegular, path);
    assertThrows(() => readSmallFile(path, 100), NotRegular, path);
    assertEquals(await Deno.readTextFile(victim), "precious");
    const names = [...Deno.readDirSync(folder.path)].map(({ name }) => name).sort();
    assertEquals(names, ["file", "victim"]);
  });
}

Deno.test("a file with a second name is opened unless its folder is everybody's", async () => {
  await using folder = new TempFolder();
  const [victim, path] = [folder.at("victim"), folder.at("file")];
  await Deno.writeTextFile(victim, "precious");
  await Deno.link(victim, path);
  assertEquals(text(readSmallFile(path, 100)), "precious");
  assertThrows(() => openForReading(path, { oneName: true }), NotRegular, "more than one name");
  assertThrows(
    () => openForWriting(path, { mode: MODE, oneName: true }),
    NotRegular,
    "more than one name",
  );
  assertEquals(await Deno.readTextFile(victim), "precious");
});

Deno.test("a file that is made has its mode, and is written anew or at its end", async () => {
  await using folder = new TempFolder();
  const path = folder.at("file");
  rewriteFile(path, "a longer first text", MODE);
  assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, MODE);
  rewriteFile(path, "short", MODE);
  using file = openForWriting(path, { mode: MODE, append: true });
  await file.write(new TextEncoder().encode(" and more"));
  assertEquals(await Deno.readTextFile(path), "short and more");
});

Deno.test("a file is read from any place on, and not at all when it is too large", async () => {
  await using folder = new TempFolder();
  const path = folder.at("file");
  await Deno.writeTextFile(path, "0123456789");
  using file = openForReading(path);
  const buffer = new Uint8Array(4);
  assertEquals(file.read(buffer, 8), 2);
  assertEquals(text(buffer.subarray(0, 2)), "89");
  assertEquals(file.read(buffer, 10), 0);
  assertEquals(text(readSmallFile(path, 10)), "0123456789");
  assertThrows(() => readSmallFile(path, 9), NotRegular, "more than 9 bytes");
});

Deno.test("a file that is not there is just not there", async () => {
  await using folder = new TempFolder();
  assertThrows(() => openForReading(folder.at("none")), Deno.errors.NotFound);
});
