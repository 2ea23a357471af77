import { assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import {
  examineFolder,
  NotRegular,
  openForReading,
  openForWriting,
  readSmallFile,
  rewriteFile,
} from "../../lib/job/untrusted_paths.ts";
import { IS_ROOT, makeFifo, NOBODY, TempFolder } from "../support/temp_folder.ts";

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

/** Folders below one that is as `/tmp` is. */
function below(folder: TempFolder, ...names: string[]): string {
  Deno.chmodSync(folder.path, 0o1777);
  const path = folder.at(...names);
  Deno.mkdirSync(path, { recursive: true });
  return path;
}

const US = Deno.uid() ?? 0;

Deno.test("folders of ours below one that is everybody's are trusted", async () => {
  await using folder = new TempFolder();
  assertEquals(examineFolder(below(folder, "testflinger", "run"), US), { open: [] });
});

Deno.test("a folder below /tmp that another user made first is not, nor what is in it", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const run = below(folder, "testflinger", "run");
  await Deno.chown(folder.at("testflinger"), NOBODY, NOBODY);
  const { refusal = "" } = examineFolder(run, US);
  assertStringIncludes(refusal, `${folder.at("testflinger")} belongs to user ${NOBODY}`);
});

Deno.test("what root made is trusted by every user, what another one made by none", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const run = below(folder, "run");
  assertEquals(examineFolder(run, NOBODY), { open: [] });
  await Deno.chown(run, NOBODY, NOBODY);
  assertEquals(examineFolder(run, NOBODY), { open: [] });
  assertStringIncludes(examineFolder(run, 1).refusal ?? "", `belongs to user ${NOBODY}`);
});

Deno.test("a link of another user's below /tmp is not followed, one of ours is", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  below(folder, "real", "run");
  const link = folder.at("link");
  await Deno.symlink("real", link);
  assertEquals(examineFolder(`${link}/run`, US), { open: [] });
  await new Deno.Command("chown", { args: ["-h", `${NOBODY}`, link] }).output();
  assertStringIncludes(examineFolder(`${link}/run`, US).refusal ?? "", `${link} belongs to user`);
});

Deno.test("a link of ours is followed to where it leads, and that is looked at, too", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const theirs = below(folder, "theirs");
  await Deno.chown(theirs, NOBODY, NOBODY);
  below(folder, "deep");
  await Deno.symlink(theirs, folder.at("absolute"));
  await Deno.symlink("deep/../theirs", folder.at("relative"));
  for (const name of ["absolute", "relative"]) {
    const { refusal = "" } = examineFolder(folder.at(name), US);
    assertStringIncludes(refusal, `${theirs} belongs to user`);
  }
});

Deno.test("links in a circle are no folder to be trusted", async () => {
  await using folder = new TempFolder();
  await Deno.symlink("b", folder.at("a"));
  await Deno.symlink("a", folder.at("b"));
  assertStringIncludes(examineFolder(folder.at("a"), US).refusal ?? "", "too many links");
});

Deno.test("a folder that everybody may write to is named, unless they may only add to it", async () => {
  await using folder = new TempFolder();
  const run = below(folder, "run");
  await Deno.chmod(run, 0o777);
  assertEquals(examineFolder(run, US), { open: [run] });
  await Deno.chmod(run, 0o1777);
  assertEquals(examineFolder(run, US), { open: [] });
});
