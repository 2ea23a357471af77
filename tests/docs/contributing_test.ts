/** CONTRIBUTING.md: its commands run, and its connector is one. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname } from "node:path";
import { bundle } from "../../tools/build/bundle.ts";
import { packagesIn } from "../../tools/build/notices.ts";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { copyDownloads } from "../packaging/support/downloads.ts";

const ROOT = new URL("../..", import.meta.url).pathname;
const PAGE = await Deno.readTextFile(`${ROOT}CONTRIBUTING.md`);
const PATIENCE_MS = 60_000;

/** The blocks of the page in one language. */
function blocks(language: string): string[] {
  return [...PAGE.matchAll(/^```(\w+)\n([^]*?)^```$/gm)]
    .flatMap(([, name, text = ""]) => name === language ? [text] : []);
}

/** Commands of the page, without what they are for. */
const COMMANDS = blocks("sh").join("").split("\n").map((line) => line.replace(/ +# .*/, ""))
  .filter((line) => line !== "");

/** Starts a line of the page, as a shell does: `deno` is the one that runs the tests. */
function start(line: string, cwd = ROOT, env: Record<string, string> = {}): Deno.ChildProcess {
  return new Deno.Command("/bin/sh", {
    args: ["-c", `deno() { "$DENO" "$@"; }; ${line}`],
    cwd,
    env: { NO_COLOR: "1", CI: "", DENO: Deno.execPath(), ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function run(
  line: string,
  cwd?: string,
  env?: Record<string, string>,
): Promise<{ code: number; output: string }> {
  const { code, stdout, stderr } = await start(line, cwd, env).output();
  const text = new TextDecoder();
  return { code, output: text.decode(stdout) + text.decode(stderr) };
}

/** What each command of the page prints; `undefined`: why it is not run is said beside it. */
const EXPECTED: Record<string, RegExp | undefined> = {
  "deno task demo": /Greetings from an attachment\.\n[^]*1 artifact in/,
  "deno task dev device-connector list": /\n {2}muxpi +/,
  // build_test.ts and portable_test.ts do it.
  "deno task build --packaging portable --out /tmp/out": undefined,
  "deno task test tests/config/sizes_test.ts": /\nok \| 2 passed \| 0 failed \(/,
  // What these tests find is theirs to say.
  "deno task test tests/config": /\n(?:ok|FAILED) \| \d\d+ passed \| \d+ failed \(/,
  'deno task test tests/config/sizes_test.ts --filter "refuses"':
    /\nok \| 1 passed \| 0 failed \| 1 filtered out \(/,
  'deno task test tests/config/sizes_test.ts --filter "/reads .* bytes/"':
    /\nok \| 1 passed \| 0 failed \| 1 filtered out \(/,
  // A test of its own, below.
  "deno task test --watch tests/config/sizes_test.ts": undefined,
  // This is a part of it.
  "deno task test": undefined,
  // .ci/run does these four.
  "deno task check": undefined,
  "deno task lint": undefined,
  "deno task fmt": undefined,
  "deno task docs": undefined,
  // It is as the first of these for `deno task test`, in a test of its own, below.
  "deno task slow tests/slow/deb_test.ts": undefined,
  // They take minutes; .ci/run does the first two.
  "deno task slow": undefined,
  "deno task chaos --seeds 5": undefined,
  "deno task fuzz --minutes 5": undefined,
  "deno task bench --quick": undefined,
  // Below, from the page's words to lock files that are as the checkout's.
  "deno install --frozen=false": undefined,
  "deno install --frozen=false --config=tests/deno.json": undefined,
  "deno task dev device-connector relay provision -c device.yaml testflinger.json": undefined,
};

Deno.test("every command of CONTRIBUTING.md is known here, and does what the page says", async () => {
  assertEquals(COMMANDS.toSorted(), Object.keys(EXPECTED).toSorted());
  for (const [line, expected] of Object.entries(EXPECTED)) {
    if (expected === undefined) continue;
    const { output } = await run(line);
    assertMatch(output, expected, `${line}:\n${output}`);
  }
  for await (const { name } of Deno.readDir(ROOT)) {
    if (name.startsWith("artifacts-")) await Deno.remove(`${ROOT}${name}`, { recursive: true });
  }
});

Deno.test("every task that a document names is there", async () => {
  const { tasks } = JSON.parse(await Deno.readTextFile(`${ROOT}deno.json`));
  const pages = ["README.md", "CONTRIBUTING.md", ".ci/run"];
  for await (const { name } of Deno.readDir(`${ROOT}docs`)) {
    if (name.endsWith(".md")) pages.push(`docs/${name}`);
  }
  for (const page of pages) {
    const text = await Deno.readTextFile(`${ROOT}${page}`);
    for (const [, name = ""] of text.matchAll(/\btask (?:--quiet )?([a-z]+)\b/g)) {
      assert(Object.hasOwn(tasks, name), `${page} names the task ${name}`);
    }
  }
});

/** No registry answers. */
const UNREACHABLE = { HTTP_PROXY: "http://127.0.0.1:9", HTTPS_PROXY: "http://127.0.0.1:9" };

/** What is pinned: for the program, and for the tests. */
const PROJECT_FILES = ["deno.json", "deno.lock", "tests/deno.json", "tests/deno.lock"];

/** A copy of what the program is made of. */
async function withCopy(test: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "contributing-" });
  try {
    const files = ["main.ts", "lib", "connectors", "examples", ...PROJECT_FILES];
    const { success } = await new Deno.Command("cp", {
      args: ["-a", "--parents", ...files, folder],
      cwd: ROOT,
    }).output();
    assert(success);
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("with --watch the tests of a file run again when it changes", () =>
  withCopy(async (folder) => {
    const file = `${folder}/tests/some_test.ts`;
    await Deno.writeTextFile(file, 'Deno.test("as it was", () => {});\n');
    const child = start('exec "$DENO" task test --watch tests/some_test.ts', folder);
    let output = "";
    const seen = async (text: string) => {
      const limit = AbortSignal.timeout(PATIENCE_MS);
      while (!output.includes(text)) {
        if (limit.aborted) throw new Error(`Waited in vain for '${text}':\n${output}`);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const collect = async (stream: ReadableStream<Uint8Array>) => {
      for await (const part of stream) output += new TextDecoder().decode(part);
    };
    const reading = [collect(child.stdout), collect(child.stderr)];
    try {
      await seen("as it was ... ok");
      await seen("Restarting on file change");
      await Deno.writeTextFile(file, 'Deno.test("as it is now", () => {});\n');
      await seen("as it is now ... ok");
    } finally {
      child.kill("SIGTERM");
      await Promise.all([child.status, ...reading]);
    }
  }));

Deno.test("the connector of CONTRIBUTING.md works as it stands there: one file and one line", () =>
  withCopy(async (folder) => {
    const [file = "", line = ""] = blocks("ts");
    await Deno.writeTextFile(`${folder}/connectors/relay.ts`, file);
    const registry = `${folder}/connectors/registry.ts`;
    const before = await Deno.readTextFile(registry);
    const after = before.replace(/^ {2}oemrecovery: .*\n/m, `$&  ${line}`);
    assertEquals(after.split("\n").length, before.split("\n").length + 1);
    await Deno.writeTextFile(registry, after);
    for (const command of ["check main.ts", "lint connectors/relay.ts", "fmt --check connectors"]) {
      const { code, output } = await run(`deno ${command}`, folder);
      assertEquals(code, 0, output);
    }

    const program = (args: string) =>
      run(`deno run ${PERMISSIONS.join(" ")} main.ts ${args}`, folder);
    const described = await program("device-connector describe relay");
    assertStringIncludes(described.output, "relay_command (text, needed to provision)");
    await Deno.writeTextFile(`${folder}/device.yaml`, "relay_command: 7\n");
    const { output } = await program("check --connector relay device.yaml");
    assertMatch(output, /device\.yaml:1:16: relay_command: is the number '7', must be text/);
    assertMatch((await program("completion bash")).output, /\brelay\b/);

    const provision = "device-connector relay provision -c device.yaml testflinger.json";
    await Deno.writeTextFile(
      `${folder}/testflinger.json`,
      '{"provision_data":{"relay_channel":3}}',
    );
    await Deno.writeTextFile(`${folder}/device.yaml`, 'relay_command: echo "channel $CHANNEL"\n');
    const done = await program(provision);
    assertEquals(done.code, 0, done.output);
    assertStringIncludes(done.output, "channel 3\n");
    await Deno.writeTextFile(`${folder}/device.yaml`, "relay_command: echo jammed; exit 4\n");
    const failed = await program(provision);
    assertEquals(failed.code, 1, failed.output);
    assertMatch(failed.output, /relay_command.*4/);
  }));

Deno.test("deno task slow runs the slow tests, or the file that is named, and no other", () =>
  withCopy(async (folder) => {
    for (const name of ["slow/one", "slow/other", "support/quick", "quick"]) {
      const file = `${folder}/tests/${name}_test.ts`;
      await Deno.mkdir(dirname(file), { recursive: true });
      await Deno.writeTextFile(file, 'Deno.test("a test", () => {});\n');
    }
    const ran = async (line: string) => {
      const { code, output } = await run(line, folder);
      assertEquals(code, 0, output);
      return [...output.matchAll(/^\.\/(\S+) => a test /gm)].map(([, file]) => file).sort();
    };
    const slow = ["tests/slow/one_test.ts", "tests/slow/other_test.ts"];
    assertEquals(await ran("deno task slow"), slow);
    assertEquals(await ran("deno task slow tests/slow/other_test.ts"), slow.slice(1));
    assertEquals(await ran("deno task test"), [
      "tests/quick_test.ts",
      "tests/support/quick_test.ts",
    ]);
  }));

async function readJson(name: string) {
  return JSON.parse(await Deno.readTextFile(`${ROOT}${name}`));
}

Deno.test("deno.lock has what the program uses and nothing else, the tests' lock the same and more", async () => {
  const [project, projectOfTests] = [
    await readJson("deno.json"),
    await readJson("tests/deno.json"),
  ];
  const [runtime, all] = [await readJson("deno.lock"), await readJson("tests/deno.lock")];
  for (const key of ["compilerOptions", "lock", "nodeModulesDir"]) {
    assertEquals(projectOfTests[key], project[key], key);
  }
  // What editors format tests with.
  assertEquals(projectOfTests.fmt.lineWidth, project.fmt.lineWidth);
  assertEquals({ ...projectOfTests.imports, ...project.imports }, projectOfTests.imports);
  assertEquals({ ...all.npm, ...runtime.npm }, all.npm);
  const bundled = packagesIn(await bundle("main.ts", ROOT)).map((title) => title.replace(" ", "@"));
  for (const title of bundled) assert(Object.hasOwn(runtime.npm, title), title);
  for (const name of Object.keys(runtime.specifiers)) {
    assert(bundled.includes(name.slice("npm:".length)), `the program does not use ${name}`);
  }
});

Deno.test("the page's commands write the lock files again", () =>
  withCopy(async (folder) => {
    const locks = PROJECT_FILES.filter((name) => name.endsWith(".lock"));
    for (const name of locks) await Deno.remove(`${folder}/${name}`);
    for (const line of COMMANDS.filter((command) => command.startsWith("deno install"))) {
      const { code, output } = await run(line, folder);
      assertEquals(code, 0, output);
    }
    for (const name of locks) {
      assertEquals(
        await Deno.readTextFile(`${folder}/${name}`),
        await Deno.readTextFile(`${ROOT}${name}`),
      );
    }
  }));

Deno.test("the demo downloads what the program uses, and no package that only tests use", () =>
  withCopy(async (folder) => {
    const env = { DENO_DIR: `${folder}/cache`, ...UNREACHABLE };
    await copyDownloads("deno.lock", env.DENO_DIR);
    const demo = await run("deno task demo", folder, env);
    assertEquals(demo.code, 0, demo.output);
    assertMatch(demo.output, /Greetings from an attachment\.\n/);
    // More than that could not be had.
    await Deno.writeTextFile(`${folder}/tests/some_test.ts`, 'import "fast-check";\n');
    const tests = await run("deno task test tests/some_test.ts", folder, env);
    assertEquals(tests.code, 1, tests.output);
    assertMatch(tests.output, /error: .*\/(?:axe-core|fast-check|playwright-core|pure-rand)/s);
  }));
