/** The units that install.sh writes, and what it enables. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { ended, exists, giveAway, isInstalled, runUnprivileged } from "./support/command.ts";
import { contentsOf, type Host, onHost } from "./support/install_host.ts";

/** The unit of an agent that has one of its own, and that of all agents of a host. */
const UNITS = ["testflinger-agent@.service", "testflinger-agents.service"];

/** A folder with both. */
async function unitFolder(host: Host): Promise<string> {
  await Deno.mkdir(join(host.root, "etc/boards"), { recursive: true });
  await giveAway(host.root);
  await host.install("--version", "1.0.0", "--config-dir", "/etc/boards");
  const folder = join(dirname(host.root), "unit");
  await Deno.mkdir(folder);
  for (const name of UNITS) {
    const unit = await Deno.readTextFile(join(host.root, "etc/systemd/system", name));
    // systemd looks whether the program is there.
    await Deno.writeTextFile(
      join(folder, name),
      unit.replace("/usr/local/bin/testflinger-agent", "/bin/true"),
    );
  }
  return folder;
}

Deno.test({
  name: "systemd finds nothing wrong with the units, as they are and with strict.conf",
  ignore: !isInstalled("systemd-analyze"),
  fn: () =>
    onHost(async (host) => {
      const folder = await unitFolder(host);
      const units = UNITS.map((name) => join(folder, name));
      const verify = async () => {
        const { code, stderr, stdout } = await ended(
          new Deno.Command("systemd-analyze", {
            args: ["verify", ...units],
            stdin: "null",
            stdout: "piped",
            stderr: "piped",
          }).spawn(),
        );
        assertEquals([code, stdout, stderr], [0, "", ""]);
      };
      await verify();
      for (const unit of units) {
        await Deno.mkdir(`${unit}.d`);
        await Deno.copyFile(
          join(host.root, "usr/local/lib/testflinger-agent/strict.conf"),
          join(`${unit}.d`, "strict.conf"),
        );
      }
      await verify();
    }),
});

Deno.test("the service of a whole host is that of one agent, but for what names the agent", () =>
  onHost(async (host) => {
    const folder = await unitFolder(host);
    const [one = [], all = []] = await Promise.all(
      UNITS.map(async (name) =>
        (await Deno.readTextFile(join(folder, name))).split("\n")
          .filter((line) => /^[A-Z]/.test(line))
      ),
    );
    const keysOf = (lines: string[], others: string[]) =>
      lines.filter((line) => !others.includes(line)).map((line) => line.split("=")[0]);
    const named = ["Description", "ExecStart"];
    const folders = ["WorkingDirectory", "StateDirectory", "RuntimeDirectory", "SyslogIdentifier"];
    assertEquals(keysOf(one, all), [...named, "EnvironmentFile", ...folders]);
    assertEquals(keysOf(all, one), [...named, ...folders, "TasksMax"]);
    assert(all.includes("ExecStart=/bin/true run --config-dir /etc/boards \\"), all.join("\n"));
  }));

Deno.test("in an image --config-dir enables one service for all, an upgrade keeps it, --per-agent goes back", () =>
  onHost(async ({ root, releases, installer, install }) => {
    const systemd = join(root, "etc/systemd/system");
    const enabled = async () => {
      const names = [];
      for await (const { name } of Deno.readDir(join(systemd, "multi-user.target.wants"))) {
        const target = await Deno.readLink(join(systemd, "multi-user.target.wants", name));
        assert(await exists(join(systemd, "multi-user.target.wants", target)), target);
        names.push(name);
      }
      return names.sort();
    };
    const config = join(releases, "mine.conf");
    await Deno.writeTextFile(config, "agent_id: rpi4-1\n");
    for (const name of ["rpi4-1", "rpi4-2"]) {
      await install("--version", "1.0.0", "--agent", name, "--config", config);
    }
    // No other program is needed, nor said where one is.
    const here = (...options: string[]) =>
      runUnprivileged(["dash", installer, "--root", root, ...options]);
    const once = await here("--config-dir", "/etc/testflinger-agent");
    assertEquals([once.code, once.stderr], [0, ""]);
    assertStringIncludes(once.stdout, "Enabled: testflinger-agents.service\n");
    assertEquals(await enabled(), ["testflinger-agents.service"]);
    await install("--version", "1.1.0");
    assertStringIncludes(
      await Deno.readTextFile(join(systemd, "testflinger-agents.service")),
      "run --config-dir /etc/testflinger-agent ",
    );
    const back = await here("--per-agent");
    assertEquals([back.code, back.stderr], [0, ""]);
    const both = ["testflinger-agent@rpi4-1.service", "testflinger-agent@rpi4-2.service"];
    assertEquals(await enabled(), both);
    assertEquals(await exists(join(systemd, "testflinger-agents.service")), false);
    const none = await here("--per-agent");
    assertEquals(none.code, 1);
    assertStringIncludes(none.stderr, "there is no testflinger-agents.service here");

    await here("--config-dir", "/etc/testflinger-agent");
    assertEquals(await enabled(), ["testflinger-agents.service"]);
    assertEquals((await here("--uninstall", "--purge")).code, 0);
    assertEquals(await enabled(), []);
    assertEquals(Object.keys(await contentsOf(root)), []);
  }));

