/** doctor and check judge as the user that the agent runs as, whoever asks. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { agentUser } from "../../lib/cli/agents/agent_user.ts";
import { readAgentRef } from "../../lib/cli/agents/agent_ref.ts";
import { startProgram } from "../e2e/built_program.ts";
import { giveAway } from "../packaging/support/command.ts";
import { NOBODY } from "../support/temp_folder.ts";
import { Lab } from "../support/lab.ts";
import { about, withFixture } from "./doctor_fixture.ts";
import { shortCommand } from "../../lib/cli/agents/lock_holder.ts";
import { startProgram as startProgramHere } from "../support/agent_process.ts";
import { AGENT, run, withFiles } from "./support.ts";

const isRoot = Deno.uid() === 0;

/** Folders of an agent that runs as nobody, as its first start makes them. */
async function foldersOfNobody(folder: string): Promise<void> {
  await Deno.chmod(folder, 0o755);
  for (const name of ["run", "logs", "results/agent-rpi4-1"]) {
    await Deno.mkdir(`${folder}/${name}`, { recursive: true, mode: 0o700 });
    await giveAway(`${folder}/${name.split("/")[0]}`);
  }
}

Deno.test({
  name: "root's doctor and check find nothing wrong with folders that belong to the agent's user",
  ignore: !isRoot,
  fn: () =>
    withFixture({}, async ({ examine, folder }) => {
      await foldersOfNobody(folder);
      const read = await readAgentRef(`${folder}/a.conf`);
      if (!read.ok) throw new Error(read.message);
      const user = await agentUser(read.agent);
      assertEquals([user.uid, user.name], [NOBODY, "nobody"]);
      const lines = await examine({ user });
      assertEquals(about("folders", lines), "folders: ok: all three can be written by nobody");
      assertEquals(lines.filter((line) => !/^[a-z ]+: ok: /.test(line)), []);
      const { status, stdout } = await run("check", "--strict", `${folder}/a.conf`);
      assertEquals([status, stdout.split("\n").at(-2)], [0, "1 file: 0 mistakes, 0 warnings"]);
    }),
});

Deno.test({
  name: "what the agent's user may not write or read fails, also where root may, and is said once",
  ignore: !isRoot,
  fn: () =>
    withFixture({}, async ({ examine, folder }) => {
      await foldersOfNobody(folder);
      await Deno.chown(`${folder}/run`, 0, 0);
      await Deno.writeTextFile(`${folder}/token`, '{"refresh_token":"x"}', { mode: 0o600 });
      const read = await readAgentRef(`${folder}/a.conf`);
      if (!read.ok) throw new Error(read.message);
      const user = await agentUser(read.agent);
      const lines = await examine({ user });
      assertEquals(lines.filter((line) => line.includes("DIR/run")), [
        "folders: failed: execution_basedir: DIR/run cannot be written by nobody, the agent's user -> " +
        "make DIR/run by hand, owned by nobody, or configure another execution_basedir",
      ]);
      assertEquals(
        about("token", lines),
        "token: failed: DIR/token cannot be read by nobody, the agent's user -> " +
          "chown nobody DIR/token; chmod 0600 DIR/token",
      );
      assertEquals(new Set(lines).size, lines.length);
      const { stdout } = await run("check", `${folder}/a.conf`);
      assertMatch(
        stdout,
        /^.*a\.conf:4:20: warning: execution_basedir: \S+\/run cannot be written by nobody, the agent's user/,
      );
      await Deno.chmod(`${folder}/a.conf`, 0o600);
      assertMatch(
        about("configuration", await examine({ user })),
        /^configuration: failed: DIR\/a\.conf cannot be read by nobody, the agent's user -> chgrp/,
      );
    }),
});

Deno.test("the user of a running agent is that of its process, with its PATH and its home", async () => {
  await using lab = await Lab.open({ config: { agent_id: `user-${crypto.randomUUID()}` } });
  const file = join(lab.folder, "a.conf");
  const { config } = lab;
  const folders = ["execution_basedir", "logging_basedir", "results_basedir"] as const;
  await Deno.writeTextFile(
    file,
    `agent_id: ${config.agent_id}\nserver_address: ${lab.served.url}\njob_queues: [q]\n` +
      "min_free_space: 0\ntest_command: only-in-its-path\n" +
      folders.map((key) => `${key}: ${config[key]}\n`).join(""),
  );
  const bin = join(lab.folder, "bin");
  await Deno.mkdir(bin);
  await Deno.writeTextFile(join(bin, "only-in-its-path"), "#!/bin/sh\n", { mode: 0o755 });
  await Deno.chmod(lab.folder, 0o777);
  const through = isRoot
    ? ["setpriv", `--reuid=${NOBODY}`, `--regid=${NOBODY}`, "--clear-groups", "--"]
    : [];
  await using agent = startProgram(["-c", file, "--token-file", join(lab.folder, "none")], {
    through,
    cwd: lab.folder,
    env: { PATH: `${bin}:/usr/bin:/bin`, HOME: bin },
  });
  await lab.until(() => lab.sandbox.agent(config.agent_id)?.state === "waiting", "waiting");
  const read = await readAgentRef(file);
  if (!read.ok) throw new Error(read.message);
  const user = await agentUser(read.agent);
  assertEquals(user.uid, isRoot ? NOBODY : Deno.uid());
  assertEquals([user.home, user.path], [bin, `${bin}:/usr/bin:/bin`]);
  // Which program there is, is judged by the agent's PATH and not by this shell's.
  const checked = await run("check", file);
  assertStringIncludes(checked.stdout, "1 file: 0 mistakes, 0 warnings\n");
  agent.kill("SIGTERM");
  assertEquals(await agent.exited, 0, agent.output());
});

