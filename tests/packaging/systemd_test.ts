/**
 * The unit under a real systemd, which runs as process 1 of namespaces of its own: install.sh, start,
 * READY, a safe restart, the watchdog, stop during a job, uninstall.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { ROOT, sharedBuild } from "./support/built.ts";
import { ended, isInstalled, type Ran, until } from "./support/command.ts";

const SCRIPT = join(ROOT, "tests/packaging/support/systemd.sh");
const NAMESPACES = [
  ...["unshare", "--fork", "--kill-child", "--pid", "--mount", "--uts", "--ipc", "--cgroup"],
  ...["--propagation", "private"],
];

/** The unit's own 3 minutes would make this test as slow. */
const QUICK = "[Service]\nWatchdogSec=2s\nRestartSec=200ms\n";

const AGENT = "real-unit";
const UNIT = `testflinger-agent@${AGENT}.service`;

function start(argv: readonly string[]): Deno.ChildProcess {
  const [program = "", ...args] = argv;
  return new Deno.Command(program, {
    args,
    cwd: "/",
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
}

async function whyNot(): Promise<string | undefined> {
  if (Deno.env.get("CI") !== "true" && Deno.env.get("TESTFLINGER_REAL_SYSTEMD") !== "1") {
    return "neither CI=true nor TESTFLINGER_REAL_SYSTEMD=1";
  }
  if (Deno.uid() !== 0) return "not root";
  for (const program of ["unshare", "nsenter", "pgrep", "systemctl"]) {
    if (!isInstalled(program)) return `there is no ${program}`;
  }
  const { code, stderr } = await ended(start([...NAMESPACES, "sh", SCRIPT, "probe"]));
  return code === 0 ? undefined : `no namespaces for a systemd here: ${stderr.trim()}`;
}

/** A running systemd. */
class Systemd implements AsyncDisposable {
  readonly #unshare: Deno.ChildProcess;
  readonly #ended: Promise<Ran>;
  #pid = "";

  constructor() {
    this.#unshare = start([...NAMESPACES, "sh", SCRIPT]);
    this.#ended = ended(this.#unshare);
  }

  /** Runs a command where this systemd is process 1. */
  async run(...argv: string[]): Promise<Ran> {
    const enter = ["nsenter", "-t", this.#pid, "-p", "-m", "-u", "-i", "-C", "-r", "-w"];
    return await ended(start([...enter, ...argv]));
  }

  /** Runs a command that has to succeed; its output. */
  async sure(...argv: string[]): Promise<string> {
    const { code, stdout, stderr } = await this.run(...argv);
    assertEquals(code, 0, `${argv.join(" ")}: ${stderr}`);
    return stdout;
  }

  async booted(): Promise<void> {
    await until("systemd has started", async () => {
      const child = await ended(start(["pgrep", "-P", `${this.#unshare.pid}`]));
      this.#pid = child.stdout.trim();
      if (this.#pid === "") return false;
      return (await this.run("systemctl", "is-system-running")).stdout.trim() === "running";
    });
  }

  /** What it says of the agent's unit. */
  async unit(): Promise<Record<string, string>> {
    const names = ["ActiveState", "MainPID", "NRestarts", "StatusText", "Result"];
    const text = await this.sure("systemctl", "show", UNIT, "-p", names.join(","));
    return Object.fromEntries(
      text.trim().split("\n").map((
        line,
      ) => [line.split("=")[0], line.slice(line.indexOf("=") + 1)]),
    );
  }

  async untilUnit(what: string, isSo: (unit: Record<string, string>) => boolean): Promise<void> {
    try {
      await until(what, async () => isSo(await this.unit()));
    } catch (error) {
      throw new Error(`${await this.journal()}\n${JSON.stringify(await this.unit())}`, {
        cause: error,
      });
    }
  }

  journal(): Promise<string> {
    return this.sure("journalctl", "--no-pager", "-o", "cat", "-u", UNIT);
  }

  async [Symbol.asyncDispose]() {
    // Process 1 and with it everything that runs there.
    this.#unshare.kill("SIGKILL");
    await this.#ended;
  }
}

const reason = await whyNot();

Deno.test({
  name: "under a real systemd the unit starts, restarts safely, is watched, stops and is removed" +
    (reason === undefined ? "" : ` (skipped: ${reason})`),
  ignore: reason !== undefined,
  async fn() {
    // Not in /tmp, which is another one there.
    const folder = await Deno.makeTempDir({ dir: "/var/tmp", prefix: "testflinger-systemd-" });
    const { sandbox, url, close } = serveSandbox();
    try {
      const { dist } = await sharedBuild();
      await ended(start(["cp", "-a", `${dist}/.`, folder]));
      await Deno.copyFile(join(ROOT, "install.sh"), join(folder, "install.sh"));
      const config = join(folder, "agent.conf");
      const home = `/var/lib/testflinger-agent/${AGENT}`;
      await Deno.writeTextFile(
        config,
        [
          `agent_id: ${AGENT}`,
          `server_address: ${url}`,
          "job_queues: [real-unit]",
          "polling_interval: 1",
          "min_free_space: 0",
          'test_command: "echo begun; sleep 600"',
          "cleanup_command: echo cleaned up",
          `execution_basedir: ${home}/run`,
          `logging_basedir: ${home}/logs`,
          `results_basedir: ${home}/results`,
          "",
        ].join("\n"),
      );

      await using systemd = new Systemd();
      await systemd.booted();
      const install = ["sh", join(folder, "install.sh")];
      await systemd.sure(...install, "--from", folder, "--agent", AGENT, "--config", config);
      const dropIn = `/etc/systemd/system/${UNIT}.d`;
      await Deno.writeTextFile(join(folder, "quick.conf"), QUICK);
      await systemd.sure("install", "-D", join(folder, "quick.conf"), `${dropIn}/quick.conf`);
      await systemd.sure("systemctl", "daemon-reload");

      // Type=notify: the command returns when the agent has said READY, with a text of its own.
      await systemd.sure("systemctl", "start", UNIT);
      await systemd.untilUnit(
        "it waits for jobs",
        ({ ActiveState, StatusText }) => ActiveState === "active" && StatusText === "waiting",
      );
      await until("the server knows it", () => sandbox.agent(AGENT)?.state === "waiting");
      const first = await systemd.unit();

      // ExecReload: another process, which systemd has started, and no failure on the way.
      await systemd.sure("systemctl", "reload", UNIT);
      await systemd.untilUnit(
        "it has restarted",
        ({ NRestarts, StatusText, MainPID }) =>
          NRestarts === "1" && StatusText === "waiting" && MainPID !== first.MainPID,
      );
      assertStringIncludes(await systemd.journal(), "SIGUSR1 asks for a restart");

      // The watchdog: an agent that hangs is killed and started again. One that does not hang has
      // been pinging all the time, else it would have been restarted before.
      const { MainPID: hung = "" } = await systemd.unit();
      await systemd.sure("kill", "-STOP", hung);
      await systemd.untilUnit(
        "the watchdog has restarted it",
        ({ NRestarts, StatusText }) => NRestarts === "2" && StatusText === "waiting",
      );
      assertMatch(await systemd.journal(), /Watchdog timeout \(limit 2s\)!/);

      // Stop during a job: the phase ends, cleanup runs, the server has the outcome; status 0.
      const jobId = sandbox.submit({ job_queue: "real-unit", test_data: { test_cmds: "x" } });
      await until("the job runs", () => sandbox.log(jobId, "output").includes("begun"));
      await systemd.untilUnit(
        "systemd shows the job",
        ({ StatusText }) => StatusText === `job ${jobId}: test`,
      );
      // Also while a job runs the agent is not to be removed from under it.
      const tooEarly = await systemd.run(...install, "--uninstall");
      assertEquals(tooEarly.code, 1);
      assertStringIncludes(tooEarly.stderr, `stop them first: systemctl disable --now ${UNIT}`);
      await systemd.sure("systemctl", "stop", UNIT);
      const stopped = await systemd.unit();
      assertEquals([stopped.ActiveState, stopped.Result], ["inactive", "success"]);
      assertEquals(sandbox.state(jobId), "complete");
      assertStringIncludes(sandbox.log(jobId, "output"), "cleaned up");

      await systemd.sure(...install, "--uninstall");
      const { stdout } = await systemd.run("systemctl", "list-unit-files", "testflinger-agent@*");
      assert(!stdout.includes("testflinger-agent@"), stdout);
    } finally {
      await close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
