import { assert, assertEquals, assertRejects } from "@std/assert";
import { GZIP } from "../../../lib/job/artifacts/compress.ts";
import { packArtifacts } from "../../../lib/job/artifacts/pack.ts";

const MODULE = new URL("../../../lib/job/artifacts/pack.ts", import.meta.url).href;

/** Runs with a folder that has an `artifacts` folder, and a place for archives beside it. */
async function withArtifacts(
  run: (artifacts: string, beside: string) => Promise<void>,
): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "artifacts-" });
  try {
    await Deno.mkdir(`${root}/job/artifacts`, { recursive: true });
    await Deno.mkdir(`${root}/beside`);
    await run(`${root}/job/artifacts`, `${root}/beside`);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
}

async function shell(script: string, ...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-ec", script, "sh", ...args],
    env: { LC_ALL: "C.UTF-8" },
  }).output();
  assert(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

async function hasTool(name: string): Promise<boolean> {
  try {
    return (await new Deno.Command(name, { args: ["--version"], stdout: "null" }).output()).success;
  } catch {
    return false;
  }
}

/** Packs into a file and gives back what was reported, as `path: reason`. */
async function pack(artifacts: string, archive: string, gzip?: string): Promise<string[]> {
  const reported: string[] = [];
  const stream = packArtifacts(artifacts, {
    onSkipped: (path, reason) => reported.push(`${path}: ${reason}`),
    gzip,
  });
  await Deno.writeFile(archive, stream);
  return reported;
}

/** The members of an archive in their order. */
async function membersOf(archive: string): Promise<string[]> {
  return (await shell('tar -tzf "$1" --quoting-style=literal', archive)).trimEnd().split("\n");
}

interface Entry {
  kind: "file" | "directory" | "symlink";
  mode?: string;
  mtime?: number;
  contents?: string;
}

/** All below a folder with what an archive keeps of it. */
async function treeOf(folder: string, below = ""): Promise<Record<string, Entry>> {
  const tree: Record<string, Entry> = {};
  for await (const { name } of Deno.readDir(`${folder}/${below}`)) {
    const path = below === "" ? name : `${below}/${name}`;
    const info = await Deno.lstat(`${folder}/${path}`);
    if (info.isSymlink) {
      tree[path] = { kind: "symlink", contents: await Deno.readLink(`${folder}/${path}`) };
      continue;
    }
    const mtime = Math.floor((info.mtime?.getTime() ?? 0) / 1000);
    const common = { mode: ((info.mode ?? 0) & 0o7777).toString(8), mtime };
    if (info.isDirectory) {
      tree[path] = { kind: "directory", ...common };
      Object.assign(tree, await treeOf(folder, path));
    } else {
      const bytes = await Deno.readFile(`${folder}/${path}`);
      const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
      tree[path] = { kind: "file", ...common, contents: `${bytes.length} ${digest}` };
    }
  }
  return tree;
}

/** Makes files, folders and links with all that names and modes can be. */
const MAKE_TREE = `
  cd "$1"
  mkdir -p empty logs/deep
  printf 'hello\\n' > logs/test.log
  : > logs/empty.log
  head -c 700000 /dev/urandom > logs/deep/noise
  head -c 512 /dev/urandom > one-block
  printf x > 'spaces  in name' ; printf x > ./-rf ; printf x > "$(printf 'new\\nline')"
  printf x > 'ä ö 日本 😀' ; printf x > 'quo"te\\back'
  n=$(printf 'n%.0s' $(seq 150)) ; printf x > "$n"
  m=$(printf 'folder/%.0s' $(seq 50)) ; mkdir -p "$m" ; printf x > "$m/ünder"
  printf x > script ; chmod 755 script
  printf x > private ; chmod 600 private ; printf x > wide ; chmod 666 wide
  ln script second-name
  ln -s logs/test.log link ; ln -s /etc/passwd outside ; ln -s ../.. up ; ln -s nowhere dangling
  ln -s "$n" long-target ; ln -s 'ä' 'lïnk'
  touch -d '2001-02-03 04:05:06' one-block ; touch -d '1999-01-01' empty
`;

const UNPACK: Record<string, string> = {
  "GNU tar": 'tar -xpzf "$1" -C "$2"',
  "Python's tarfile": `python3 -c '
import sys, tarfile
archive = tarfile.open(sys.argv[1])
archive.extraction_filter = lambda member, path: member
archive.extractall(sys.argv[2])' "$1" "$2"`,
  "bsdtar": 'bsdtar -xpzf "$1" -C "$2"',
};

for (const [tool, script] of Object.entries(UNPACK)) {
  Deno.test(`${tool} unpacks the artifacts as they were`, {
    ignore: tool === "bsdtar" && !Deno.env.has("CI") && !await hasTool("bsdtar"),
  }, async () => {
    await withArtifacts(async (artifacts, beside) => {
      await shell(MAKE_TREE, artifacts);
      assertEquals(await pack(artifacts, `${beside}/archive.tar.gz`), []);
      await Deno.mkdir(`${beside}/unpacked`);
      await shell(script, `${beside}/archive.tar.gz`, `${beside}/unpacked`);
      assertEquals(
        await treeOf(`${beside}/unpacked`),
        await treeOf(artifacts.slice(0, -"/artifacts".length)),
      );
    });
  });
}

Deno.test("the same tree makes the same archive, wherever it lies", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await shell(MAKE_TREE, artifacts);
    await shell('cp -a "$1" "$2/other"', artifacts, beside);
    await pack(artifacts, `${beside}/1`);
    await pack(`${beside}/other`, `${beside}/2`);
    assertEquals(await Deno.readFile(`${beside}/1`), await Deno.readFile(`${beside}/2`));
  });
});

