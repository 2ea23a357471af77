/** install.sh: a fresh installation, an upgrade, a way back, and removal. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { giveAway, inFolder, isInstalled, runUnprivileged, SHELLS } from "./support/command.ts";
import { ARCH, INSTALLER, onHost, program, writeRelease } from "./support/install_host.ts";

const INSTALLED = [
  "etc/systemd/system/testflinger-agent@.service",
  "etc/sysusers.d/testflinger-agent.conf",
  "etc/testflinger-agent/testflinger-agent.conf.example",
  "etc/tmpfiles.d/testflinger-agent.conf",
  "usr/local/bin/snappy-device-agent",
  "usr/local/bin/testflinger-agent",
  "usr/local/bin/testflinger-device-connector",
  "usr/local/lib/testflinger-agent/strict.conf",
  `usr/local/lib/testflinger-agent/testflinger-agent-1.0.0-${ARCH}`,
  `usr/local/lib/testflinger-agent/testflinger-agent-1.0.0-${ARCH}.sha256`,
];

for (const shell of SHELLS) {
  Deno.test(`a fresh installation, and the same again, changes nothing: ${shell.join(" ")}`, () =>
    onHost(async ({ install, version, state }) => {
      const first = await install("--version", "1.0.0");
      assertEquals([first.code, first.stderr], [0, ""]);
      assertEquals(await version(), "version 1.0.0");
      const once = await state();
      assertEquals(Object.keys(once).sort(), INSTALLED);
      const second = await install("--version", "1.0.0");
      assertEquals([second.code, second.stderr, second.stdout], [0, "", first.stdout]);
      assertEquals(await state(), once);
      assertEquals(first.stdout.split("\n").length, 5, first.stdout);
    }, { shell }));

  Deno.test(`upgrade, roll back and uninstall: ${shell.join(" ")}`, () =>
    onHost(async ({ root, installer, install, version, state }) => {
      await install("--version", "1.0.0");
      const upgrade = await install("--version", "1.1.0");
      assertEquals([upgrade.code, upgrade.stderr], [0, ""]);
      assertEquals(await version(), "version 1.1.0");
      assertStringIncludes(upgrade.stdout, "systemctl reload 'testflinger-agent*'");

      // Without --from: the version before is still there.
      const back = await runUnprivileged(
        [...shell, installer, "--root", root, "--version", "1.0.0"],
      );
      assertEquals([back.code, back.stderr], [0, ""]);
      assertEquals(await version(), "version 1.0.0");

      await Deno.mkdir(join(root, "var/lib/testflinger-agent/rpi4"), { recursive: true });
      await Deno.writeTextFile(join(root, "var/lib/testflinger-agent/rpi4/result"), "precious");
      // What an administrator and the agents have made besides.
      await Deno.mkdir(join(root, "etc/systemd/system/multi-user.target.wants"));
      const wanted = "etc/systemd/system/multi-user.target.wants/testflinger-agent@rpi4.service";
      await Deno.symlink("../testflinger-agent@.service", join(root, wanted));
      const dropIn = "etc/systemd/system/testflinger-agent@.service.d/strict.conf";
      for (const path of [dropIn, "run/testflinger-agent/rpi4/x", "tmp/testflinger/run/x"]) {
        await Deno.mkdir(dirname(join(root, path)), { recursive: true });
        await Deno.writeTextFile(join(root, path), "");
      }
      await giveAway(root);
      const uninstall = ["--root", root, "--uninstall"];
      const gone = await runUnprivileged([...shell, installer, ...uninstall]);
      assertEquals([gone.code, gone.stderr], [0, ""]);
      assertEquals(Object.keys(await state()).sort(), [
        dropIn,
        "etc/testflinger-agent/testflinger-agent.conf.example",
        "run/testflinger-agent/rpi4/x",
        "tmp/testflinger/run/x",
        "var/lib/testflinger-agent/rpi4/result",
      ]);
      const user = Deno.uid() === 0 ? "nobody" : "root";
      const purge = [...uninstall, "--purge", "--user", user];
      await runUnprivileged([...shell, installer, ...purge]);
      assertEquals(await state(), {});
    }, { shell }));
}

Deno.test("only the version before stays, to roll back to", () =>
  onHost(async ({ root, releases, install }) => {
    await writeRelease(releases, {
      [`testflinger-agent-1.0.0-${ARCH}`]: program("1.0.0"),
      [`testflinger-agent-1.1.0-${ARCH}`]: program("1.1.0"),
      [`testflinger-agent-1.2.0-${ARCH}`]: program("1.2.0"),
    });
    for (const version of ["1.0.0", "1.1.0", "1.2.0"]) await install("--version", version);
    const found = [...Deno.readDirSync(join(root, "usr/local/lib/testflinger-agent"))]
      .map(({ name }) => name).filter((name) => name.endsWith(ARCH)).sort();
    assertEquals(found, ["1.1.0", "1.2.0"].map((v) => `testflinger-agent-${v}-${ARCH}`));
  }));

Deno.test("a version that is not kept cannot be rolled back to, and it says which one can", () =>
  onHost(async ({ root, installer, install, version }) => {
    await install("--version", "1.0.0");
    const back = await runUnprivileged(["sh", installer, "--root", root, "--version", "0.9.0"]);
    assertEquals(back.code, 1);
    assertStringIncludes(
      back.stderr,
      "version 0.9.0 is not kept on this host (there is: 1.0.0): say where it is with --from",
    );
    assertEquals(await version(), "version 1.0.0");
  }));

Deno.test("what lies below another prefix is not half removed", () =>
  onHost(async ({ root, installer, install, state }) => {
    await install("--version", "1.0.0", "--prefix", "/opt/testflinger");
    const before = await state();
    const uninstall = ["sh", installer, "--root", root, "--uninstall"];
    const refused = await runUnprivileged(uninstall);
    assertEquals(refused.code, 1);
    assertStringIncludes(
      refused.stderr,
      "installed in /opt/testflinger: add --prefix /opt/testflinger. Nothing was removed",
    );
    assertEquals(await state(), before);
    const gone = await runUnprivileged([...uninstall, "--prefix", "/opt/testflinger"]);
    assertEquals([gone.code, gone.stderr], [0, ""]);
    assertEquals(Object.keys(await state()), [
      "etc/testflinger-agent/testflinger-agent.conf.example",
    ]);
  }));

Deno.test("the old names call device connectors of the program that is installed", () =>
  onHost(async ({ root, install }) => {
    await install("--version", "1.0.0", "--prefix", "/opt/tf");
    for (const name of ["testflinger-device-connector", "snappy-device-agent"]) {
      assertMatch(
        await Deno.readTextFile(join(root, "opt/tf/bin", name)),
        /\nexec \/opt\/tf\/bin\/testflinger-agent device-connector "\$@"\n$/,
      );
    }
    const unit = await Deno.readTextFile(
      join(root, "etc/systemd/system/testflinger-agent@.service"),
    );
    assertStringIncludes(unit, "\nExecStart=/opt/tf/bin/testflinger-agent -c ");
  }));
Deno.test("the example configuration is valid, also with every line in use", () =>
  onHost(async ({ root, install }) => {
    await install("--version", "1.0.0");
    const { loadAgentConfig } = await import("../../lib/config/agent_config.ts");
    const example = join(root, "etc/testflinger-agent/testflinger-agent.conf.example");
    const text = await Deno.readTextFile(example);
    for (const content of [text, text.replaceAll(/^#(?=[a-z ]+[a-z_-]*:)/gm, "")]) {
      await Deno.writeTextFile(example, content);
      const result = await loadAgentConfig(example);
      assertEquals(result.ok ? [] : result.mistakes, []);
    }
  }));

Deno.test({
  name: "shellcheck finds nothing in install.sh and in the launcher",
  ignore: !isInstalled("shellcheck"),
  fn: () =>
    inFolder(async (folder) => {
      const template = await Deno.readTextFile(
        new URL("../../tools/build/header.sh", import.meta.url),
      );
      const header = join(folder, "header.sh");
      await Deno.writeTextFile(header, template.replaceAll(/@[A-Z0-9_]+@/g, "1"));
      const { code, stdout } = await new Deno.Command("shellcheck", {
        args: ["--shell=sh", "--severity=style", INSTALLER, header],
      }).output();
      assertEquals([code, new TextDecoder().decode(stdout)], [0, ""]);
    }),
});
