import { assert, assertEquals, assertRejects } from "@std/assert";
import { fillJobFolder, makeJobFolder, moveFolder, removeFolder } from "../../lib/job/folder.ts";
import { recordingLog } from "../support/recording_log.ts";
import { after, moduleAt, runScript } from "../support/script.ts";

const JOB_ID = "00000000-0000-0000-0000-000000000001";

/** A user that owns nothing of ours. */
const SOMEBODY = 65534;

/** A mount name space of its own, in which also an ordinary user may mount. */
const UNSHARE = Deno.uid() === 0
  ? ["unshare", "--mount"]
  : ["unshare", "--user", "--map-root-user", "--mount"];

/** Code for a child. */
const REMOVE_JOB =
  `end.where = await removeFolder(root + "/job", { trash: root + "/trash", log });`;

async function withFolder(run: (root: string) => Promise<void>): Promise<void> {
  const root = await Deno.makeTempDir({ prefix: "folder-" });
  try {
    await run(root);
  } finally {
    await new Deno.Command("chmod", { args: ["-R", "u+rwx", root], stderr: "null" }).output();
    await Deno.remove(root, { recursive: true });
  }
}

async function modeOf(path: string): Promise<string> {
  return (((await Deno.lstat(path)).mode ?? 0) & 0o7777).toString(8);
}

function namesIn(folder: string): string[] {
  return [...Deno.readDirSync(folder)].map((entry) => entry.name).sort();
}

async function exists(path: string): Promise<boolean> {
  return await Deno.lstat(path).then(() => true, () => false);
}

Deno.test("a job's folder is for the agent alone and holds what a job starts with", async () => {
  await withFolder(async (root) => {
    const folder = await makeJobFolder(`${root}/new/run`, JOB_ID, { log: recordingLog() });
    assertEquals(folder, `${root}/new/run/${JOB_ID}`);
    assertEquals(await modeOf(folder), "700");
    assertEquals(namesIn(folder), []);

    await fillJobFolder(folder, '{"job_id": "x"}');
    assertEquals(namesIn(folder), [
      "device-connector-error.json",
      "testflinger-outcome.json",
      "testflinger.json",
    ]);
    assertEquals(await Deno.readTextFile(`${folder}/testflinger.json`), '{"job_id": "x"}');
    assertEquals(await Deno.readTextFile(`${folder}/testflinger-outcome.json`), "{}");
    assertEquals(await Deno.readTextFile(`${folder}/device-connector-error.json`), "");
    assertEquals(await modeOf(`${folder}/testflinger.json`), "600");
  });
});

Deno.test("the modes in a job's folder do not depend on the agent's umask", async () => {
  for (const umask of ["000", "077"]) {
    await withFolder(async (root) => {
      await inChild(
        `const folder = await makeJobFolder(root + "/run", "${JOB_ID}", { log });
         await fillJobFolder(folder, "{}");`,
        root,
        after(`umask ${umask}`),
      );
      const folder = `${root}/run/${JOB_ID}`;
      assertEquals(await modeOf(folder), "700");
      assertEquals(await modeOf(`${folder}/testflinger.json`), "600");
      assertEquals(await modeOf(`${folder}/testflinger-outcome.json`), "644");
      assertEquals(await modeOf(`${folder}/device-connector-error.json`), "644");
    });
  }
});

Deno.test("a folder that an earlier run left is never mixed with the new one", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/${JOB_ID}/attachments`, { recursive: true });
    await Deno.writeTextFile(`${root}/${JOB_ID}/test.log`, "old");
    await Deno.mkdir(`${root}/${JOB_ID}.leftover-1`);
    const log = recordingLog();
    const folder = await makeJobFolder(root, JOB_ID, { log });
    assertEquals(namesIn(folder), []);
    assertEquals(namesIn(root), [JOB_ID, `${JOB_ID}.leftover-1`]);
    assertEquals(log.lines.map(({ level, message }) => [level, message]), [
      ["warning", `An earlier run left ${folder}: it is removed`],
    ]);
  });
});

Deno.test("a link in place of a job's folder is not followed", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/target`);
    await Deno.writeTextFile(`${root}/target/file`, "kept");
    await Deno.mkdir(`${root}/run`);
    for (const target of ["../target", "nowhere"]) {
      await Deno.symlink(target, `${root}/run/${JOB_ID}`);
      await makeJobFolder(`${root}/run`, JOB_ID, { log: recordingLog() });
      assert((await Deno.lstat(`${root}/run/${JOB_ID}`)).isDirectory);
      await Deno.remove(`${root}/run/${JOB_ID}`);
    }
    assertEquals(await Deno.readTextFile(`${root}/target/file`), "kept");
    assertEquals(namesIn(`${root}/run`), []);
  });
});

