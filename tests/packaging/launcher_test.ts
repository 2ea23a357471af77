/** The launcher of portable files, with a shell script in the place of the runtime. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { portable } from "../../tools/build/portable.ts";
import {
  ended,
  executableOf,
  exists,
  giveAway,
  inFolder,
  runUnprivileged,
  SHELLS,
  startUnprivileged,
  until,
  writeScript,
} from "./support/command.ts";
import { NOBODY } from "../support/temp_folder.ts";
import { hostTarget, otherTarget } from "./support/targets.ts";

const AS_ROOT = Deno.uid() === 0;

/** Prints what it is, its process id and its arguments, one a line. */
const STAND_IN = `#!/bin/sh
[ "$1" = --version ] && exit 0
echo "pid=$$"
echo "program=$TESTFLINGER_AGENT_PROGRAM"
echo "cache=$DENO_DIR"
while [ "$1" != "\${1%/main.js}" ] || [ "\${1#--}" != "$1" ] || [ "$1" = run ]; do shift; done
cat "\${0%/testflinger-agent}/main.js"
for argument; do echo "argument=$argument"; done
exit 7
`;

interface Launcher {
  file: string;
  env: Record<string, string>;
  /** Where it unpacks to. */
  cache: string;
}

async function launcher(
  folder: string,
  { name = "testflinger-agent", program = "the program\n", target = hostTarget(), padding = 0 } =
    {},
): Promise<Launcher> {
  const file = join(folder, name);
  const deno = new TextEncoder().encode(`${STAND_IN}${"#".repeat(padding)}\n`);
  await Deno.writeFile(
    file,
    await portable({ version: "1.0.0", target, deno, program: { "main.js": program } }),
    {
      mode: 0o755,
    },
  );
  await Deno.chmod(file, 0o755);
  return {
    file,
    env: { XDG_CACHE_HOME: join(folder, "cache") },
    cache: join(folder, "cache", "testflinger-agent"),
  };
}

async function names(folder: string): Promise<string[]> {
  return (await Array.fromAsync(Deno.readDir(folder))).map(({ name }) => name).sort();
}

/** The folder of the one version that is unpacked. */
async function onlyVersion(cache: string): Promise<string> {
  const found = await names(cache);
  assertEquals(found.length, 1, found.join(" "));
  return join(cache, found[0] ?? "");
}

for (const shell of SHELLS) {
  Deno.test(`a portable file unpacks itself once and becomes the program: ${shell.join(" ")}`, () =>
    inFolder(async (folder) => {
      const { file, env, cache } = await launcher(folder);
      for (const start of ["first", "second"]) {
        const child = startUnprivileged([...shell, file, "--flag", "two words", "*"], { env });
        const { code, stdout, stderr } = await ended(child);
        assertEquals([code, stderr], [7, ""], start);
        const version = await onlyVersion(cache);
        assertEquals(stdout.split("\n"), [
          `pid=${child.pid}`,
          `program=${file}`,
          `cache=${version}/compiled`,
          "the program",
          "argument=two words",
          "argument=*",
          "",
        ]);
        assertEquals(await names(version), ["main.js", "testflinger-agent"]);
      }
    }));
}

Deno.test("many first starts at once all become the program, and leave one copy", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder, { padding: 2_000_000 });
    const all = await Promise.all(
      Array.from({ length: 12 }, () => runUnprivileged([file], { env })),
    );
    for (const { code, stdout, stderr } of all) {
      assertEquals([code, stderr], [7, ""]);
      assertStringIncludes(stdout, "the program\n");
    }
    assertEquals(await names(await onlyVersion(cache)), ["main.js", "testflinger-agent"]);
  }));

Deno.test("a damaged portable file is not run, and says that it is damaged", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    const bytes = await Deno.readFile(file);
    await Deno.truncate(file, bytes.length - 100);
    const { code, stdout, stderr } = await runUnprivileged([file], { env });
    assertEquals([code, stdout], [1, ""]);
    assertStringIncludes(stderr, `cannot unpack ${file}, tried these folders:\n`);
    assertStringIncludes(stderr, `  ${cache}: the checksum of what was unpacked is wrong`);
    assertEquals(await names(await onlyVersion(cache)), []);
  }));

