/**
 * The unit under a real systemd, which runs as process 1 of namespaces of its own: install.sh, start,
 * READY, a safe restart, the watchdog, stop during a job, uninstall.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { ROOT, sharedBuild } from "../packaging/support/built.ts";
import { until } from "../packaging/support/command.ts";
import { Systemd, whyNoSystemd } from "../packaging/support/systemd.ts";

/** The unit's own 3 minutes would make this test as slow. */
const QUICK = "[Service]\nWatchdogSec=2s\nRestartSec=200ms\n";

/** Starts what nothing but its control group gives away. */
const HIDING = "(env -i setsid sh -c 'ulimit -w 7; exec sleep 4711' >/dev/null 2>&1 &)";

const AGENT = "real-unit";
const UNIT = `testflinger-agent@${AGENT}.service`;

const reason = await whyNoSystemd();

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
      await new Deno.Command("cp", { args: ["-a", `${dist}/.`, folder] }).output();
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
          `test_command: "${HIDING}; echo begun; sleep 600"`,
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
      const agent = ["--from", folder, "--agent", AGENT, "--config"];
      // A configuration with mistakes is not installed, nor is anything else.
      const wrong = join(folder, "wrong.conf");
      await Deno.writeTextFile(wrong, "agent_id: x\nserver_adress: y\njob_queues: [q]\n");
      const refused = await systemd.run(...install, ...agent, wrong);
      assertEquals(refused.code, 1);
      assertStringIncludes(
        refused.stderr,
        `${wrong}:2:1: server_adress: is not a known key, did you mean 'server_address'?`,
      );
      assertStringIncludes(
        refused.stderr,
        `'check' finds mistakes in ${wrong}. Nothing was changed`,
      );
      assertEquals((await systemd.run("ls", "/usr/local/bin/testflinger-agent")).code, 2);
      await systemd.sure(...install, ...agent, config);
      const dropIn = `/etc/systemd/system/${UNIT}.d`;
      await Deno.writeTextFile(join(folder, "quick.conf"), QUICK);
      await systemd.sure("install", "-D", join(folder, "quick.conf"), `${dropIn}/quick.conf`);
      await systemd.sure("systemctl", "daemon-reload");

      // Type=notify: the command returns when the agent has said READY, with a text of its own.
      await systemd.sure("systemctl", "enable", "--now", UNIT);
      await systemd.untilUnit(
        UNIT,
        "it waits for jobs",
        ({ ActiveState, StatusText }) => ActiveState === "active" && StatusText === "waiting",
      );
      await until("the server knows it", () => sandbox.agent(AGENT)?.state === "waiting");
      const first = await systemd.unit(UNIT);

      // ExecReload: another process, which systemd has started, and no failure on the way.
      await systemd.sure("systemctl", "reload", UNIT);
      await systemd.untilUnit(
        UNIT,
        "it has restarted",
        ({ NRestarts, StatusText, MainPID }) =>
          NRestarts === "1" && StatusText === "waiting" && MainPID !== first.MainPID,
      );
      const restarted = await systemd.journal(UNIT);
      assertStringIncludes(restarted, "SIGHUP: the agent hands over");
      // For an operator it is none: neither a failure nor a result of one.
      assert(!/Failed with result/.test(restarted), restarted);

      // The watchdog: an agent that hangs is killed and started again. One that does not hang has
      // been pinging all the time, else it would have been restarted before.
      const { MainPID: hung = "" } = await systemd.unit(UNIT);
      await systemd.sure("kill", "-STOP", hung);
      await systemd.untilUnit(
        UNIT,
        "the watchdog has restarted it",
        ({ NRestarts, StatusText }) => NRestarts === "2" && StatusText === "waiting",
      );
      assertMatch(await systemd.journal(UNIT), /Watchdog timeout \(limit 2s\)!/);

      // Stop during a job: the phase ends, cleanup runs, the server has the outcome; status 0.
      const jobId = sandbox.submit({ job_queue: "real-unit", test_data: { test_cmds: "x" } });
      await until("the job runs", () => sandbox.log(jobId, "output").includes("begun"));
      await systemd.untilUnit(
        UNIT,
        "systemd shows the job",
        ({ StatusText }) => StatusText === `job ${jobId}: test`,
      );
      // Also while a job runs the agent is not to be removed from under it.
      const tooEarly = await systemd.run(...install, "--uninstall");
      assertEquals(tooEarly.code, 1);
      assertStringIncludes(tooEarly.stderr, `agents are running: ${UNIT}`);
      assertEquals((await systemd.unit(UNIT)).ActiveState, "active");
      // An upgrade: the job goes on while the next process starts, and when one is killed.
      const before = await systemd.unit(UNIT);
      await systemd.sure(...install, "--from", folder);
      await systemd.sure("systemctl", "reload", UNIT);
      await systemd.untilUnit(
        UNIT,
        "the next process has the job",
        ({ StatusText, MainPID }) =>
          StatusText === `job ${jobId}: test` && MainPID !== before.MainPID && MainPID !== "0",
      );
      const { MainPID: second = "" } = await systemd.unit(UNIT);
      await systemd.sure("kill", "-KILL", second);
      await systemd.untilUnit(
        UNIT,
        "the third process has the job",
        ({ StatusText, MainPID }) =>
          StatusText === `job ${jobId}: test` && MainPID !== second && MainPID !== "0",
      );
      assertEquals(sandbox.state(jobId), "test");
      assertStringIncludes(await systemd.journal(UNIT), "is taken over where it is");
      // The unit has a part of the control groups, and the job, that two processes have had, one in it.
      const doctor = ["/usr/local/bin/testflinger-agent", "doctor", "--config"];
      const installed = `/etc/testflinger-agent/${AGENT}/testflinger-agent.conf`;
      assertMatch(
        (await systemd.run(...doctor, installed)).stdout,
        /^ok +control groups +each job has one, below \S+\/testflinger-agent@real-unit\.service, /m,
      );
      const hiding = await systemd.sure("pgrep", "-xf", "sleep 4711");
      assertMatch(
        await systemd.sure("cat", `/proc/${hiding.trim()}/cgroup`),
        /^0::.*\/testflinger-agent@real-unit\.service\/job-real-unit-\w+-[0-9a-f-]+\/limited\/test$/m,
      );
      await systemd.sure("systemctl", "stop", UNIT);
      assertEquals((await systemd.run("pgrep", "-xf", "sleep 4711")).code, 1);
      const stopped = await systemd.unit(UNIT);
      assertEquals([stopped.ActiveState, stopped.Result], ["inactive", "success"]);
      assertEquals(sandbox.state(jobId), "complete");
      assertStringIncludes(sandbox.log(jobId, "output"), "cleaned up");

      // Away, while it runs: stopped in order, disabled, and nothing is left.
      await systemd.sure("systemctl", "start", UNIT);
      await systemd.sure(
        "sh",
        "-c",
        "mkdir -p /tmp/testflinger/run && touch /tmp/testflinger/run/x",
      );
      await systemd.sure(...install, "--uninstall", "--stop");
      assertEquals(sandbox.agent(AGENT)?.comment, "Agent stopped");
      const { stdout } = await systemd.run("systemctl", "list-unit-files", "testflinger-agent@*");
      assert(!stdout.includes("testflinger-agent@"), stdout);
      const left = () =>
        systemd.sure(
          "sh",
          "-c",
          "find /etc /usr/local /var/lib /var/cache /run /tmp -xdev -iname '*testflinger*' | sort",
        );
      assertStringIncludes(await left(), "/etc/testflinger-agent\n");
      assertStringIncludes(await left(), "/var/lib/testflinger-agent\n");
      await systemd.sure(...install, "--uninstall", "--purge");
      assertEquals(await left(), "");
      assertEquals((await systemd.run("id", "testflinger")).code, 1);
    } finally {
      await close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