Deno.test("a base folder that exists keeps its mode, also when it is a link", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/run`);
    await Deno.chmod(`${root}/run`, 0o750);
    await Deno.symlink("run", `${root}/link`);
    await makeJobFolder(`${root}/run`, "one", { log: recordingLog() });
    await makeJobFolder(`${root}/link`, "two", { log: recordingLog() });
    assertEquals(await modeOf(`${root}/run`), "750");
    assertEquals(namesIn(`${root}/run`), ["one", "two"]);
  });
});

Deno.test("a job id that is a path makes no folder", async () => {
  await withFolder(async (root) => {
    for (const jobId of ["", ".", "..", "../x", "a/b", "/etc"]) {
      await assertRejects(
        () => makeJobFolder(`${root}/run`, jobId, { log: recordingLog() }),
        TypeError,
        "it is no job id",
      );
    }
    assertEquals(namesIn(root), []);
  });
});

Deno.test("nothing in a job's folder is written through a link or over a file", async () => {
  await withFolder(async (root) => {
    await Deno.writeTextFile(`${root}/target`, "kept");
    const folder = await makeJobFolder(`${root}/run`, JOB_ID, { log: recordingLog() });
    await Deno.symlink(`${root}/target`, `${folder}/testflinger.json`);
    await assertRejects(() => fillJobFolder(folder, "secret"), Deno.errors.AlreadyExists);
    assertEquals(await Deno.readTextFile(`${root}/target`), "kept");
  });
});

Deno.test("a folder goes with closed folders, odd names and links in it, and the links' targets stay", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/job`);
    await Deno.mkdir(`${root}/target`);
    await Deno.chmod(`${root}/target`, 0o500);
    await Deno.writeTextFile(`${root}/target-file`, "kept");
    await Deno.symlink("../target", `${root}/job/link`);
    await Deno.symlink("../target-file", `${root}/job/link-to-file`);
    await makeOddTree(`${root}/job`);
    const log = recordingLog();
    assertEquals(await removeFolder(`${root}/job`, { trash: `${root}/trash`, log }), "removed");
    assertEquals(namesIn(root), ["target", "target-file"]);
    assertEquals(await modeOf(`${root}/target`), "500");
    assertEquals(log.lines, []);
  });
});

Deno.test("removing a folder that is gone, a link or a file is no trouble", async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/target`);
    await Deno.symlink("target", `${root}/link`);
    await Deno.writeTextFile(`${root}/file`, "");
    const log = recordingLog();
    for (const name of ["link", "file", "gone"]) {
      assertEquals(await removeFolder(`${root}/${name}`, { trash: `${root}/t`, log }), "removed");
    }
    assertEquals(namesIn(root), ["target"]);
    assertEquals(log.lines, []);
  });
});

Deno.test("an agent that is not root removes folders that were closed to it", async () => {
  await withFolder(async (root) => {
    await makeOddTree(`${root}/job`);
    const end = await inChild(REMOVE_JOB, root, await withoutPrivileges());
    assertEquals(end, { where: "removed", lines: [] });
    assertEquals(await exists(`${root}/job`), false);
  });
});

Deno.test(
  "a folder with another user's files goes to the trash, and the log says once what to do",
  {
    ignore: Deno.uid() !== 0, // only root can give files away
  },
  async () => {
    await withFolder(async (root) => {
      await makeForeignTree(`${root}/job's`);
      const end = await inChild(
        `for (let i = 0; i < 2; i++) {
         end.where = await removeFolder(root + "/job's", { trash: root + "/.trash-a", log });
       }`,
        root,
        await withoutPrivileges(),
      );
      assertEquals(end.where, "removed", "the second time there is nothing left to remove");
      assertEquals(await exists(`${root}/job's`), false);
      assert(await exists(`${root}/.trash-a/job's-1/container/file`));
      assertEquals(await modeOf(`${root}/.trash-a`), "700");
      assertEquals(end.lines.length, 1);
      const [line = ""] = end.lines;
      assert(line.startsWith(`error Cannot remove ${root}/job's: Permission denied`), line);
      const place = `'${root}/.trash-a/job'\\''s-1'`;
      assert(line.endsWith(`remove it by hand, with sudo rm -rf --one-file-system ${place}`), line);
    });
  },
);