Deno.test("a full disk fails each folder with its reason, and leaves nothing behind", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder, { padding: 2_000_000 });
    const limited = ["sh", "-c", 'ulimit -f 100; exec "$0"', file];
    const { code, stdout, stderr } = await runUnprivileged(limited, { env });
    assertEquals([code, stdout], [1, ""]);
    assertStringIncludes(stderr, `  ${cache}: `);
    assertStringIncludes(stderr, `  ${folder}/.testflinger-agent-cache: `);
    assertEquals(await names(await onlyVersion(cache)), []);
    // And with space again it runs.
    assertEquals((await runUnprivileged([file], { env })).code, 7);
  }));

Deno.test("where no cache folder can be made it unpacks next to the file", () =>
  inFolder(async (folder) => {
    const { file } = await launcher(folder);
    await Deno.writeTextFile(join(folder, "cache"), "a file is in the way");
    const env = { XDG_CACHE_HOME: join(folder, "cache"), HOME: "/nonexistent" };
    const { code, stdout } = await runUnprivileged([file], { env });
    assertEquals(code, 7);
    assertStringIncludes(stdout, `cache=${folder}/.testflinger-agent-cache/`);
  }));

Deno.test("TESTFLINGER_AGENT_CACHE names the folder that comes first; a relative one does not count", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    const own = { ...env, TESTFLINGER_AGENT_CACHE: join(folder, "own") };
    assertStringIncludes((await runUnprivileged([file], { env: own })).stdout, `=${folder}/own/1.`);
    const relative = { ...env, TESTFLINGER_AGENT_CACHE: "own" };
    assertStringIncludes((await runUnprivileged([file], { env: relative })).stdout, `=${cache}/1.`);
  }));

Deno.test("without XDG_CACHE_HOME the cache is below HOME; a relative one does not count", () =>
  inFolder(async (folder) => {
    const { file } = await launcher(folder);
    const env = { XDG_CACHE_HOME: "relative", HOME: folder };
    const { stdout } = await runUnprivileged([file], { env });
    assertStringIncludes(stdout, `cache=${folder}/.cache/testflinger-agent/`);
  }));

Deno.test("a folder that others can write to is not used", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    await Deno.mkdir(cache, { recursive: true });
    await giveAway(folder);
    await Deno.chmod(cache, 0o777);
    const { code, stdout } = await runUnprivileged([file], { env });
    assertEquals(code, 7);
    assertStringIncludes(stdout, `cache=${folder}/.testflinger-agent-cache/`);
  }));

Deno.test("a program that lies in a folder that others can write to is not run", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    await runUnprivileged([file], { env });
    const version = await onlyVersion(cache);
    for (
      const [path, mode] of [[version, 0o755], [join(version, "testflinger-agent"), 0o755]] as const
    ) {
      await Deno.chmod(path, mode | 0o020);
      const { stdout } = await runUnprivileged([file], { env });
      assertStringIncludes(stdout, `cache=${folder}/.testflinger-agent-cache/`, path);
      await Deno.chmod(path, mode);
    }
    assertStringIncludes((await runUnprivileged([file], { env })).stdout, `cache=${version}/`);
  }));

Deno.test({
  name: "a program that another account has put there is not run",
  // Only root can make files for another account.
  ignore: !AS_ROOT,
  fn: () =>
    inFolder(async (folder) => {
      const { file, env, cache } = await launcher(folder);
      await runUnprivileged([file], { env });
      const version = await onlyVersion(cache);
      const planted = "#!/bin/sh\necho planted\n".padEnd(
        (await Deno.stat(join(version, "testflinger-agent"))).size,
        "#",
      );
      await Deno.remove(join(version, "testflinger-agent"));
      await writeScript(join(version, "testflinger-agent"), planted);
      await Deno.chown(join(version, "testflinger-agent"), NOBODY - 1, NOBODY - 1);
      const { code, stdout } = await runUnprivileged([file], { env });
      assertEquals(code, 7);
      assert(!stdout.includes("planted"));
    }),
});

