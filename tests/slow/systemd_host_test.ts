/**
 * All agents of a host in one service, under a real systemd: agents with services of their own move over
 * with a job running, the service is reloaded and upgraded, and they move back.
 */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { serveSandbox } from "../../lib/sandbox/serve.ts";
import { ROOT, sharedBuild } from "../packaging/support/built.ts";
import { until } from "../packaging/support/command.ts";
import { Systemd, whyNoSystemd } from "../packaging/support/systemd.ts";

const HOST = "testflinger-agents.service";
const unitOf = (agent: string) => `testflinger-agent@${agent}.service`;

/** Starts what nothing but its control group gives away. */
const HIDING = "(env -i setsid sh -c 'ulimit -w 7; exec sleep 4712' >/dev/null 2>&1 &)";

const OPERATIONS = await Deno.readTextFile(join(ROOT, "docs/operations.md"));

/** The commands of docs/operations.md that move agents by hand, with other units where these are named. */
function documentedMove({ from = "", to = "" }): string {
  const [, commands = ""] = /^```sh\n(from=[^]*?)^```$/m.exec(OPERATIONS) ?? [];
  return commands
    .replace(/^from=.*$/m, (line) => from === "" ? line : `from=${from}`)
    .replace(/^to=.*$/m, (line) => to === "" ? line : `to=${to}`);
}

const reason = await whyNoSystemd();