Deno.test("thousands of small files are unpacked as they were", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await shell(
      'for folder in a b c; do mkdir "$1/$folder"; for i in $(seq 700); do echo "$folder $i" >"$1/$folder/$i"; done; done',
      artifacts,
    );
    assertEquals(await pack(artifacts, `${beside}/a`, GZIP), []);
    await shell('tar -xzf "$1/a" -C "$1"', beside);
    assertEquals(await treeOf(`${beside}/artifacts`), await treeOf(artifacts));
  });
});

Deno.test("artifacts that are a link, a file or missing are packed as what they are", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await Deno.remove(artifacts);
    assertEquals(await pack(artifacts, `${beside}/missing`), [
      "artifacts: it vanished while it was packed",
    ]);
    assertEquals(await shell('tar -tzf "$1"', `${beside}/missing`), "");

    await Deno.symlink("/etc", artifacts);
    assertEquals(await pack(artifacts, `${beside}/link`), []);
    assert((await shell('tar -tvzf "$1"', `${beside}/link`)).endsWith("artifacts -> /etc\n"));

    await Deno.remove(artifacts);
    await Deno.writeTextFile(artifacts, "hello");
    assertEquals(await pack(artifacts, `${beside}/file`), []);
    assertEquals(await shell('tar -xzOf "$1" artifacts', `${beside}/file`), "hello");
  });
});

Deno.test("FIFOs and sockets are left out and reported", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await shell('mkfifo "$1/fifo" && printf x > "$1/file"', artifacts);
    using _socket = Deno.listen({ transport: "unix", path: `${artifacts}/socket` });
    assertEquals(await pack(artifacts, `${beside}/a`), [
      "artifacts/fifo: it is a FIFO",
      "artifacts/socket: it is a socket",
    ]);
    assertEquals(await membersOf(`${beside}/a`), ["artifacts/", "artifacts/file"]);
  });
});

