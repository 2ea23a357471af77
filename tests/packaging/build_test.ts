/** `deno task build`, up to the files; what the files do is in portable_test.ts. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundle, MAIN_FILE, type Program, stampBundle } from "../../tools/build/bundle.ts";
import { compile, runtimeMissing } from "../../tools/build/compile.ts";
import { elfMachine } from "../../tools/build/elf.ts";
import { collectNotices, packagesIn } from "../../tools/build/notices.ts";
import { withoutForesight } from "../../tools/build/portable.ts";
import { BuildError, type Target } from "../../tools/build/targets.ts";
import { CONNECTOR_NAMES } from "../../connectors/registry.ts";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { VERSION } from "../../lib/version.ts";
import { ended, isInstalled, type Ran } from "./support/command.ts";
import { hostTarget, otherTarget } from "./support/targets.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const HOST = hostTarget();

async function inTemp(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-build-test-" });
  try {
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The build as whoever types `deno task build` has it. */
function build(args: string[], env: Record<string, string> = {}): Promise<Ran> {
  return ended(
    new Deno.Command(Deno.execPath(), {
      args: ["run", ...PERMISSIONS, "tools/build/main.ts", ...args],
      cwd: ROOT,
      env: { NO_COLOR: "1", ...env },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn(),
  );
}

function bundled(): Promise<Program> {
  return bundle(join(ROOT, "main.ts"), ROOT);
}

Deno.test("the build says what it can be asked for", async () => {
  for (
    const [args, message] of [
      [["--target", "riscv64-unknown-linux-gnu"], /--target is one of x86_64-.*not 'riscv64/],
      [["--packaging", "snap"], /--packaging is one of compile, portable, not 'snap'/],
      [["--frobnicate"], /frobnicate/],
      [["file"], /file/],
    ] as const
  ) {
    const { code, stderr, stdout } = await build([...args]);
    assertEquals([code, stdout], [2, ""]);
    assertMatch(stderr, /^build: /);
    assertMatch(stderr, message);
  }
});

Deno.test("build --help says what there is, and builds nothing", async () => {
  for (const option of ["--help", "-h"]) {
    const { code, stdout, stderr } = await build([option]);
    assertEquals([code, stderr], [0, ""]);
    assertMatch(
      stdout,
      /^usage: deno task build \[options\]\n[^]*--packaging [^]*default: portable/,
    );
  }
});

Deno.test("the bundle names no folder of the machine that builds it", async () => {
  const text = Object.values(await bundled()).join("\n");
  assert(!text.includes(ROOT));
  assert(!/\/npm\/[\w.-]+\.[a-z]+\//.test(text), "a registry's name");
  assertStringIncludes(text, "// npm/zod/");
  assertStringIncludes(text, "// lib/version.ts");
});

Deno.test("a download cache in another folder gives the same bundle", () =>
  inTemp(async (folder) => {
    // As on another machine: the same downloads, elsewhere.
    const info = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
    const { npmCache } = JSON.parse(new TextDecoder().decode(info.stdout));
    await new Deno.Command("cp", { args: ["-a", "--reflink=auto", npmCache, folder] }).output();
    const other = await ended(
      new Deno.Command(Deno.execPath(), {
        args: [
          "eval",
          `const { bundle } = await import("${join(ROOT, "tools/build/bundle.ts")}");
           await Deno.stdout.write(new TextEncoder().encode(
             JSON.stringify(await bundle("${join(ROOT, "main.ts")}", "${ROOT}"))));`,
        ],
        cwd: folder,
        env: { DENO_DIR: folder, NO_COLOR: "1" },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    assertEquals(other.code, 0, other.stderr);
    assertEquals(JSON.parse(other.stdout), await bundled());
  }));

Deno.test("the build's facts stand in front of the program", () => {
  const target = otherTarget();
  const stamped = stampBundle({ [MAIN_FILE]: "rest\n", "other.js": "as it was" }, {
    commit: "abc",
    target,
    packaging: "portable",
    notices: "licences",
  });
  assertEquals(stamped["other.js"], "as it was");
  const text = stamped[MAIN_FILE] ?? "";
  const first = text.slice(0, text.indexOf("\n"));
  assertStringIncludes(first, `"commit":"abc","target":"${target.name}","packaging":"portable"`);
  assert(text.endsWith("rest\n"));
});

/**
 * What a start loads from the bundle: the files, and modules of the runtime.
 *
 * @param entries which files that are loaded on demand this start asks for.
 */
function loadedAtStart(
  program: Program,
  entries: RegExp,
): { files: Set<string>; modules: Set<string> } {
  const files = new Set<string>();
  const modules = new Set<string>();
  const load = (name: string) => {
    if (files.has(name)) return;
    files.add(name);
    const text = program[name] ?? "";
    for (const [, from = ""] of text.matchAll(/^(?:import|\} from|export)\b[^;\n]*"([^"]+)";$/gm)) {
      if (from.startsWith("./")) load(from.slice(2));
      else modules.add(from);
    }
  };
  load(MAIN_FILE);
  for (const name of Object.keys(program)) if (entries.test(name)) load(name);
  return { files, modules };
}

Deno.test("a start of the agent loads neither what other commands need nor slow modules", async () => {
  const program = await bundled();
  const { files, modules } = loadedAtStart(program, /^(main|read_config|cgroup|host)-/);
  const text = [...files].map((name) => program[name]).join("\n")
    // The command line knows the names of connectors and of their stages, and no more.
    .replaceAll(/^\/\/ connectors\/(registry|context)\.ts$/gm, "");
  assertStringIncludes(text, "// lib/agent/agent.ts");
  assertStringIncludes(text, "// lib/config/yaml_file.ts");
  for (
    const other of ["lib/sandbox/", "connectors/", "npm/hono/", "npm/prom-client/", "v4/locales/"]
  ) {
    assert(!text.includes(`// ${other}`), other);
  }
  // The first one takes 20 ms to load, each of the others 8 to 20.
  assertEquals([...modules], []);
});

Deno.test("the bundle has every connector, and a command loads only the one that it runs", async () => {
  const program = await bundled();
  const { files } = loadedAtStart(program, /^(main|device_connector|noprovision)-/);
  const loaded = [...files].map((name) => program[name]).join("\n");
  assertEquals(
    CONNECTOR_NAMES.filter((name) => loaded.includes(`// connectors/${name}.ts`)),
    ["noprovision"],
  );
  await inTemp(async (folder) => {
    for (const [name, text] of Object.entries(program)) {
      await Deno.writeTextFile(join(folder, name), text);
    }
    const main = join(folder, MAIN_FILE);
    const { stdout, stderr } = await ended(
      new Deno.Command(Deno.execPath(), {
        args: ["run", ...PERMISSIONS, main, "device-connector", "describe", "--markdown"],
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    const chapters = [...stdout.matchAll(/^## (\w+)$/gm)].map(([, name]) => name);
    assertEquals(chapters, [...CONNECTOR_NAMES], stderr);
  });
});

Deno.test("a start reads no file of the program that it may not need, and loads it when it does", () =>
  inTemp(async (folder) => {
    const main = join(folder, MAIN_FILE);
    await Deno.writeTextFile(
      main,
      withoutForesight(
        `import "./now.js";\nconst later = () => import("./later-1.js");\nlater();\n`,
      ),
    );
    await Deno.writeTextFile(join(folder, "now.js"), 'console.log("now");\n');
    await Deno.writeTextFile(join(folder, "later-1.js"), 'console.log("later");\n');
    const deno = (...args: string[]) =>
      ended(
        new Deno.Command(Deno.execPath(), {
          args: [...args, "--no-config", main],
          env: { NO_COLOR: "1" },
          stdin: "null",
          stdout: "piped",
          stderr: "piped",
        }).spawn(),
      );
    const { stdout: graph } = await deno("info");
    assertStringIncludes(graph, "now.js");
    assert(!graph.includes("later"), graph);
    assertEquals((await deno("run", "--allow-read")).stdout, "now\nlater\n");
  }));

Deno.test("the licence of everything inside is in the notices", async () => {
  const program = await bundled();
  const packages = packagesIn(program);
  const names = packages.map((title) => title.split(" ")[0]);
  for (const name of ["zod", "yaml", "hono", "deno-std"]) {
    assert(names.includes(name), name);
  }
  const notices = await collectNotices(program);
  for (const title of ["Deno ", ...packages]) assertStringIncludes(notices, `\n${title}`);
  assertStringIncludes(notices, "Copyright (c) 2025 Colin McDonnell");
  assertStringIncludes(notices, "the Deno authors");
});

Deno.test("a package without a licence cannot be built in", async () => {
  const program = { [MAIN_FILE]: "// npm/no-such-package/1.2.3/index.js\n" };
  const error = await assertRejects(() => collectNotices(program), BuildError);
  assertMatch(error.message, /^Cannot find the licence of no-such-package 1\.2\.3 in /);
});

Deno.test("without a runtime for deno compile the build says where it looked and what else there is", () =>
  inTemp(async (folder) => {
    // A cache without it, and a way to the outside that leads nowhere.
    const nowhere = "http://127.0.0.1:1";
    const script = join(folder, "try.ts");
    await Deno.writeTextFile(
      script,
      `import { compile } from "${join(ROOT, "tools/build/compile.ts")}";
       import { BuildError, TARGETS } from "${join(ROOT, "tools/build/targets.ts")}";
       try { await compile({ target: TARGETS[1], program: { "main.js": "1" } }); }
       catch (error) { if (!(error instanceof BuildError)) throw error; console.log(error.message); }`,
    );
    const { code, stdout, stderr } = await ended(
      new Deno.Command(Deno.execPath(), {
        args: ["run", "--no-lock", ...PERMISSIONS, script],
        cwd: folder,
        env: {
          NO_COLOR: "1",
          DENO_DIR: folder,
          DENORT_BIN: "",
          HTTPS_PROXY: nowhere,
          HTTP_PROXY: nowhere,
          NO_PROXY: "",
        },
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    assertEquals(code, 0, stderr);
    assertMatch(stdout, /^The runtime for deno compile \(denort .* for aarch64-.*\) is not here/);
    assertMatch(stdout, /DENORT_BIN names: not set/);
    assertStringIncludes(stdout, `${folder}/dl/release/v`);
    assertMatch(stdout, /denort-aarch64-unknown-linux-gnu\.zip: not there/);
    assertMatch(stdout, /Or build with --packaging portable, which needs none\./);
  }));

/** The environment of this process, with another runtime in it. */
function withRuntime(file: string): Record<string, string> {
  return { ...Deno.env.toObject(), DENORT_BIN: file };
}

async function refusal(target: Target, runtime: string): Promise<string> {
  try {
    await compile({ target, program: { [MAIN_FILE]: "1" }, env: withRuntime(runtime) });
  } catch (error) {
    if (error instanceof Error) return error.message;
  }
  return "";
}

Deno.test("a runtime that is none, or one for another machine, is refused by name", async () => {
  assertMatch(
    await refusal(HOST, "/nonexistent"),
    /^DENORT_BIN names \/nonexistent, which cannot be read or is no ELF program/,
  );
  assertMatch(
    await refusal(otherTarget(), Deno.execPath()),
    /^DENORT_BIN names .*, which is a program for another machine: name the denort for /,
  );
});

Deno.test("up to the runtime deno compile does its work: program, permissions, target", async () => {
  // The stand-in for denort is deno itself: what comes out is a whole ELF file with everything that
  // denort would read from it, and it does not run the program.
  const program = stampBundle(await bundled(), {
    commit: "abc",
    target: HOST,
    packaging: "compile",
    notices: "licences",
  });
  const bytes = await compile({ target: HOST, program, env: withRuntime(Deno.execPath()) });
  await inTemp(async (folder) => {
    const file = join(folder, "program");
    await Deno.writeFile(file, bytes);
    assertEquals(await elfMachine(file), HOST.elfMachine);
  });
  const file = Buffer.from(bytes.buffer);
  const after = (mark: string) => {
    const at = file.indexOf(mark);
    assert(at >= 0, mark);
    return file.toString("latin1", at, at + 2_000);
  };
  after(`"commit":"abc","target":"${HOST.name}","packaging":"compile"`);
  const permissions: Record<string, unknown> = JSON.parse(
    /^"permissions":(\{[^}]*\})/.exec(after('"permissions":{'))?.[1] ?? "{}",
  );
  // An empty list means: without limits. What may be asked of the system is named one by one.
  const granted = Object.keys(permissions).filter((name) => {
    const list = permissions[name];
    const isWhole = Array.isArray(list) && list.length === 0;
    return name.startsWith("allow_") && (isWhole || name === "allow_sys");
  });
  assertEquals(
    granted.sort(),
    ["env", "net", "read", "run", "sys", "write"].map((name) => `allow_${name}`),
  );
  const sys = PERMISSIONS.find((flag) => flag.startsWith("--allow-sys="))?.split("=")[1]?.split(
    ",",
  );
  assertEquals(permissions.allow_sys, sys);
  assertEquals([permissions.allow_ffi, permissions.allow_all ?? false], [null, false]);
  assertEquals(permissions.deny_import, []);
  assertMatch(after('"unstable_config":{'), /^"unstable_config":\{[^}]*"features":\[\]/);
});

Deno.test("a compiled file that does not run the program is not left in dist", () =>
  inTemp(async (out) => {
    const env = { DENORT_BIN: Deno.execPath() };
    const { code, stderr } = await build(
      ["--packaging", "compile", "--target", HOST.name, "--out", out],
      env,
    );
    assertEquals(code, 1);
    assertMatch(
      stderr,
      /^build: The file that was built does not work, and was removed\. Is DENORT_BIN .*\n'version' does/,
    );
    assertEquals([...Deno.readDirSync(out)], []);
  }));

const missing = await runtimeMissing(HOST);
Deno.test({
  name: "a compiled file runs: version, check, a whole job" +
    (missing === undefined ? "" : ` (skipped: ${missing})`),
  ignore: missing !== undefined,
  fn: () =>
    inTemp(async (out) => {
      const built = await build(["--packaging", "compile", "--target", HOST.name, "--out", out]);
      assertEquals(built.code, 0, built.stderr);
      const file = join(out, `testflinger-agent-${VERSION}-${HOST.arch}`);
      const run = async (...args: string[]) => {
        const { code, stdout, stderr } = await new Deno.Command(file, { args, cwd: out }).output();
        assertEquals(code, 0, new TextDecoder().decode(stderr));
        return new TextDecoder().decode(stdout);
      };
      assertMatch(await run("version"), /\npackaging {2}compile\n/);
      await run("try", join(ROOT, "examples/hello/job.yaml"));
    }),
});

Deno.test({
  name: "the commit that is stamped in is the checkout's, and tells when files differ from it",
  ignore: !isInstalled("git"),
  fn: () =>
    inTemp(async (folder) => {
      const { commitOf } = await import("../../tools/build/git.ts");
      assertEquals(await commitOf(folder), "unknown");
      const git = (...args: string[]) =>
        new Deno.Command("git", {
          args: ["-c", "user.name=x", "-c", "user.email=x@example.com", ...args],
          cwd: folder,
        }).output();
      await git("init", "--quiet");
      await Deno.writeTextFile(join(folder, "file"), "1");
      await git("add", "file");
      await git("commit", "--quiet", "-m", "First");
      assertMatch(await commitOf(folder), /^[0-9a-f]{40}$/);
      await Deno.writeTextFile(join(folder, "file"), "2");
      assertMatch(await commitOf(folder), /^[0-9a-f]{40}-dirty$/);
    }),
});
