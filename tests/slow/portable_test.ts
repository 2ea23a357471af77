/**
 * The portable files of this checkout, whole: built for both targets and run, the foreign one in an
 * emulator.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { VERSION } from "../../lib/version.ts";
import { sha256 } from "../../tools/build/digest.ts";
import { type Target, TARGETS } from "../../tools/build/targets.ts";
import { tryFile } from "../../tools/build/trial.ts";
import { buildPortable, EMULATES, fileFor, ROOT, sharedBuild } from "../packaging/support/built.ts";
import {
  ended,
  executableOf,
  exists,
  giveAway,
  type Ran,
  runUnprivileged,
  startUnprivileged,
  until,
  writeScript,
} from "../packaging/support/command.ts";
import { hostTarget } from "../packaging/support/targets.ts";

const MOST_BYTES = 45_000_000;

/** Emulators and the libraries that foreign programs need, by `uname -m`. */
const EMULATORS: Record<string, { command: string; libraries: string }> = {
  aarch64: {
    command: "qemu-aarch64-static -L /usr/aarch64-linux-gnu",
    libraries: "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1",
  },
  x86_64: {
    command: "qemu-x86_64-static -L /usr/x86_64-linux-gnu",
    libraries: "/usr/x86_64-linux-gnu/lib/ld-linux-x86-64.so.2",
  },
};

/** What runs `target`'s files here: nothing, an emulator's command, or the reason why they cannot. */
async function runnerFor(target: Target): Promise<{ command: string } | { missing: string }> {
  if (target.name === Deno.build.target) return { command: "" };
  if (!EMULATES) return { missing: "neither CI=true nor TESTFLINGER_EMULATE=1" };
  const emulator = EMULATORS[target.arch];
  if (emulator === undefined) return { missing: `no emulator is known for ${target.arch}` };
  const program = `/usr/bin/${emulator.command.split(" ")[0]}`;
  for (const path of [program, emulator.libraries]) {
    if (!await exists(path)) return { missing: `there is no ${path}` };
  }
  return { command: emulator.command };
}

const built = await sharedBuild();
const { dist } = built;
const folder = await Deno.makeTempDir({ prefix: "testflinger-portable-" });
await Deno.chmod(folder, 0o755);
await giveAway(folder);

/** Home and cache are the test's own. */
function environment(extra: Record<string, string> = {}): Record<string, string> {
  return { HOME: folder, XDG_CACHE_HOME: join(folder, "cache"), ...extra };
}

Deno.test.afterAll(() => Deno.remove(folder, { recursive: true }));

Deno.test("dist holds the files, their checksums and a manifest", async () => {
  const manifest = await Deno.readTextFile(join(dist, "manifest.json"));
  const { version, packaging, deno, permissions, files } = JSON.parse(manifest);
  assertEquals([version, packaging, deno], [VERSION, "portable", Deno.version.deno]);
  assertEquals(permissions.includes("--allow-all"), false);
  const sums = await Deno.readTextFile(join(dist, "SHA256SUMS"));
  assertEquals(files.length, built.targets.length);
  for (const entry of files) {
    const bytes = await Deno.readFile(join(dist, entry.file));
    assertEquals([entry.bytes, entry.sha256], [bytes.length, await sha256(bytes)]);
    assertStringIncludes(sums, `${entry.sha256}  ${entry.file}\n`);
    assert(bytes.length <= MOST_BYTES, `${entry.file} has ${bytes.length} bytes`);
  }
});

Deno.test("dist holds the manual page also the licences of the included packages, and the program prints both", async () => {
  const { program } = built;
  const page = await Deno.readTextFile(join(dist, "testflinger-agent.1"));
  const notices = await Deno.readTextFile(join(dist, "THIRD-PARTY-NOTICES"));
  const sums = await Deno.readTextFile(join(dist, "SHA256SUMS"));
  for (const [name, text] of [["testflinger-agent.1", page], ["THIRD-PARTY-NOTICES", notices]]) {
    const sum = await sha256(new TextEncoder().encode(text));
    assertStringIncludes(sums, `${sum}  ${name}\n`);
  }
  const env = environment();
  assertEquals((await runUnprivileged([program, "help", "--man"], { env })).stdout, page);
  const { stdout } = await runUnprivileged([program, "version", "--licenses"], { env });
  assert(stdout.endsWith(`\n\n${notices}`));
});

Deno.test("the build's trial fails when a command or a part of the agent does not work, and says which", async () => {
  const broken = join(folder, "broken");
  for (
    const [when, message] of [
      [
        '*"describe muxpi"*',
        /^'device-connector describe muxpi' does not print 'muxpi': exit status 3/,
      ],
      ["*agent.conf*none*", /^The agent ended: exit status 3/],
    ] as const
  ) {
    await writeScript(
      broken,
      `#!/bin/sh\ncase "$*" in ${when}) exit 3 ;; esac\nexec ${built.program} "$@"\n`,
    );
    assertMatch(await tryFile(broken, { env: built.env }) ?? "", message);
  }
});