/** Names, long and short, and targets of links that are not UTF-8, beside such as look like them. */
const MAKE_ODD_TREE = `
  cd "$1"
  printf one > "$(printf 'a\\377')"; printf two > "$(printf 'a\\376')"; printf three > "$(printf 'a\\357\\277\\275')"
  mkdir -p "$(printf 'd\\377')/plain/$(printf 'e\\377\\nnew{}line')"
  head -c 200000 /dev/urandom > "$(printf 'd\\377')/plain/$(printf 'e\\377\\nnew{}line')/file"
  : > "$(printf 'd\\377')/empty"; chmod 755 "$(printf 'd\\377')/empty"
  n=$(printf 'n%.0s' $(seq 150)); printf long > "$n$(printf '\\377')"
  ln -s "$(printf 't\\377')" link; ln -s "$n$(printf '\\377')" "$(printf 'odd\\377')"
  touch -d '2001-02-03 04:05:06' "$(printf 'a\\377')"
  printf z > z
`;

/**
 * Each entry below a folder, in bytes: kind, mode, time (but of links, to which Python's tarfile gives
 * none), name, target, and what is in files.
 */
const DESCRIBE = `
  cd "$1"; find . -type l -printf '%y %p -> %l\\0' -o -printf '%y %m %Ts %p\\0' | sort -z | od -An -c
  find . -type f -print0 | sort -z | xargs -0 sha256sum -z | od -An -c
`;

for (const [tool, script] of Object.entries(UNPACK)) {
  Deno.test(`${tool} unpacks names and targets of links that are not UTF-8 as they were`, {
    ignore: tool === "bsdtar" && !Deno.env.has("CI") && !await hasTool("bsdtar"),
  }, async () => {
    await withArtifacts(async (artifacts, beside) => {
      await shell(MAKE_ODD_TREE, artifacts);
      assertEquals(await pack(artifacts, `${beside}/a`), []);
      await Deno.mkdir(`${beside}/unpacked`);
      await shell(script, `${beside}/a`, `${beside}/unpacked`);
      assertEquals(
        await shell(`LC_ALL=C; ${DESCRIBE}`, `${beside}/unpacked/artifacts`),
        await shell(`LC_ALL=C; ${DESCRIBE}`, artifacts),
      );
    });
  });
}

Deno.test("special files whose names are not UTF-8 are reported", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await shell(`mkfifo "$1/$(printf 'f\\377')"`, artifacts);
    assertEquals(await pack(artifacts, `${beside}/a`), ["artifacts/f\ufffd: it is a FIFO"]);
    assertEquals(await membersOf(`${beside}/a`), ["artifacts/"]);
  });
});

Deno.test("files and folders that the agent may not read are left out and reported", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await shell(
      'mkdir "$1/closed"; printf x > "$1/closed/file"; printf x > "$1/secret"; printf x > "$1/z"; ' +
        'chmod 0 "$1/closed" "$1/secret"',
      artifacts,
    );
    const script = `
      import { packArtifacts } from ${JSON.stringify(MODULE)};
      const [artifacts, archive] = Deno.args;
      const reported = [];
      const onSkipped = (path, reason) => reported.push(path + ": " + reason.replace(/ \\(.*/, ""));
      await Deno.writeFile(archive, packArtifacts(artifacts, { onSkipped }));
      console.log(JSON.stringify(reported));`;
    await Deno.writeTextFile(`${beside}/child.ts`, script);
    // Root may read everything; without its capabilities it is a user like any other.
    const prefix = Deno.uid() === 0 ? ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] : [];
    const reported = await shell(
      '"$@"',
      ...prefix,
      Deno.execPath(),
      "run",
      "--no-check",
      "--allow-read",
      "--allow-write",
      `${beside}/child.ts`,
      artifacts,
      `${beside}/a`,
    );
    await Deno.chmod(`${artifacts}/closed`, 0o700);
    const [closed, secret, ...others] = JSON.parse(reported);
    assertEquals(closed, "artifacts/closed: what is in it cannot be listed: Permission denied");
    assert(secret.startsWith("artifacts/secret: ") && /permission denied/i.test(secret), secret);
    assertEquals(others, []);
    assertEquals(await membersOf(`${beside}/a`), [
      "artifacts/",
      "artifacts/closed/",
      "artifacts/z",
    ]);
  });
});

const MIB = 1024 * 1024;