Deno.test("a folder that cannot even be moved stays, and the log says so once", {
  ignore: Deno.uid() !== 0,
}, async () => {
  await withFolder(async (root) => {
    await makeForeignTree(`${root}/job`);
    await Deno.writeTextFile(`${root}/not-a-folder`, "");
    const end = await inChild(
      `const said = new Said();
       for (let i = 0; i < 3; i++) {
         end.where = await removeFolder(root + "/job", { trash: root + "/not-a-folder", log, said });
       }`,
      root,
      await withoutPrivileges(),
    );
    assertEquals(end.where, "left");
    assert(await exists(`${root}/job/container/file`));
    assertEquals(end.lines.length, 1);
    assert(end.lines[0]?.includes(`cannot be moved to ${root}/not-a-folder either`));
  });
});

Deno.test("a new job gets its folder although a leftover cannot be removed", {
  ignore: Deno.uid() !== 0,
}, async () => {
  await withFolder(async (root) => {
    await makeForeignTree(`${root}/run/${JOB_ID}`);
    await inChild(
      `await makeJobFolder(root + "/run", "${JOB_ID}", { log, trash: root + "/run/.trash-a" });`,
      root,
      await withoutPrivileges(),
    );
    assertEquals(namesIn(`${root}/run`), [".trash-a", JOB_ID]);
    assertEquals(namesIn(`${root}/run/${JOB_ID}`), []);
    assertEquals(namesIn(`${root}/run/.trash-a`), [`${JOB_ID}.leftover-1-1`]);
  });
});

Deno.test("what is mounted in a folder is not removed with it", {
  ignore: !await mayMount(), // containers without CAP_SYS_ADMIN and user namespaces
}, async () => {
  for (
    const mount of ['-t tmpfs none "$ROOT/job/m nt"', '--bind "$ROOT/precious" "$ROOT/job/m nt"']
  ) {
    await withFolder(async (root) => {
      await Deno.mkdir(`${root}/job/m nt`, { recursive: true });
      await Deno.mkdir(`${root}/precious`);
      await Deno.writeTextFile(`${root}/precious/file`, "kept");
      const script = `mount ${mount} && touch "$ROOT/job/m nt/inside" && exec "$@"`;
      const end = await inChild(
        `${REMOVE_JOB}
         end.inside = [...Deno.readDirSync(root + "/trash/job-1/m nt")].map((e) => e.name).sort();`,
        root,
        [...UNSHARE, "sh", "-c", script, "sh"],
      );
      assertEquals(end.where, "trash");
      assert(end.inside?.includes("inside"));
      const reason = `a file system is mounted at ${await Deno.realPath(root)}/job/m nt.`;
      assert(end.lines[0]?.includes(reason), end.lines[0]);
      assertEquals(await Deno.readTextFile(`${root}/precious/file`), "kept");
    });
  }
});