Deno.test("a file that a power cut has cut is unpacked again", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    await runUnprivileged([file], { env });
    const version = await onlyVersion(cache);
    for (const name of ["main.js", "testflinger-agent"]) {
      await Deno.truncate(join(version, name), 3);
      const { code, stdout } = await runUnprivileged([file], { env });
      assertEquals(code, 7, name);
      assertStringIncludes(stdout, "the program\n");
    }
  }));

/** A `tar` that says that it has begun and then waits to be told to go on. */
async function slowTar(folder: string) {
  const begun = join(folder, "begun");
  const goOn = join(folder, "go-on");
  await Deno.mkdir(join(folder, "bin"));
  await writeScript(
    join(folder, "bin", "tar"),
    `#!/bin/sh\n: >${begun}\nwhile [ ! -e ${goOn} ]; do sleep 0.02; done\nexec /bin/tar "$@"\n`,
  );
  await giveAway(folder);
  return {
    path: `${folder}/bin:/usr/bin:/bin`,
    hasBegun: () => exists(begun),
    goOn: () => Deno.writeTextFile(goOn, ""),
  };
}

Deno.test("killed while it unpacks, it leaves nothing that a later start would run", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    const tar = await slowTar(folder);
    const child = startUnprivileged([file], { env: { ...env, PATH: tar.path } });
    await until("it unpacks", tar.hasBegun);
    child.kill("SIGKILL");
    const killed = ended(child);
    await tar.goOn();
    await killed;
    assertEquals(await exists(join(await onlyVersion(cache), "testflinger-agent")), false);
    const { code, stdout } = await runUnprivileged([file], { env });
    assertEquals(code, 7);
    assertStringIncludes(stdout, "the program\n");
  }));

Deno.test("told to stop while it unpacks, it stops and cleans up", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    const tar = await slowTar(folder);
    const child = startUnprivileged([file], { env: { ...env, PATH: tar.path } });
    await until("it unpacks", tar.hasBegun);
    child.kill("SIGTERM");
    await tar.goOn();
    const { code, stdout } = await ended(child);
    assertEquals([code, stdout], [143, ""]);
    assertEquals(await names(await onlyVersion(cache)), []);
  }));

Deno.test("a request to restart does not kill what is just starting", () =>
  inFolder(async (folder) => {
    const { file, env } = await launcher(folder);
    const tar = await slowTar(folder);
    const child = startUnprivileged([file], { env: { ...env, PATH: tar.path } });
    await until("it unpacks", tar.hasBegun);
    child.kill("SIGUSR1");
    await tar.goOn();
    assertEquals((await ended(child)).code, 7);
  }));

Deno.test("left-overs of killed starts are removed an hour later", () =>
  inFolder(async (folder) => {
    const { file, env, cache } = await launcher(folder);
    await runUnprivileged([file], { env });
    const version = await onlyVersion(cache);
    const hour = 3_600_000;
    for (const [name, age] of [["unpacking.old", 2 * hour], ["unpacking.new", 0]] as const) {
      await Deno.mkdir(join(version, name));
      await giveAway(version);
      const time = new Date(Date.now() - age);
      await Deno.utime(join(version, name), time, time);
    }
    await Deno.remove(join(version, "testflinger-agent"));
    await runUnprivileged([file], { env });
    assertEquals(await names(version), ["main.js", "testflinger-agent", "unpacking.new"]);
  }));

/** A version of long ago that nobody runs: when it is gone, a start has tidied up. */
async function staleVersion(cache: string): Promise<string> {
  const stale = join(cache, `0.0.1-${hostTarget().arch}-stale`);
  await Deno.mkdir(stale);
  await giveAway(stale);
  const aDayAgo = new Date(Date.now() - 24 * 3_600_000);
  await Deno.utime(stale, aDayAgo, aDayAgo);
  return stale;
}

async function tidiedUp(stale: string): Promise<void> {
  await until("the start has tidied up", async () => !await exists(stale));
}

