import { assert, assertEquals } from "@std/assert";
import { unpackAttachments } from "../../../lib/job/attachments/unpack.ts";
import { Canary, LIMITS, refused, TempFolder, treeOf, unpacked } from "./support.ts";

/** One row of the table that tests/fixtures/archives/make.py writes. */
type Row =
  | { file: string; result: "refused"; why: string; says: string }
  | { file: string; result: "unpacked"; why: string; members: Expected[] };

interface Expected {
  path: string;
  kind: "file" | "directory" | "symlink";
  mode?: number;
  size?: number;
  sha256?: string;
  links?: number;
  mtime?: number;
  target?: string;
}

const MAKER = new URL("../../fixtures/archives/make.py", import.meta.url).pathname;
const IMPLIED_FOLDER_MODE = 0o755;

async function makeArchives(folder: string): Promise<Row[]> {
  const { success, stderr } = await new Deno.Command("python3", { args: [MAKER, folder] }).output();
  assert(success, new TextDecoder().decode(stderr));
  return JSON.parse(await Deno.readTextFile(`${folder}/table.json`));
}

Deno.test("the archives of the corpus get the result of its table", async (t) => {
  await using made = new TempFolder();
  const table = await makeArchives(made.path);
  const hostile = table.filter((row) => row.result === "refused");
  assert(hostile.length >= 40, `only ${hostile.length} hostile archives`);
  const byBsdtar = table.filter((row) => row.file.startsWith("good-bsdtar-"));
  assertEquals(byBsdtar.length, await hasTool("bsdtar") ? 5 : 0);

  for (const row of table) {
    await t.step(`${row.file} is ${row.result}: ${row.why}`, async () => {
      await using root = new TempFolder();
      const canary = new Canary(root.path);
      const folder = `${root.path}/attachments`;
      await Deno.mkdir(folder);
      const archive = await Deno.open(`${made.path}/${row.file}`);
      const result = await unpackAttachments(archive.readable, folder, { limits: LIMITS });

      assertEquals(canary.change(), undefined);
      if (row.result === "refused") {
        const { kind, reason } = refused(result);
        assertEquals(kind, "archive");
        assert(reason.includes(row.says), `${reason} / ${row.says}`);
        assert(!reason.includes("\n"));
        assertEquals(treeOf(folder), []);
      } else {
        const { bytes } = unpacked(result);
        await checkTree(folder, row.members);
        // A hard link is stored once.
        const sizes = row.members.map(({ size = 0, links = 1 }) => size / links);
        assertEquals(bytes, sizes.reduce((sum, size) => sum + size, 0));
      }
    });
  }
});

Deno.test("bsdtar is there, so that its archives are in the corpus", {
  // Where tests decide about a release nothing may be left out; a developer may lack the tool.
  ignore: !Deno.env.has("CI") && !await hasTool("bsdtar"),
}, async () => {
  assert(await hasTool("bsdtar"), "bsdtar is missing: apt-get install libarchive-tools");
});

async function hasTool(name: string): Promise<boolean> {
  try {
    return (await new Deno.Command(name, { args: ["--version"], stdout: "null" }).output()).success;
  } catch {
    return false;
  }
}

async function checkTree(folder: string, members: Expected[]): Promise<void> {
  const expected = new Map(members.map((member) => [member.path, member]));
  for (const { path, info } of treeOf(folder)) {
    const member = expected.get(path) ??
      { path, kind: "directory", mode: IMPLIED_FOLDER_MODE } satisfies Expected;
    expected.delete(path);
    const kind = info.isSymlink ? "symlink" : info.isDirectory ? "directory" : "file";
    assertEquals(kind, member.kind, path);
    if (kind === "symlink") {
      assertEquals(await Deno.readLink(`${folder}/${path}`), member.target, path);
      continue;
    }
    assertEquals((info.mode ?? 0) & 0o7777, member.mode, `mode of ${path}`);
    if (kind === "file") {
      assertEquals(info.size, member.size, path);
      assertEquals(info.nlink, member.links, `links of ${path}`);
      assertEquals(Math.floor((info.mtime?.getTime() ?? 0) / 1000), member.mtime, path);
      assertEquals(await sha256(`${folder}/${path}`), member.sha256, `contents of ${path}`);
    }
  }
  assertEquals([...expected.keys()], [], "missing");
}

async function sha256(path: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", await Deno.readFile(path));
  return new Uint8Array(digest).toHex();
}
