import { assertEquals } from "@std/assert";
import { join } from "node:path";
import { startKept } from "../../lib/process/keeper_start.ts";
import { Place, watch } from "./kept_support.ts";
import { Output } from "./support.ts";

const FIXTURES = join(import.meta.dirname ?? "", "fixtures");

/** Scripts, and how they end. */
const ENDINGS = [
  ["exit 0", { kind: "code", code: 0 }],
  ["exit 3", { kind: "code", code: 3 }],
  ["exit 15", { kind: "code", code: 15 }],
  ["exit 137", { kind: "code", code: 137 }],
  ["exit 143", { kind: "code", code: 143 }],
  ["exit 255", { kind: "code", code: 255 }],
  ["kill -TERM $$", { kind: "signal", signal: 15 }],
  ["kill -KILL $$", { kind: "signal", signal: 9 }],
  ["kill -INT $$", { kind: "signal", signal: 2 }],
  ["kill -PIPE $$", { kind: "signal", signal: 13 }],
  ["kill -40 $$", { kind: "signal", signal: 40 }],
] as const;

const SHELLS = ["dash", "bash", "busybox"];
const AWKS = ["mawk", "gawk", "original-awk", "busybox"];

async function whyNoNamespace(): Promise<string> {
  const { success } = await new Deno.Command("unshare", {
    args: ["--mount", "true"],
    stderr: "null",
  }).output().catch(() => ({ success: false }));
  return success ? "" : " (skipped: no mount namespace)";
}
const noNamespace = await whyNoNamespace();

for (const shell of SHELLS) {
  for (const awk of AWKS) {
    Deno.test({
      name:
        `with ${shell} as the shell and ${awk} as awk, an exit status is not taken for a signal` +
        noNamespace,
      ignore: noNamespace !== "",
      fn: async () => {
        await using place = await Place.make();
        // With busybox, everything that it has is its own.
        const bin = await place.tools(awk, shell === "busybox" ? "busybox" : undefined);
        const real = await Deno.realPath("/bin/sh");
        const { stdout, stderr } = await new Deno.Command("unshare", {
          args: [
            "--mount",
            "/usr/bin/bash",
            "-c",
            `[ ${shell} = dash ] || mount --bind /usr/bin/${shell} ${real}; exec "$@"`,
            "bash",
            Deno.execPath(),
            "run",
            "--quiet",
            "-A",
            join(FIXTURES, "keep.ts"),
            place.folder,
            bin,
            ...ENDINGS.map(([script]) => `echo out; ${script}`),
          ],
        }).output();
        const results = JSON.parse(
          new TextDecoder().decode(stdout) || JSON.stringify(new TextDecoder().decode(stderr)),
        );
        assertEquals(
          results,
          ENDINGS.map(([script, exit]) => ({
            result: { ended: "exited", exit: awk === "busybox" ? untold(exit) : exit, script },
            output: "out\n",
          })).map(({ result: { ended, exit }, output }) => ({ result: { ended, exit }, output })),
        );
      },
    });
  }
}

/** What busybox's awk does not tell: it then is what a shell would say. */
function untold(exit: typeof ENDINGS[number][1]): { kind: string } {
  if (exit.kind === "code" && exit.code > 128 && exit.code <= 192) {
    return { kind: "signal", ...{ signal: exit.code - 128 } };
  }
  return exit;
}

Deno.test("gawk that follows POSIX to the letter is understood", async () => {
  await using place = await Place.make();
  const env = { PATH: await place.tools("gawk"), POSIXLY_CORRECT: "1" };
  for (const [index, [script, exit]] of ENDINGS.entries()) {
    const started = await startKept(["/bin/sh", "-c", script], {
      folder: place.path(`k${index}`),
      cwd: place.folder,
      env,
    });
    if (!started.started) throw new Error(started.message);
    assertEquals(await watch(started.command, new Output()), { ended: "exited", exit });
  }
});

/** Files of a control group as the kernel writes them, which not every host has. */
const GROUP_FILES = {
  "cgroup.procs": "",
  "cpu.stat": "usage_usec 98765432101\nuser_usec 1000000\nsystem_usec 234567\nnr_periods 0\n",
  "memory.peak": "8589934592\n",
  "memory.events": "low 0\nhigh 0\nmax 17\noom 4\noom_kill 3\noom_group_kill 0\n",
  "io.stat": "8:0 rbytes=3000000000 wbytes=1000 rios=1 wios=2 dbytes=0 dios=0\n" +
    "254:0 rbytes=3000000001 wbytes=24 rios=1 wios=1 dbytes=0 dios=0\n253:0\n",
};

for (const awk of AWKS) {
  Deno.test(`with ${awk} as awk it is known what a command has used when it ended`, async () => {
    await using place = await Place.make();
    const PATH = await place.tools(awk);
    const usageWith = async (name: string, files: Record<string, string>) => {
      const cgroup = place.path(`group-${name}`);
      await Deno.mkdir(cgroup);
      for (const [file, text] of Object.entries(files)) {
        await Deno.writeTextFile(join(cgroup, file), text);
      }
      const started = await startKept(["/bin/sh", "-c", "echo out; exit 3"], {
        folder: place.path(name),
        cwd: place.folder,
        env: { PATH },
        cgroup,
      });
      if (!started.started) throw new Error(started.message);
      const output = new Output();
      const result = await watch(started.command, output);
      assertEquals(result, { ended: "exited", exit: { kind: "code", code: 3 } });
      assertEquals(output.text, "out\n");
      return started.command.usage;
    };
    assertEquals(await usageWith("all", GROUP_FILES), {
      cpuMs: 98_765_432.101,
      memoryPeak: 8_589_934_592,
      read: 6_000_000_001,
      written: 1_024,
      killed: 3,
    });
    // What is there without controllers.
    const { "cgroup.procs": procs, "cpu.stat": cpu } = GROUP_FILES;
    assertEquals(await usageWith("few", { "cgroup.procs": procs, "cpu.stat": cpu }), {
      cpuMs: 98_765_432.101,
      killed: 0,
    });
    // The group itself is gone: the command has run all the same, and printed nothing of it.
    assertEquals(await usageWith("gone", {}), { killed: 0 });
  });
}

for (const awk of AWKS) {
  Deno.test(`with ${awk} as awk a label of any characters is only a remark`, async () => {
    await using place = await Place.make();
    await Deno.mkdir(place.path("bin"));
    await Deno.symlink(`/usr/bin/${awk}`, place.path("bin/awk"));
    const started = await startKept(["/bin/sh", "-c", "echo out; exit 3"], {
      folder: place.keeper,
      cwd: place.folder,
      env: { PATH: `${place.path("bin")}:/usr/bin:/bin` },
      label: `labor-süd's "job" $(touch a) \`touch b\` \\\n' }; touch c; #`,
    });
    if (!started.started) throw new Error(started.message);
    const output = new Output();
    const result = await watch(started.command, output);
    assertEquals(result, { ended: "exited", exit: { kind: "code", code: 3 } });
    assertEquals(output.text, "out\n");
    const made = [...Deno.readDirSync(place.folder)].map(({ name }) => name).sort();
    assertEquals(made, ["bin", "keeper"]);
  });
}
