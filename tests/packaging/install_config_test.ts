/** install.sh and the configurations of agents. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { isInstalled } from "./support/command.ts";
import { onHost } from "./support/install_host.ts";

Deno.test("an agent's configuration is not readable for everybody, and the next commands are named", () =>
  onHost(async ({ root, releases, install }) => {
    const config = join(releases, "mine.conf");
    await Deno.writeTextFile(config, "agent_id: rpi-4\n");
    const { code, stdout } = await install(
      ...["--version", "1.0.0", "--agent", "rpi-4", "--config", config],
    );
    assertEquals(code, 0);
    const installed = join(root, "etc/testflinger-agent/rpi-4/testflinger-agent.conf");
    assertEquals(await Deno.readTextFile(installed), "agent_id: rpi-4\n");
    assertEquals(((await Deno.stat(installed)).mode ?? 0) & 0o777, 0o640);
    assertStringIncludes(
      stdout,
      "Next:\n  testflinger-agent check /etc/testflinger-agent/rpi-4/testflinger-agent.conf\n" +
        "  systemctl enable --now testflinger-agent@rpi-4\n",
    );
  }));

Deno.test("a configuration that differs is not replaced without --force, and one that is the same is no question", () =>
  onHost(async ({ root, releases, install, state }) => {
    const config = join(releases, "mine.conf");
    const agent = ["--version", "1.0.0", "--agent", "rpi-4", "--config", config];
    await Deno.writeTextFile(config, "agent_id: rpi-4\n");
    assertEquals((await install(...agent)).code, 0);
    assertEquals((await install(...agent)).code, 0);
    const before = await state();
    await Deno.writeTextFile(config, "agent_id: rpi-5\n");
    const { code, stderr } = await install(...agent);
    assertEquals(code, 1);
    const installed = join(root, "etc/testflinger-agent/rpi-4/testflinger-agent.conf");
    assertEquals(
      stderr,
      `install.sh: ${installed} differs from ${config}: add --force to replace it. ` +
        "Nothing was changed\n",
    );
    assertEquals(await state(), before);
    assertEquals((await install(...agent, "--force")).code, 0);
    assertEquals(await Deno.readTextFile(installed), "agent_id: rpi-5\n");
  }));

Deno.test({
  name:
    "at the boot of an image scripts below a configuration stay executable, and other files are not",
  ignore: !isInstalled("systemd-tmpfiles") || Deno.uid() !== 0,
  fn: () =>
    onHost(async ({ root, install }) => {
      await install("--version", "1.0.0");
      const folder = join(root, "etc/testflinger-agent/rpi4");
      await Deno.mkdir(folder);
      const files = { "device.yaml": 0o644, "reboot.sh": 0o755, "keys": 0o600 };
      for (const [name, mode] of Object.entries(files)) {
        await Deno.writeTextFile(join(folder, name), "", { mode });
        await Deno.chmod(join(folder, name), mode);
      }
      const entry = "testflinger:x:990:990::/:/bin/false\n";
      await Deno.writeTextFile(join(root, "etc/passwd"), `root:x:0:0::/:/bin/sh\n${entry}`);
      await Deno.writeTextFile(join(root, "etc/group"), "root:x:0:\ntestflinger:x:990:\n");
      const { code, stderr } = await new Deno.Command("systemd-tmpfiles", {
        args: ["--create", `--root=${root}`, join(root, "etc/tmpfiles.d/testflinger-agent.conf")],
      }).output();
      assertEquals(code, 0, new TextDecoder().decode(stderr));
      const modes = Object.keys(files).map((name) => {
        const { mode, uid, gid } = Deno.statSync(join(folder, name));
        return `${name} ${((mode ?? 0) & 0o777).toString(8)} ${uid}:${gid}`;
      });
      assertEquals(modes, ["device.yaml 640 0:990", "reboot.sh 750 0:990", "keys 640 0:990"]);
    }),
});