/** Changes the artifacts while a large file at their beginning is being packed. */
async function packWhile(
  artifacts: string,
  beside: string,
  change: (large: string) => Promise<unknown>,
): Promise<string[]> {
  await shell('head -c 8388608 /dev/urandom > "$1/0-large"; printf x > "$1/z"', artifacts);
  await Deno.copyFile(`${artifacts}/0-large`, `${beside}/before`);
  const reported: string[] = [];
  const stream = packArtifacts(artifacts, {
    onSkipped: (path, reason) => reported.push(`${path}: ${reason}`),
  });
  const reader = stream.getReader();
  const chunks: Uint8Array[] = [];
  // Noise does not become smaller: with 1 MiB of the archive at least that much has been read.
  for (let size = 0; size < MIB;) {
    const { value } = await reader.read();
    if (value === undefined) throw new Error("the archive ended before 1 MiB of it had come");
    chunks.push(value);
    size += value.length;
  }
  await change(`${artifacts}/0-large`);
  for (let next; !(next = await reader.read()).done;) chunks.push(next.value);
  await Deno.writeFile(`${beside}/a`, ReadableStream.from(chunks));
  await shell('mkdir "$1/unpacked" && tar -xzf "$1/a" -C "$1/unpacked"', beside);
  return reported;
}

Deno.test("a file that shrinks while it is packed is filled with zeros and reported", async () => {
  await withArtifacts(async (artifacts, beside) => {
    const reported = await packWhile(artifacts, beside, (large) => Deno.truncate(large, MIB));
    assertEquals(reported.length, 1);
    const missing = /^artifacts\/0-large: its last (\d+) bytes are zeros: it became shorter/
      .exec(reported[0] ?? "")?.[1];
    const read = 8 * MIB - Number(missing);
    const packed = await Deno.readFile(`${beside}/unpacked/artifacts/0-large`);
    const before = await Deno.readFile(`${beside}/before`);
    assertEquals(packed.length, 8 * MIB);
    assert(read >= MIB && read < 8 * MIB, `${read} bytes were read`);
    assertEquals(packed.subarray(0, read), before.subarray(0, read));
    assert(packed.subarray(read).every((byte) => byte === 0));
    assertEquals(await Deno.readTextFile(`${beside}/unpacked/artifacts/z`), "x");
  });
});

Deno.test("a file that grows while it is packed is cut where it ended before", async () => {
  await withArtifacts(async (artifacts, beside) => {
    const reported = await packWhile(
      artifacts,
      beside,
      (large) => Deno.writeTextFile(large, "more", { append: true }),
    );
    assertEquals(reported, []);
    assertEquals(
      await Deno.readFile(`${beside}/unpacked/artifacts/0-large`),
      await Deno.readFile(`${beside}/before`),
    );
    assertEquals(await Deno.readTextFile(`${beside}/unpacked/artifacts/z`), "x");
  });
});

Deno.test("a file that vanishes, or becomes a link, while others are packed is not followed", async () => {
  await withArtifacts(async (artifacts, beside) => {
    await shell('printf x > "$1/y"', artifacts);
    const reported = await packWhile(artifacts, beside, async () => {
      await Deno.remove(`${artifacts}/y`);
      await Deno.remove(`${artifacts}/z`);
      await Deno.symlink("/etc/passwd", `${artifacts}/z`);
    });
    assertEquals(reported, ["artifacts/y: it vanished while it was packed"]);
    assertEquals(await Deno.readLink(`${beside}/unpacked/artifacts/z`), "/etc/passwd");
  });
});

Deno.test("packing stops when it is told to", async () => {
  await withArtifacts(async (artifacts) => {
    await shell('head -c 8388608 /dev/urandom > "$1/0-large"', artifacts);
    const stop = new AbortController();
    const reader = packArtifacts(artifacts, { onSkipped: () => {}, signal: stop.signal })
      .getReader();
    await reader.read();
    stop.abort(new Error("the agent stops"));
    await assertRejects(
      async () => {
        while (!(await reader.read()).done);
      },
      Error,
      "the agent stops",
    );
  });
});