Deno.test("a folder is moved on the same file system, and not to another one", {
  ignore: !await mayMount(),
}, async () => {
  await withFolder(async (root) => {
    await Deno.mkdir(`${root}/from`);
    await Deno.mkdir(`${root}/other`);
    const end = await inChild(
      `end.inside = [
         String(await moveFolder(root + "/from", root + "/to")),
         String(await moveFolder(root + "/to", root + "/other/to")),
       ];`,
      root,
      [...UNSHARE, "sh", "-c", 'mount -t tmpfs none "$ROOT/other" && exec "$@"', "sh"],
    );
    assertEquals(end.inside, ["true", "false"]);
    assertEquals(namesIn(root), ["other", "to"]);
  });
});

Deno.test("a folder that is not there cannot be moved", async () => {
  await withFolder(async (root) => {
    await assertRejects(() => moveFolder(`${root}/a`, `${root}/b`), Deno.errors.NotFound);
  });
});

/** Folders of all modes, a file in each, and names that are not UTF-8. */
async function makeOddTree(top: string): Promise<void> {
  const { success, stderr } = await new Deno.Command("sh", {
    args: [
      "-c",
      `mkdir -p "$1/closed/below/deep" "$1/read-only/below" "$1/no-entry" &&
       touch "$1/closed/below/deep/file" "$1/read-only/below/file" "$1/no-entry/file" &&
       mkdir "$1/$(printf 'd\\377')" && touch "$1/$(printf 'd\\377')/$(printf 'f\\376')" &&
       mkfifo "$1/fifo" && touch "$1/none" && chmod 0 "$1/none" "$1/closed/below/deep/file" &&
       chmod 0 "$1/closed/below/deep" "$1/closed/below" "$1/closed" &&
       chmod 500 "$1/read-only/below" "$1/read-only" && chmod 600 "$1/no-entry" && chmod 0 "$1"`,
      "sh",
      top,
    ],
  }).output();
  assert(success, new TextDecoder().decode(stderr));
}

/** A folder of ours with one in it that belongs to another user and has a file. */
async function makeForeignTree(top: string): Promise<void> {
  await Deno.mkdir(`${top}/container`, { recursive: true });
  await Deno.writeTextFile(`${top}/container/file`, "");
  await Deno.chown(`${top}/container/file`, SOMEBODY, SOMEBODY);
  await Deno.chown(`${top}/container`, SOMEBODY, SOMEBODY);
}

async function mayMount(): Promise<boolean> {
  const [command = "", ...args] = [...UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"];
  try {
    return (await new Deno.Command(command, { args, stderr: "null" }).output()).success;
  } catch {
    return false;
  }
}

/**
 * What to start a command with so that the permissions of files count for it. Root keeps its user
 * id, so that it can still read the program, and loses what makes it root.
 */
async function withoutPrivileges(): Promise<string[]> {
  if (Deno.uid() !== 0) return [];
  const prefix = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];
  const [command = "", ...args] = [...prefix, "cat", "/proc/self/status"];
  const { stdout } = await new Deno.Command(command, { args }).output();
  assert(
    new TextDecoder().decode(stdout).includes("CapEff:\t0000000000000000"),
    "still privileged",
  );
  return prefix;
}

interface ChildEnd {
  where?: string;
  inside?: string[];
  /** What was logged: level and message. */
  lines: string[];
}

/**
 * Runs some code in a process of its own, started through `through`; `$ROOT` there and `root` in the
 * code are the folder, `log` is a log, `end` is what comes back.
 */
async function inChild(
  code: string,
  root: string,
  through: readonly string[],
): Promise<ChildEnd> {
  const script = `
    import { fillJobFolder, makeJobFolder, moveFolder, removeFolder } from ${
    moduleAt("lib/job/folder.ts")
  };
    import { Said } from ${moduleAt("lib/once.ts")};
    const root = Deno.args[0];
    const end = { lines: [] };
    const keep = (level) => (message) => void end.lines.push(level + " " + message);
    const log = { debug: keep("debug"), info: keep("info"), warning: keep("warning"), error: keep("error") };
    ${code}
    console.log(JSON.stringify(end));`;
  return JSON.parse(
    await runScript(script, {
      through,
      args: [root],
      env: { ROOT: root },
      permissions: ["--allow-read", "--allow-write", "--allow-run=cat,find,rm,/usr/bin/setsid"],
    }),
  );
}