Deno.test({
  name:
    "under a real systemd agents move into one service and back, and are upgraded, while a job runs" +
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
      const configure = async (name: string, more = "") => {
        const home = `/var/lib/testflinger-agent/${name}`;
        await Deno.writeTextFile(
          join(folder, `${name}.conf`),
          [
            `agent_id: ${name}`,
            `server_address: ${url}`,
            `job_queues: [${name}]`,
            "polling_interval: 1",
            "min_free_space: 0",
            `test_command: "${HIDING}; echo begun; until [ -e /tmp/go ]; do sleep 0.1; done; echo ended"`,
            `execution_basedir: ${home}/run`,
            `logging_basedir: ${home}/logs`,
            `results_basedir: ${home}/results`,
            more,
            "",
          ].join("\n"),
        );
        return join(folder, `${name}.conf`);
      };
      await using systemd = new Systemd();
      await systemd.booted();
      const install = ["sh", join(folder, "install.sh")];
      const program = "/usr/local/bin/testflinger-agent";

      // As a host has it today: a service each.
      for (const name of ["a", "b"]) {
        const config = await configure(name);
        await systemd.sure(...install, "--agent", name, "--config", config);
        await systemd.sure("systemctl", "enable", "--now", unitOf(name));
      }
      const job = sandbox.submit({ job_queue: "a", test_data: { test_cmds: "x" } });
      await until("the job runs", () => sandbox.log(job, "output").includes("begun"));

      // One command, and one service has them; the job goes on.
      const moved = await systemd.sure(...install, "--config-dir", "/etc/testflinger-agent");
      assertStringIncludes(moved, `Enabled and started: ${HOST}\n`);
      const status = () => systemd.run(program, "status");
      await until("all agents are there again", async () => {
        const { stdout } = await status();
        return /\na +test .*\nb +waiting /.test(stdout);
      });
      assertEquals(
        await systemd.sure("systemctl", "list-units", "--plain", "--no-legend", "testflinger-*")
          .then((text) => text.split("\n").map((line) => line.split(" ")[0]).sort()),
        ["", HOST],
      );
      assertEquals((await systemd.run("systemctl", "is-enabled", unitOf("a"))).code, 1);
      // What runs of the job is still in a control group of the service that is gone.
      const hiding = (await systemd.sure("pgrep", "-xf", "sleep 4712")).trim();
      const groupOfHiding = () => systemd.sure("grep", "^0:", `/proc/${hiding}/cgroup`);
      assertMatch(await groupOfHiding(), /\/testflinger-agent@a\.service\/job-a-.*\/test$/m);
      const first = await systemd.unit(HOST);
      assertEquals([first.ActiveState, first.NRestarts], ["active", "0"]);

      // What is added is taken up by the process as it is.
      await systemd.sure("install", "-D", await configure("c"), "/etc/testflinger-agent/c.conf");
      assertEquals(
        await systemd.sure(program, "reload"),
        `process ${first.MainPID} has read its configurations again: 3 agents\n`,
      );
      await until("the server knows it", () => sandbox.agent("c")?.state === "waiting");
      assertEquals((await systemd.unit(HOST)).MainPID, first.MainPID);

      // An upgrade is to install: that reloads, and the next process has the job.
      await systemd.sure("sh", "-c", `echo '# of before' >>/etc/systemd/system/${HOST}`);
      const upgraded = await systemd.sure(...install);
      assertStringIncludes(upgraded, `Reloaded, with jobs going on: ${HOST}`);
      await systemd.untilUnit(
        HOST,
        "the next process runs",
        ({ MainPID, NRestarts, ActiveState }) =>
          ActiveState === "active" && MainPID !== first.MainPID && NRestarts === "1",
      );
      // Nothing is new: nothing is reloaded.
      const again = await systemd.sure(...install);
      assert(!again.includes("Reloaded"), again);
      assertEquals(sandbox.state(job), "test");

      // Back, once each has a folder of its own.
      const refused = await systemd.run(...install, "--per-agent");
      assertEquals(refused.code, 1);
      assertStringIncludes(refused.stderr, "move /etc/testflinger-agent/c.conf to ");
      await systemd.sure("rm", "/etc/testflinger-agent/c.conf");
      const unit = `/etc/systemd/system/${HOST}`;
      await systemd.sure("cp", unit, "/tmp/unit");
      const back = await systemd.sure(...install, "--per-agent");
      assertMatch(
        back,
        /Enabled and started: testflinger-agent@a.service testflinger-agent@b.service\n/,
      );
      await until("both are there again", async () => {
        const { stdout } = await status();
        return /\na +test .*\nb +waiting /.test(stdout);
      });
      assertEquals(sandbox.state(job), "test");
      // Again, as it is documented for hosts where a package has brought both kinds of units; and back.
      await systemd.sure("cp", "/tmp/unit", unit);
      const agents = `"${unitOf("a")} ${unitOf("b")}"`;
      for (const [from, to] of [["", ""], [HOST, agents], ["", ""]]) {
        await systemd.sure("sh", "-ec", documentedMove({ from, to }));
        await until("both are there again", async () => {
          const { stdout } = await status();
          return /\na +test .*\nb +waiting /.test(stdout);
        });
      }
      assertEquals((await systemd.unit(HOST)).ActiveState, "active");
      assertEquals(sandbox.state(job), "test");
      assertMatch(await groupOfHiding(), /\/testflinger-agent@a\.service\/job-a-/);
      await systemd.sure("touch", "/tmp/go");
      await until("the job is complete", () => sandbox.state(job) === "complete");
      assertEquals((await systemd.run("pgrep", "-xf", "sleep 4712")).code, 1);
      const groups = ["find", "/sys/fs/cgroup", "-name", `job-*-${job}`];
      assertEquals(await systemd.sure(...groups), "");
      assertEquals(sandbox.log(job, "output").split(/begun|ended/).length, 3);
      assertEquals(sandbox.result(job)?.test_status, 0);

      // And away, from either form.
      const tooEarly = await systemd.run(...install, "--uninstall");
      assertStringIncludes(tooEarly.stderr, `agents are running: ${HOST}`);
      await systemd.sure(...install, "--uninstall", "--stop");
      assertEquals(sandbox.agent("b")?.comment, "Agent stopped");
      await systemd.sure(...install, "--uninstall", "--purge");
      const left =
        "find /etc /usr/local /var/lib /var/cache /run /tmp -xdev -iname '*testflinger*'";
      assertEquals(await systemd.sure("sh", "-c", left), "");
    } finally {
      await close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});