/** Runs a command with the folder `$1` on a file system that is mounted without writing. */
const READ_ONLY = [
  "unshare",
  "--mount",
  "/bin/sh",
  "-c",
  'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && shift && exec "$@"',
  "sh",
];

const mayMount = await (async () => {
  const folder = await Deno.makeTempDir();
  try {
    const [program = "", ...args] = [...READ_ONLY, folder, "true"];
    return (await new Deno.Command(program, { args, stderr: "null" }).output()).success;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
})();

Deno.test({
  name: "doctor and check say that a file system is mounted without writing",
  // Mounting needs root and a container that allows it.
  ignore: !mayMount,
  fn: () =>
    withFiles({ "a.conf": AGENT.replace("DIR/results", "DIR/disk/results") }, async (folder) => {
      const disk = join(folder, "disk");
      await Deno.mkdir(disk);
      const through = [...READ_ONLY, disk];
      await using doctor = startProgramHere(["doctor", "-c", `${folder}/a.conf`], { through });
      assertEquals(await doctor.exited, 1);
      assertStringIncludes(
        doctor.output(),
        `folders        results_basedir: ${disk} is on a file system that is mounted read-only -> ` +
          "mount it for writing, or configure another results_basedir\n",
      );
      assertEquals(doctor.output().split("read-only").length, 2, "it is said once");
      await using check = startProgram(["check", "--strict", `${folder}/a.conf`], { through });
      assertEquals(await check.exited, 1);
      assertStringIncludes(
        check.output(),
        `${disk} is on a file system that is mounted read-only: mount it`,
      );
    }),
});

/** As root who may do no more than any user: what belongs to another one is closed. */
const POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"];

Deno.test({
  name:
    "who may not look into an agent's folder is told so by doctor and jobs, and nothing else about it",
  ignore: !isRoot,
  fn: () =>
    withFiles({}, async (folder) => {
      const id = `closed-${crypto.randomUUID().slice(0, 8)}`;
      await Deno.writeTextFile(
        `${folder}/a.conf`,
        AGENT.replace("rpi4-1", id).replaceAll("DIR", folder),
      );
      const own = `${folder}/results/agent-${id}`;
      await Deno.mkdir(own, { recursive: true, mode: 0o700 });
      await Deno.writeTextFile(`${own}/recent-jobs.json`, '{"version":1,"jobs":[]}');
      const shared = `/tmp/testflinger-agent-${id}.lock`;
      using lock = await Deno.open(shared, { write: true, create: true });
      using ownLock = await Deno.open(`${own}/lock`, { write: true, create: true });
      assertEquals([lock.tryLockSync(true), ownLock.tryLockSync(true)], [true, true]);
      await giveAway(`${folder}/results`);
      await Deno.chmod(folder, 0o755);
      try {
        const doctor = startProgramHere(["doctor", "-c", `${folder}/a.conf`], {
          through: POWERLESS,
        });
        await doctor.exited;
        assertStringIncludes(
          doctor.output(),
          `skipped  lock           process ${Deno.pid} runs as agent '${id}'; you may not look into ` +
            `${own}, so it cannot be told whose it is: try as root\n`,
        );
        assertStringIncludes(
          doctor.output(),
          "skipped  open files     the agent's process cannot be",
        );
        const jobs = startProgramHere(["jobs", "-c", `${folder}/a.conf`], { through: POWERLESS });
        assertEquals([await jobs.exited, jobs.output()], [
          1,
          `The list of recent jobs ${own}/recent-jobs.json cannot be read: permission denied: try ` +
          "again as root\n",
        ]);
      } finally {
        await Deno.remove(shared);
      }
    }),
});

Deno.test("a command line in a message has nothing of the runtime, and is short", () => {
  const runtime = ["/opt/deno", "run", "--quiet", "--allow-read", "/opt/app/main.ts"];
  assertEquals(shortCommand([...runtime, "-c", "a.conf"]), "/opt/deno -c a.conf");
  assertEquals(
    shortCommand(["/usr/bin/testflinger-agent", "-c", "a.conf"]),
    "/usr/bin/testflinger-agent -c a.conf",
  );
  assertEquals(shortCommand(["sh", "-c", "x".repeat(500)]).length, 123);
  assertEquals(shortCommand([]), "");
});
