/**
 * install.sh for real: as root, with the portable file, a running agent and a running job, without systemd.
 * It makes a user and writes to /etc, of a root of its own.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { VERSION } from "../../lib/version.ts";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { ROOT } from "../packaging/support/built.ts";
import {
  commandLineOf,
  ended,
  exists,
  isInstalled,
  type Ran,
  until,
} from "../packaging/support/command.ts";
import { NOBODY } from "../support/temp_folder.ts";
import { NEXT_VERSION, writeRelease } from "../packaging/support/release.ts";
import { OwnRoot, whyNoNamespaces } from "../packaging/support/systemd.ts";

/** What the test would overwrite, and therefore must not be there. */
const TAKEN = [
  "/etc/systemd/system/testflinger-agent@.service",
  "/etc/testflinger-agent",
  "/var/lib/testflinger-agent",
];

async function whyNot(): Promise<string | undefined> {
  for (const path of TAKEN) {
    if (await exists(path)) return `there is a ${path}`;
  }
  return await whyNoNamespaces();
}

const reason = await whyNot();

Deno.test({
  name:
    "installed for real: an upgrade leaves a running job alone, and the next start is the new version" +
    (reason === undefined ? "" : ` (skipped: ${reason})`),
  ignore: reason !== undefined,
  async fn() {
    // Not in /tmp, which is another one there.
    const folder = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "testflinger-real-" });
    await Deno.chmod(folder, 0o755);
    await Deno.mkdir(join(folder, "releases"));
    await writeRelease(join(folder, "releases"), [VERSION, NEXT_VERSION]);
    await Deno.copyFile(join(ROOT, "install.sh"), join(folder, "install.sh"));
    await using own = await OwnRoot.open();
    const root = (argv: string[], env: Record<string, string> = {}) => {
      const [program = "", ...args] = own.entering(argv);
      return new Deno.Command(program, {
        args,
        env: { CI: "", ...env },
        cwd: "/",
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn();
    };
    const run = async (argv: string[]): Promise<Ran> => await ended(root(argv));
    const prefix = join(folder, "prefix");
    const user = `tf-test-${Deno.pid}`;
    const sandbox = serveSandbox();
    const program = join(prefix, "bin", "testflinger-agent");
    const install = (...options: string[]) =>
      run([
        ...["sh", join(folder, "install.sh"), "--prefix", prefix, "--user", user],
        ...["--from", join(folder, "releases"), ...options],
      ]);
    const versionOf = async () => (await run([program, "version"])).stdout.split("\n")[0];
    const agents: Deno.ChildProcess[] = [];
    try {
      const config = join(folder, "agent.conf");
      const goOn = join(folder, "go-on");
      await Deno.writeTextFile(
        config,
        [
          "agent_id: real",
          `server_address: ${sandbox.url}`,
          "job_queues: [real]",
          "polling_interval: 1",
          "min_free_space: 0",
          // As a job that runs for long does, and then says that it was not disturbed.
          `test_command: "echo begun; while [ ! -e ${goOn} ]; do sleep 0.05; done; echo undisturbed"`,
          "execution_basedir: /var/lib/testflinger-agent/real/run",
          "logging_basedir: /var/lib/testflinger-agent/real/logs",
          "results_basedir: /var/lib/testflinger-agent/real/results",
          "",
        ].join("\n"),
      );

      // Fresh.
      const fresh = await install("--version", VERSION, "--agent", "real", "--config", config);
      assertEquals([fresh.code, fresh.stderr], [0, ""]);
      assertEquals(await versionOf(), `testflinger-agent ${VERSION}`);
      assertMatch((await run(["id", "-un", user])).stdout, new RegExp(`^${user}\n`));
      const installed = "/etc/testflinger-agent/real/testflinger-agent.conf";
      assertEquals(await own.sure("stat", "-c", "%a", installed), "640\n");
      // Where man and the shells look.
      const share = [
        "man/man1/testflinger-agent.1",
        "bash-completion/completions/testflinger-agent",
        "zsh/site-functions/_testflinger-agent",
        "fish/vendor_completions.d/testflinger-agent.fish",
      ].map((name) => join(prefix, "share", name));
      for (const path of share) {
        assertStringIncludes(await own.sure("cat", path), "testflinger", path);
        assertEquals(await own.sure("stat", "-c", "%a", path), "644\n");
      }
      // Agents that are set up are completed, whether they run or not, and however their file is called.
      await own.sure(
        "sh",
        "-c",
        "echo \"agent_id: 'stopped' # spare\" >/etc/testflinger-agent/7.conf",
      );
      for (const [shell, path] of [["bash", share[1]], ["fish", share[3]]] as const) {
        if (!isInstalled(shell)) continue;
        const names = await own.sure(shell, "-c", `source ${path}; _testflinger_agent_names`);
        for (const name of ["real", "stopped"]) {
          assert(names.split("\n").includes(name), `${shell}: ${names}`);
        }
      }
      await own.sure("rm", "/etc/testflinger-agent/7.conf");
      // It was unpacked as the user that agents run as, for their first start.
      const cache = "/var/cache/testflinger-agent";
      const owner = (await run(["stat", "-c", "%U", cache])).stdout.trim();
      assertEquals(owner, user);
      // Also after an installation for another user, who could have put something else there.
      await own.sure("mkdir", `${cache}/theirs`);
      await own.sure("chown", "-R", `${NOBODY}:${NOBODY}`, cache);
      assertEquals((await install("--version", VERSION)).stderr, "");
      assertEquals((await run(["stat", "-c", "%U", cache])).stdout.trim(), user);
      assertEquals(await own.has(`${cache}/theirs`), false);
      // Again.
      const again = await install("--version", VERSION, "--agent", "real", "--config", config);
      assertEquals([again.code, again.stdout], [0, fresh.stdout]);

      // The agent, as the unit starts it: as its user, with the folders that systemd would make.
      const home = "/var/lib/testflinger-agent/real";
      await run(["install", "-d", "-o", user, "-g", user, "/var/lib/testflinger-agent", home]);
      const startAgent = () => {
        const agent = root(
          [
            "setpriv",
            `--reuid=${user}`,
            `--regid=${user}`,
            "--init-groups",
            "--",
            program,
            "-c",
            installed,
          ],
          { HOME: home, XDG_CACHE_HOME: join(home, "cache") },
        );
        agents.push(agent);
        return agent;
      };
      const first = startAgent();
      const jobId = sandbox.sandbox.submit({ job_queue: "real", test_data: { test_cmds: "x" } });
      await until("the job runs", () => sandbox.sandbox.log(jobId, "output").includes("begun"));

      // Upgrade meanwhile, and a wish to restart.
      const upgrade = await install("--version", NEXT_VERSION);
      assertEquals([upgrade.code, upgrade.stderr], [0, ""]);
      assertStringIncludes(upgrade.stdout, "systemctl reload 'testflinger-agent*'");
      assertEquals(await versionOf(), `testflinger-agent ${NEXT_VERSION}`);
      first.kill("SIGUSR1");
      await own.sure("touch", goOn);
      assertEquals((await ended(first)).code, 1);
      assertEquals(sandbox.sandbox.state(jobId), "complete");
      assertStringIncludes(sandbox.sandbox.log(jobId, "output"), "undisturbed");

      // The supervisor would start it again: the new version.
      const second = startAgent();
      await until("the new version waits for jobs", () => {
        return sandbox.sandbox.agent("real")?.state === "waiting";
      });
      const next = sandbox.sandbox.submit({ job_queue: "real", test_data: { test_cmds: "x" } });
      await until("the next job is complete", () => sandbox.sandbox.state(next) === "complete");
      const command = await commandLineOf(second.pid);
      assertStringIncludes(command, `/${NEXT_VERSION}-`);
      second.kill("SIGTERM");
      assertEquals((await ended(second)).code, 0);

      // Roll back, and away.
      assertEquals((await install("--version", VERSION)).code, 0);
      assertEquals(await versionOf(), `testflinger-agent ${VERSION}`);
      const uninstall = ["sh", join(folder, "install.sh"), "--prefix", prefix, "--user", user];
      assertEquals((await run([...uninstall, "--uninstall"])).code, 0);
      assertEquals(await own.has(program), false);
      for (const path of share) assertEquals(await own.has(path), false, path);
      assertEquals(await own.has(installed), true);
      assertEquals(await own.has(home), true);
      assertEquals((await run([...uninstall, "--uninstall", "--purge"])).code, 0);
      for (const path of TAKEN) assertEquals(await own.has(path), false, path);
      assertEquals((await run(["id", user])).code, 1);
    } finally {
      for (const agent of agents) {
        try {
          agent.kill("SIGKILL");
        } catch {
          // It has ended, as it should have.
        }
      }
      await sandbox.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
