import { assert, assertEquals } from "@std/assert";
import {
  type ArchiveMember,
  END_OF_ARCHIVE,
  headerOf,
} from "../../../lib/job/artifacts/tar_writer.ts";

const GIB = 1024 ** 3;
const LARGE: ArchiveMember = {
  type: "file",
  name: "artifacts/disk.img",
  size: 9 * GIB,
  mode: 0o640,
  mtime: 1700000000,
};

/** Writes an archive of these headers; contents are holes, so that 9 GiB take no room. */
async function writeSparse(path: string, members: ArchiveMember[]): Promise<void> {
  using file = await Deno.open(path, { write: true, createNew: true });
  for (const member of members) {
    await file.write(headerOf(member));
    await file.seek(Math.ceil(member.size / 512) * 512, Deno.SeekMode.Current);
  }
  await file.write(END_OF_ARCHIVE);
}

async function list(command: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, {
    args,
    env: { TZ: "UTC", LC_ALL: "C.UTF-8" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

const PYTHON_LIST = `
import sys, tarfile
for m in tarfile.open(sys.argv[1]):
    print(m.name, m.size, oct(m.mode), int(m.mtime), m.uid, m.gid, m.linkname)`;

Deno.test("a file of more than 8 GiB and times out of the ordinary are read right by tar and tarfile", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/archive.tar`;
    const ancient: ArchiveMember = {
      ...LARGE,
      name: "artifacts/ancient",
      size: 0,
      mtime: -86400.5,
    };
    const far: ArchiveMember = { ...LARGE, name: "artifacts/far", size: 0, mtime: 2 ** 34 };
    await writeSparse(path, [LARGE, ancient, far]);
    assertEquals(
      await list("python3", "-c", PYTHON_LIST, path),
      `artifacts/disk.img ${9 * GIB} 0o640 1700000000 0 0 \n` +
        "artifacts/ancient 0 0o640 -86401 0 0 \n" +
        `artifacts/far 0 0o640 ${2 ** 34} 0 0 \n`,
    );
    const lines = (await list("tar", "-tvf", path)).split("\n");
    assert(/ 9663676416 2023-11-14 22:13 artifacts\/disk.img$/.test(lines[0] ?? ""), lines[0]);
    assert(/ 1969-12-30 23:59 artifacts\/ancient$/.test(lines[1] ?? ""), lines[1]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a setuid file does not become one of root's when root unpacks the archive", () => {
  const header = headerOf({ ...LARGE, size: 0, mode: 0o106755 });
  assertEquals(
    new TextDecoder().decode(header.subarray(100, 124)),
    "0000755\u00000000000\u00000000000\u0000",
  );
});
