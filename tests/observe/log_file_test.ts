import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { createLogFile } from "../../lib/observe/log_file.ts";
import { localDate } from "../../lib/observe/log_format.ts";

const NAME = "testflinger-agent.log";
const DAY_MS = 24 * 60 * 60 * 1000;

/** Noon of the day `n` days from today, so that no test depends on the hour of its run. */
function noon(n = 0): number {
  const date = new Date();
  return new Date(date.getFullYear(), date.getMonth(), date.getDate() + n, 12).getTime();
}

async function inFolder(
  test: (folder: string, path: string) => void | Promise<void>,
) {
  const folder = await Deno.makeTempDir();
  try {
    await test(folder, `${folder}/${NAME}`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function logFile(path: string) {
  const failures: string[] = [];
  const file = createLogFile(path, { onRotationFailed: (reason) => failures.push(reason) });
  return { file, failures };
}

function names(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

/** Makes the file look as if its last line had been written at `ms`. */
function touch(path: string, ms: number) {
  Deno.utimeSync(path, ms / 1000, ms / 1000);
}

Deno.test("lines are appended, and are on disk when write() returns", () =>
  inFolder((_folder, path) => {
    Deno.writeTextFileSync(path, "old\n");
    const { file } = logFile(path);
    file.write("one", noon());
    assertEquals(Deno.readTextFileSync(path), "old\none\n");
    file.write("two", noon());
    assertEquals(Deno.readTextFileSync(path), "old\none\ntwo\n");
    file.close();
  }));

Deno.test("a new log file can be written by its owner only, and not read by everyone", () =>
  inFolder((folder) => {
    const { file } = logFile(`${folder}/made/on/demand/${NAME}`);
    file.write("x", noon());
    const mode = Deno.statSync(`${folder}/made/on/demand/${NAME}`).mode ?? 0;
    assertEquals(mode & 0o137, 0);
    assertEquals(mode & 0o600, 0o600);
    file.close();
  }));

Deno.test("at midnight the file is renamed after the day that is over", () =>
  inFolder((folder, path) => {
    const { file } = logFile(path);
    file.write("today", noon());
    file.write("tomorrow", noon(1));
    file.close();
    assertEquals(names(folder), [NAME, `${NAME}.${localDate(noon())}`]);
    assertEquals(Deno.readTextFileSync(`${path}.${localDate(noon())}`), "today\n");
    assertEquals(Deno.readTextFileSync(path), "tomorrow\n");
  }));

Deno.test("an agent started the next day moves the file of the day of its last line", () =>
  inFolder((folder, path) => {
    Deno.writeTextFileSync(path, "three days ago\n");
    touch(path, noon(-3));
    const { file } = logFile(path);
    file.write("now", noon());
    file.close();
    assertEquals(names(folder), [NAME, `${NAME}.${localDate(noon(-3))}`]);
    assertEquals(Deno.readTextFileSync(path), "now\n");
  }));

Deno.test("six old files are kept, and nothing but old log files is removed", () =>
  inFolder((folder, path) => {
    for (let n = 2; n <= 9; n++) Deno.writeTextFileSync(`${path}.${localDate(noon(-n))}`, "old\n");
    Deno.writeTextFileSync(`${path}.${localDate(noon(-9))}.1`, "old\n");
    const others = [`${NAME}.gz`, `${NAME}.2020-01-01.gz`, "other.log.2020-01-01"];
    for (const name of others) Deno.writeTextFileSync(`${folder}/${name}`, "keep\n");
    Deno.writeTextFileSync(path, "yesterday\n");
    touch(path, noon(-1));
    const { file } = logFile(path);
    file.write("now", noon());
    file.close();
    const kept = [1, 2, 3, 4, 5, 6].map((n) => `${NAME}.${localDate(noon(-n))}`);
    assertEquals(names(folder), [NAME, ...kept, ...others].sort());
  }));

Deno.test("a file of that day which is there already is not replaced", () =>
  inFolder((_folder, path) => {
    const aside = `${path}.${localDate(noon(-1))}`;
    Deno.writeTextFileSync(aside, "first\n");
    Deno.writeTextFileSync(path, "second\n");
    touch(path, noon(-1));
    const { file } = logFile(path);
    file.write("now", noon());
    file.close();
    assertEquals(Deno.readTextFileSync(aside), "first\n");
    assertEquals(Deno.readTextFileSync(`${aside}.1`), "second\n");
  }));

Deno.test("a clock that goes back moves nothing", () =>
  inFolder((folder, path) => {
    const { file } = logFile(path);
    file.write("one", noon());
    file.write("two", noon() - 2 * DAY_MS);
    file.close();
    assertEquals(names(folder), [NAME]);
  }));

Deno.test("two agents that share a folder lose no line at midnight", () =>
  inFolder((folder, path) => {
    const one = logFile(path).file;
    const two = logFile(path).file;
    one.write("one today", noon());
    two.write("two today", noon());
    one.write("one tomorrow", noon(1));
    // So that the new file's date is that of the line, as it is when midnight really passes.
    touch(path, noon(1));
    two.write("two tomorrow", noon(1));
    one.write("one again", noon(1));
    one.close();
    two.close();
    assertEquals(names(folder), [NAME, `${NAME}.${localDate(noon())}`]);
    assertEquals(
      Deno.readTextFileSync(`${path}.${localDate(noon())}`),
      "one today\ntwo today\n",
    );
    assertEquals(Deno.readTextFileSync(path), "one tomorrow\ntwo tomorrow\none again\n");
  }));

Deno.test("a file that logrotate moved away is made anew", () =>
  inFolder((folder, path) => {
    const { file } = logFile(path);
    file.write("one", noon());
    Deno.renameSync(path, `${folder}/moved`);
    file.write("two", noon());
    file.close();
    assertEquals(Deno.readTextFileSync(path), "two\n");
  }));

Deno.test("a folder that was removed is made anew", () =>
  inFolder((folder) => {
    const { file } = logFile(`${folder}/logs/${NAME}`);
    file.write("one", noon());
    Deno.removeSync(`${folder}/logs`, { recursive: true });
    file.write("two", noon());
    file.close();
    assertEquals(Deno.readTextFileSync(`${folder}/logs/${NAME}`), "two\n");
  }));

Deno.test("a link in place of the log file is not followed", () =>
  inFolder((folder, path) => {
    Deno.writeTextFileSync(`${folder}/victim`, "precious\n");
    Deno.symlinkSync(`${folder}/victim`, path);
    const { file } = logFile(path);
    assertThrows(() => file.write("x", noon()), Error);
    assertEquals(Deno.readTextFileSync(`${folder}/victim`), "precious\n");
    Deno.removeSync(path);
    Deno.symlinkSync(`${folder}/made`, path);
    assertThrows(() => file.write("x", noon()), Error);
    assertEquals(names(folder), [NAME, "victim"]);
    Deno.removeSync(path);
    file.write("y", noon());
    file.close();
    assertEquals(Deno.readTextFileSync(path), "y\n");
  }));

Deno.test("a FIFO or a folder in place of the log file fails instead of waiting", () =>
  inFolder(async (folder, path) => {
    await new Deno.Command("mkfifo", { args: [path] }).output();
    assertThrows(() => logFile(path).file.write("x", noon()), Error);
    Deno.mkdirSync(`${folder}/x/${NAME}`, { recursive: true });
    assertThrows(() => logFile(`${folder}/x/${NAME}`).file.write("x", noon()), Error);
  }));

Deno.test({
  name: "a file that another user has put into a shared folder is not written",
  // Only root can make a file that belongs to somebody else.
  ignore: Deno.uid() !== 0,
  fn: () =>
    inFolder((folder, path) => {
      Deno.chmodSync(folder, 0o1777);
      Deno.writeTextFileSync(path, "");
      Deno.chownSync(path, 65534, 65534);
      assertThrows(
        () => logFile(path).file.write("x", noon()),
        Error,
        "belongs to another user",
      );
      assertEquals(Deno.readTextFileSync(path), "");
    }),
});

Deno.test("a day that cannot be moved aside is told, and its lines go on into the same file", () =>
  inFolder((_folder, path) => {
    const { file, failures } = logFile(path);
    file.write("today", noon());
    // Every name that the file could get is taken.
    const day = localDate(noon());
    for (let n = 0; n < 1000; n++) Deno.mkdirSync(`${path}.${day}${n === 0 ? "" : `.${n}`}`);
    file.write("tomorrow", noon(1));
    file.write("and on", noon(1));
    file.close();
    assertEquals(failures.length, 1);
    assertMatch(failures[0] ?? "", /999 more names are taken/);
    assertEquals(Deno.readTextFileSync(path), "today\ntomorrow\nand on\n");
  }));

Deno.test("half a line that a power cut left is ended before the next one begins", () =>
  inFolder((_folder, path) => {
    Deno.writeTextFileSync(path, "whole\nhal");
    const { file } = logFile(path);
    file.write("next", noon());
    file.write("and on", noon());
    file.close();
    assertEquals(Deno.readTextFileSync(path), "whole\nhal\nnext\nand on\n");
  }));