Deno.test("builds of the same files in two folders give the same bytes", async () => {
  const target = hostTarget();
  const work = await Deno.makeTempDir({ prefix: "testflinger-portable-" });
  try {
    // Copies, lest somebody who works on the checkout meanwhile makes the two builds differ.
    const [one, two] = [join(work, "one"), join(work, "some", "where", "else")];
    const copy = `git ls-files -z -co --exclude-standard | tar -c --null -T - | tar -x -C "$0" &&
      mkdir -p "$1" && cp -a "$0/." "$1"`;
    await Deno.mkdir(one);
    const copied = await ended(
      new Deno.Command("sh", {
        args: ["-c", copy, one, two],
        cwd: ROOT,
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    assertEquals(copied.code, 0, copied.stderr);
    const sums: string[] = [];
    for (const root of [one, two]) {
      const out = join(root, "dist");
      await buildPortable(out, { root, target });
      sums.push(await sha256(await Deno.readFile(fileFor(out, target))));
    }
    assertEquals(sums[0], sums[1]);
  } finally {
    await Deno.remove(work, { recursive: true });
  }
});

for (const target of TARGETS) {
  const runner = await runnerFor(target);
  const missing = "missing" in runner ? runner.missing : undefined;
  const command = "command" in runner ? runner.command : "";
  const test = (name: string, fn: () => Promise<void>) => {
    const why = missing === undefined ? "" : ` (skipped: ${missing})`;
    Deno.test({ name: `${target.arch}: ${name}${why}`, ignore: missing !== undefined, fn });
  };
  const env = environment(command === "" ? {} : { TESTFLINGER_AGENT_RUNNER: command });
  const run = async (args: string[], cwd = folder): Promise<Ran> => {
    return await runUnprivileged([fileFor(dist, target), ...args], { env, cwd });
  };

  test("it says which version it is, and how it was built", async () => {
    for (const word of command === "" ? ["version", "--version"] : ["version"]) {
      const { code, stdout, stderr } = await run([word]);
      assertEquals([code, stderr], [0, ""]);
      assertMatch(stdout, new RegExp(`^testflinger-agent ${VERSION}\ncommit +[0-9a-f]{40}`));
      assertMatch(
        stdout,
        new RegExp(`\ntarget +${target.name}\npackaging +portable\nruntime +Deno`),
      );
    }
  });

  test("it does what users do with it: a job, an agent, its page and its metrics", async () => {
    const cache = await Deno.makeTempDir({ prefix: "testflinger-portable-" });
    try {
      const wrong = await tryFile(fileFor(dist, target), {
        env: { TESTFLINGER_AGENT_RUNNER: command, TESTFLINGER_AGENT_CACHE: cache },
        short: command !== "",
      });
      assertEquals(wrong, undefined);
    } finally {
      await Deno.remove(cache, { recursive: true });
    }
  });
  // An emulated start takes many seconds: that is enough.
  if (command !== "") continue;

  test("it checks a configuration", async () => {
    const conf = join(folder, "agent.conf");
    await Deno.writeTextFile(
      conf,
      "agent_id: a\nserver_address: http://127.0.0.1\njob_queues: [q]\n",
    );
    assertMatch((await run(["check", conf])).stdout, /configuration is valid|0 mistakes/);
    await Deno.writeTextFile(conf, "agent_id: a\n");
    const wrong = await run(["check", conf]);
    assertEquals(wrong.code, 2);
    assertMatch(wrong.stdout, /agent\.conf:1:1: .*job_queues/);
  });

  test("it runs a whole job, and the launcher leaves nothing in its environment", async () => {
    const cwd = await Deno.makeTempDir({ dir: folder });
    await Deno.copyFile(join(ROOT, "examples/hello/job.yaml"), join(cwd, "job.yaml"));
    await Deno.copyFile(join(ROOT, "examples/hello/greet.sh"), join(cwd, "greet.sh"));
    await giveAway(cwd);
    const hello = await run(["try", "job.yaml"], cwd);
    assertEquals(hello.code, 0, hello.stdout + hello.stderr);
    assertStringIncludes(hello.stdout, "Greetings from an attachment.");

    await Deno.writeTextFile(
      join(cwd, "job.yaml"),
      'test_data:\n  test_cmds: env | grep -E "^(DENO_|TESTFLINGER_AGENT_)" | sort\n',
    );
    const printed = await run(["try", "job.yaml"], cwd);
    assertEquals(printed.code, 0, printed.stdout + printed.stderr);
    const seen = printed.stdout.split("\n").map((line) => line.trim())
      .filter((line) => /^(DENO_|TESTFLINGER_AGENT_)\w+=/.test(line));
    assertEquals(seen, [
      `TESTFLINGER_AGENT_PROGRAM=${fileFor(dist, target)}`,
    ]);
  });
}

Deno.test("the process is the agent's own: SIGUSR1 restarts it, and opens nothing", async () => {
  const path = built.program;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/v1/job") return new Response(null, { status: 204 });
    const isRead = request.method === "GET" && pathname.startsWith("/v1/agents/data/");
    return isRead ? Response.json({ state: "waiting" }) : new Response("OK");
  });
  const cwd = await Deno.makeTempDir({ dir: folder });
  await Deno.writeTextFile(
    join(cwd, "testflinger-agent.conf"),
    [
      "agent_id: portable-test",
      `server_address: http://127.0.0.1:${server.addr.port}`,
      "job_queues: [q]",
      "polling_interval: 1",
      `execution_basedir: ${cwd}/run`,
      `logging_basedir: ${cwd}/logs`,
      `results_basedir: ${cwd}/results`,
      "",
    ].join("\n"),
  );
  await giveAway(cwd);
  const agent = startUnprivileged([path], { env: environment(), cwd });
  const log = join(cwd, "logs", "testflinger-agent.log");
  await until("the agent runs", () => exists(log));
  const exe = await executableOf(agent.pid);
  assertMatch(exe, /\/testflinger-agent$/);
  // It may come before or after the runtime has made itself ready for it.
  agent.kill("SIGUSR1");
  const { code, stderr, stdout } = await ended(agent);
  assertEquals(code, 1, stdout + stderr);
  assert(!stderr.includes("Debugger listening"), stderr);
  await server.shutdown();
});