Deno.test("the units restart always, stop in order, and ask for a safe restart at reload", () =>
  onHost(async (host) => {
    const folder = await unitFolder(host);
    for (const name of UNITS) assertUnit(await Deno.readTextFile(join(folder, name)));
  }));

function assertUnit(unit: string): void {
  const lines = unit.split("\n");
  for (
    const line of [
      "Type=notify",
      "NotifyAccess=all",
      "Restart=always",
      "StartLimitIntervalSec=0",
      "KillMode=process",
      "ExecReload=/bin/sh -c 'kill -HUP ${MAINPID}'",
      "OOMPolicy=continue",
      "Delegate=yes",
      "User=testflinger",
    ]
  ) {
    assert(lines.includes(line), line);
  }
  // Any of these makes systemd set NoNewPrivileges, and sudo stops working in phase scripts.
  const endsSudo =
    /^(NoNewPrivileges|SystemCall|Restrict|Lock|MemoryDeny|PrivateDevices|ProtectKernel|ProtectClock|ProtectHostname|DynamicUser)/;
  assertEquals(lines.filter((line) => endsSudo.test(line)), []);
}

/** Where control groups of version 2 are: beside others, or alone. */
const GROUPS = "$(grep -m1 ' cgroup2 ' /proc/mounts | cut -d' ' -f2)";

/** The group of a unit with that of a job in it, in which something runs; systemd's own beside it. */
const IN_GIVEN_GROUP = `
cd "${GROUPS}"
was=$(cat cgroup.subtree_control)
given=given-$$
mkdir "$given" "$given/.control"
mkdir -p "$given/job/limited/test"
echo +hugetlb >cgroup.subtree_control
echo +hugetlb >"$given/cgroup.subtree_control"
echo +hugetlb >"$given/job/cgroup.subtree_control"
echo +hugetlb >"$given/job/limited/cgroup.subtree_control"
sh -c 'echo 0 >"$1"; exec sleep 1000' sh "$given/job/limited/test/cgroup.procs" &
echo "before: $(cat "$given/cgroup.subtree_control")"
sh -c 'echo 0 >"$1"; exec sh -c "$2"' sh "$given/.control/cgroup.procs" "$1"
echo "after:$(cat "$given/cgroup.subtree_control")"
sh -c 'echo 0 >"$1" && echo joined' sh "$given/cgroup.procs"
kill -9 $!
wait $! 2>/dev/null || true
find "$given" -depth -type d -exec rmdir {} \\;
[ -n "$was" ] || echo -hugetlb >cgroup.subtree_control
`;

async function mayHandOnControllers(): Promise<boolean> {
  const script = `cd "${GROUPS}" && [ -w cgroup.procs ] && grep -qw hugetlb cgroup.controllers`;
  return (await new Deno.Command("/bin/sh", { args: ["-c", script], stderr: "null" }).output())
    .success;
}

Deno.test(
  "when the agent is gone the unit's own control group hands no controllers on, so that the next one can start there",
  {
    ignore: !await mayHandOnControllers(),
  },
  () =>
    onHost(async (host) => {
      const folder = await unitFolder(host);
      const unit = await Deno.readTextFile(join(folder, "testflinger-agent@.service"));
      const [, words = ""] = /^ExecStopPost=-\/bin\/sh -c '((?:[^'])+)'$/m.exec(unit) ?? [];
      // As systemd reads it: a backslash continues the line, $$ is a dollar.
      const script = words.replaceAll("\\\n", " ").replaceAll("$$", "$");
      const { stdout, stderr } = await ended(
        new Deno.Command("/bin/sh", {
          args: ["-ec", IN_GIVEN_GROUP, "sh", script],
          stdin: "null",
          stdout: "piped",
          stderr: "piped",
        }).spawn(),
      );
      // A job runs on in its group meanwhile, and the group itself can be joined again.
      assertEquals([stdout, stderr], ["before: hugetlb\nafter:\njoined\n", ""]);
    }),
);
