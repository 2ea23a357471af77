/** Where the world is broken, a command says so in a line and ends with a status: no user sees a trace. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { COMMANDS } from "../../lib/cli/table.ts";
import { isInstalled } from "../packaging/support/command.ts";
import { Lab } from "../support/lab.ts";
import { PROGRAM, startProgram } from "../e2e/built_program.ts";
import { sharedBuild } from "../packaging/support/built.ts";

const { env } = await sharedBuild();

/** What only the program's insides look like. */
const TRACE = /^\s+at |Uncaught|Stack backtrace|\(in promise\)|file:\/\/|ext:|\.js:\d+:\d+/m;

/** Runs a line of shell in which `$P` is the program; its status and what it prints on both streams. */
async function shell(
  line: string,
  { cwd = "/", more = {} }: { cwd?: string; more?: Record<string, string> } = {},
): Promise<{ code: number; text: string }> {
  const { code, stdout, stderr } = await new Deno.Command("bash", {
    args: ["-c", line],
    cwd,
    clearEnv: true,
    env: { PATH: "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", P: PROGRAM, ...env, ...more },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  const text = decoder.decode(stdout) + decoder.decode(stderr);
  assertEquals(TRACE.exec(text), null, `${line}:\n${text}`);
  return { code, text };
}

function uniqueLab(): Promise<Lab> {
  return Lab.open({ config: { agent_id: `trace-${crypto.randomUUID().slice(0, 8)}` } });
}

/** Command lines that print something and end, for each command that does. */
function printing(file: string): string[] {
  return [
    "--help",
    "help --man",
    "version --licenses",
    ...COMMANDS.map(({ name }) => `${name} --help`),
    "device-connector list",
    "device-connector describe muxpi",
    "device-connector describe --markdown",
    ...["bash", "zsh", "fish"].map((name) => `completion ${name}`),
    `check ${file}`,
    `check --format json ${file}`,
    `status -c ${file}`,
    `status -c ${file} --format json`,
    `jobs -c ${file}`,
    `jobs -c ${file} --format json`,
    `doctor -c ${file} --token-file none`,
    `offline -c ${file} --comment trace`,
    `online -c ${file}`,
  ];
}

Deno.test("output without a reader, or on a full disk: no stack trace, and an exit status", async () => {
  await using lab = await uniqueLab();
  const file = await lab.writeConfig();
  for (const line of printing(file)) {
    const full = await shell(`$P ${line} > /dev/full`);
    assertEquals(
      [full.code, full.text],
      [
        1,
        "testflinger-agent: the output cannot be written: No space left on device (os error 28)\n",
      ],
      line,
    );
    // The reader is gone before anything is written.
    const broken = await shell(`exec 3> >(exec sleep 0); wait $!; $P ${line} >&3; exit $?`);
    assertEquals([broken.code, broken.text], [141, ""], line);
    assertEquals((await shell(`$P ${line} >/dev/null 2>/dev/full; exit 0`)).text, "", line);
  }
  for (const line of ["nonesuch", "--confg x", "check --frobnicate", "device-connector nonesuch"]) {
    const { code } = await shell(`$P ${line} 2>/dev/full`);
    assertEquals(code, 2, line);
  }
  const marker = `/tmp/TESTFLINGER-DEVICE-OFFLINE-${lab.config.agent_id}`;
  await Deno.remove(marker).catch(() => {});
});

Deno.test("the folder that a command is started in is gone: a line and status 1", async () => {
  const gone = await Deno.makeTempDir();
  const { code, text } = await shell(`cd ${gone} && rmdir ${gone} && exec $P version`, {
    cwd: gone,
  });
  assertEquals(code, 1);
  assertStringIncludes(
    text,
    "testflinger-agent: the folder that it was started in is gone: change to another one\n",
  );
});

Deno.test("without HOME and with an empty environment commands work, and a job runs", async () => {
  await using lab = await uniqueLab();
  const file = await lab.writeConfig({ test_command: "echo tested" });
  assertMatch((await shell(`env -i "$P" version`)).text, /^testflinger-agent \d/);
  assertEquals((await shell(`$P check ${file}`)).code, 0);
  assertEquals((await shell(`$P doctor -c ${file} --token-file none`)).code, 0);
  await Deno.writeTextFile(join(lab.folder, "job.yaml"), "test_data:\n  test_cmds: echo tested\n");
  const tried = await shell("$P try job.yaml", { cwd: lab.folder });
  assertMatch(tried.text, /\ntested\n[^]*\ntest +passed/);
});

/** A small file system at `$1`, already full; then the command. */
const FULL =
  'mount -t tmpfs -o size=64k tmpfs "$1" && { mkdir "$1/results"; cat /dev/zero >"$1/fill" ' +
  '2>/dev/null || :; } && shift && exec "$@"';
/** `$1` as it is, mounted without writing; then the command. */
const READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"';

const mayMount = isInstalled("unshare") && await (async () => {
  const folder = await Deno.makeTempDir();
  try {
    const { success } = await new Deno.Command("unshare", {
      args: ["--mount", "/bin/sh", "-c", READ_ONLY, "sh", folder, "true"],
      stderr: "null",
    }).output();
    return success;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
})();

for (const [what, script] of [["full", FULL], ["mounted without writing", READ_ONLY]] as const) {
  Deno.test({
    name: `an agent whose results_basedir is ${what} says so in one line and ends with 1`,
    // Mounting needs root and a container that allows it.
    ignore: !mayMount,
    async fn() {
      await using lab = await uniqueLab();
      const disk = join(lab.folder, "disk");
      await Deno.mkdir(disk);
      const results = join(disk, "results");
      const file = await lab.writeConfig({ results_basedir: results });
      const through = ["unshare", "--mount", "/bin/sh", "-c", script, "sh", disk];
      // Before its first start, and when its folder is there.
      for (const isThere of [false, true]) {
        if (isThere) {
          await Deno.mkdir(join(results, `agent-${lab.config.agent_id}`, "jobs"), {
            recursive: true,
          });
        }
        await using agent = startProgram(["-c", file], { through });
        assertEquals(await agent.exited, 1, agent.output());
        const lines = agent.output().trimEnd().split("\n").filter((line) =>
          line.includes(" ERROR ")
        );
        assertEquals(lines.length, 1, agent.output());
        assertMatch(lines[0] ?? "", /(No space left on device|Read-only file system)/);
        assertStringIncludes(lines[0] ?? "", results);
        assert(!TRACE.test(agent.output()), agent.output());
      }
      for (const command of ["status", "jobs", "doctor", "check"]) {
        await using asked = startProgram([command, "-c", file], { through });
        await asked.exited;
        assert(!TRACE.test(asked.output()), asked.output());
      }
    },
  });
}