Deno.test("an upgrade removes other versions once no process runs them", () =>
  inFolder(async (folder) => {
    const old = await launcher(folder, { name: "old", program: "the old program\n" });
    await runUnprivileged([old.file], { env: old.env });
    const version = await onlyVersion(old.cache);
    // A process shows its version by what it executes: a real program, not a script.
    await Deno.copyFile("/bin/sleep", join(version, "testflinger-agent"));
    await giveAway(version);
    const aDayAgo = new Date(Date.now() - 24 * 3_600_000);
    await Deno.utime(version, aDayAgo, aDayAgo);
    const running = startUnprivileged([join(version, "testflinger-agent"), "1000"]);
    const over = ended(running);
    await until("it runs", async () => {
      return await executableOf(running.pid) === join(version, "testflinger-agent");
    });

    const { file, env, cache } = await launcher(folder, { name: "new" });
    const stale = await staleVersion(cache);
    assertStringIncludes((await runUnprivileged([file], { env })).stdout, "the program\n");
    await tidiedUp(stale);
    assertEquals((await names(cache)).length, 2);

    running.kill("SIGKILL");
    await over;
    await runUnprivileged([file], { env });
    await tidiedUp(version);
    assert(await onlyVersion(cache) !== version);
  }));

Deno.test("a version that was unpacked minutes ago is not removed by another one's start", () =>
  inFolder(async (folder) => {
    const old = await launcher(folder, { name: "old", program: "the old program\n" });
    await runUnprivileged([old.file], { env: old.env });
    const { file, env, cache } = await launcher(folder, { name: "new" });
    const stale = await staleVersion(cache);
    await runUnprivileged([file], { env });
    await tidiedUp(stale);
    assertEquals((await names(cache)).length, 2);
  }));

Deno.test("replaced by another version while it starts, it starts that one", () =>
  inFolder(async (folder) => {
    const { file, env } = await launcher(folder, { program: "the old program\n" });
    const next = await launcher(folder, { name: "next", program: "the new program\n" });
    await Deno.mkdir(join(folder, "bin"));
    // At the moment when the archive is about to be read.
    await writeScript(
      join(folder, "bin", "tail"),
      `#!/bin/sh\n[ ! -e ${next.file} ] || mv -f ${next.file} ${file}\nexec /usr/bin/tail "$@"\n`,
    );
    await giveAway(folder);
    const path = `${folder}/bin:/usr/bin:/bin`;
    const { code, stdout } = await runUnprivileged([file], { env: { ...env, PATH: path } });
    assertEquals(code, 7);
    assertStringIncludes(stdout, "the new program\n");
  }));

Deno.test("on the wrong kind of machine it says which file to take", () =>
  inFolder(async (folder) => {
    const { file, env } = await launcher(folder, { target: otherTarget() });
    const { code, stderr } = await runUnprivileged([file], { env });
    assertEquals(code, 1);
    assertMatch(stderr, /this file is for \w+, and this machine is \w+: take the file for \w+\n/);
    // Unless something runs it all the same.
    const emulated = { ...env, TESTFLINGER_AGENT_RUNNER: "env EMULATED=yes" };
    assertEquals((await runUnprivileged([file], { env: emulated })).code, 7);
  }));

Deno.test("found on PATH, through a link or by a relative name, it finds itself", () =>
  inFolder(async (folder) => {
    const { file, env } = await launcher(folder);
    await Deno.symlink(file, join(folder, "link"));
    const onPath = { ...env, PATH: `${folder}:/usr/bin:/bin` };
    for (const argv of [["testflinger-agent"], [join(folder, "link")]]) {
      assertEquals((await runUnprivileged(argv, { env: onPath })).code, 7, argv.join(" "));
    }
    for (const argv of [["./testflinger-agent"], ["sh", "testflinger-agent"]]) {
      const { stdout } = await runUnprivileged(argv, { env, cwd: folder });
      assertStringIncludes(stdout, `program=${file}\n`, argv.join(" "));
    }
  }));
