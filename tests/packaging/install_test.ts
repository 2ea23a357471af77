/** install.sh below a folder (`--root`), with small scripts in the place of the program. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { sha256 } from "../../tools/build/digest.ts";
import {
  ended,
  exists,
  giveAway,
  inFolder,
  isInstalled,
  type Ran,
  runUnprivileged,
  SHELLS,
  startUnprivileged,
  until,
  writeScript,
} from "./support/command.ts";
import { hostTarget, otherTarget } from "./support/targets.ts";

const INSTALLER = fileURLToPath(new URL("../../install.sh", import.meta.url));
const ARCH = hostTarget().arch;
const OTHER_ARCH = otherTarget().arch;

/** A host to install on, and a folder with two versions to install. */
interface Host {
  root: string;
  releases: string;
  installer: string;
  install(...options: string[]): Promise<Ran>;
  /** The version that is installed, by its own word. */
  version(): Promise<string>;
  /** All files, with the bytes of small ones, to compare what two moments have. */
  state(): Promise<Record<string, string>>;
}

function program(version: string, arch = ARCH): string {
  return `#!/bin/sh\narch=${arch}\necho "version ${version}"\n`;
}

async function writeRelease(folder: string, files: Record<string, string>): Promise<void> {
  await Deno.mkdir(folder, { recursive: true });
  let sums = "";
  for (const [name, text] of Object.entries(files)) {
    await writeScript(join(folder, name), text);
    sums += `${await sha256(new TextEncoder().encode(text))}  ${name}\n`;
  }
  await Deno.writeTextFile(join(folder, "SHA256SUMS"), sums);
}

function onHost(
  test: (host: Host) => Promise<void>,
  { shell = ["dash"] }: { shell?: readonly string[] } = {},
): Promise<void> {
  return inFolder(async (folder) => {
    const root = join(folder, "root");
    const releases = join(folder, "releases");
    await Deno.mkdir(root);
    await writeRelease(releases, {
      [`testflinger-agent-1.0.0-${ARCH}`]: program("1.0.0"),
      [`testflinger-agent-1.1.0-${ARCH}`]: program("1.1.0"),
      [`testflinger-agent-1.1.0-${OTHER_ARCH}`]: program("1.1.0", OTHER_ARCH),
    });
    // Where the tests run as root, nobody may not be able to read the checkout.
    const installer = join(folder, "install.sh");
    await Deno.copyFile(INSTALLER, installer);
    await giveAway(folder);
    const bin = join(root, "usr/local/bin");
    await test({
      root,
      releases,
      installer,
      install: (...options) =>
        runUnprivileged([...shell, installer, "--root", root, "--from", releases, ...options]),
      async version() {
        const target = await Deno.readLink(join(bin, "testflinger-agent"));
        return (await runUnprivileged([`${root}${target}`])).stdout.trim();
      },
      state: () => contentsOf(root),
    });
  });
}

async function contentsOf(folder: string, prefix = ""): Promise<Record<string, string>> {
  let found: Record<string, string> = {};
  for await (const entry of Deno.readDir(join(folder, prefix))) {
    const name = join(prefix, entry.name);
    const path = join(folder, name);
    if (entry.isDirectory) {
      found = { ...found, ...await contentsOf(folder, name) };
    } else if (entry.isSymlink) {
      found[name] = `-> ${await Deno.readLink(path)}`;
    } else {
      const { mode } = await Deno.stat(path);
      found[name] = `${((mode ?? 0) & 0o7777).toString(8)} ${await Deno.readTextFile(path)}`;
    }
  }
  return found;
}

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

Deno.test({
  name: "with --key the checksums must be signed with it",
  ignore: !isInstalled("gpg"),
  fn: () =>
    onHost(async ({ releases, install, version, state }) => {
      const home = await Deno.makeTempDir({ prefix: "tf-gpg-" });
      try {
        const gpg = async (user: string, ...args: string[]) => {
          const { success, stdout, stderr } = await new Deno.Command("gpg", {
            args: ["--homedir", home, "--batch", "--yes", "--passphrase", "", "-u", user, ...args],
          }).output();
          assert(success, new TextDecoder().decode(stderr));
          return stdout;
        };
        const keys: string[] = [];
        for (const user of ["ours@example.com", "other@example.com"]) {
          await gpg(user, "--quick-gen-key", user, "ed25519", "sign");
          const key = join(releases, `${user}.asc`);
          await Deno.writeFile(key, await gpg(user, "--armor", "--export", user));
          keys.push(key);
        }
        const [ours = "", other = ""] = keys;
        const sums = join(releases, "SHA256SUMS");
        const options = ["--version", "1.0.0", "--key", ours];
        const unsigned = await install(...options);
        assertEquals(unsigned.stderr, `install.sh: there is no SHA256SUMS.asc in ${releases}\n`);
        await gpg("ours@example.com", "--armor", "--detach-sign", "--output", `${sums}.asc`, sums);
        await giveAway(releases);
        const wrong = await install("--version", "1.0.0", "--key", other);
        assertStringIncludes(
          wrong.stderr,
          `the signature of ${sums} is not one of ${other}. Nothing was changed`,
        );
        assertEquals(await state(), {});
        assertEquals((await install(...options)).stderr, "");
        assertEquals(await version(), "version 1.0.0");
        // Changed after it was signed.
        await Deno.writeTextFile(sums, `${"0".repeat(64)}  something\n`, { append: true });
        const changed = await install("--version", "1.1.0", "--key", ours);
        assertStringIncludes(changed.stderr, "Nothing was changed");
        assertEquals(await version(), "version 1.0.0");
      } finally {
        await new Deno.Command("gpgconf", { args: ["--homedir", home, "--kill", "all"] }).output();
        await Deno.remove(home, { recursive: true });
      }
    }),
});

Deno.test({
  name: "a key of minisign does, too",
  ignore: !isInstalled("minisign"),
  fn: () =>
    onHost(async ({ releases, install, version }) => {
      const minisign = async (...args: string[]) => {
        const { success, stderr } = await new Deno.Command("minisign", { args }).output();
        assert(success, new TextDecoder().decode(stderr));
      };
      const [ours, other] = ["ours", "other"].map((name) => join(releases, name));
      for (const key of [ours, other]) {
        await minisign("-G", "-W", "-p", `${key}.pub`, "-s", `${key}.key`);
      }
      const sums = join(releases, "SHA256SUMS");
      await minisign("-S", "-s", `${ours}.key`, "-m", sums);
      await giveAway(releases);
      const wrong = await install("--version", "1.0.0", "--key", `${other}.pub`);
      assertEquals(wrong.code, 1);
      assertStringIncludes(wrong.stderr, `is not one of ${other}.pub. Nothing was changed`);
      assertEquals((await install("--version", "1.0.0", "--key", `${ours}.pub`)).stderr, "");
      assertEquals(await version(), "version 1.0.0");
    }),
});

/** What must be refused: options, and what is said. */
const REFUSED: readonly [string, (host: Host) => Promise<string[]> | string[], RegExp][] = [
  ["an unknown option", () => ["--frobnicate"], /unknown option '--frobnicate'/],
  ["an option without its value", () => ["--version"], /--version needs a value/],
  ["a relative prefix", () => ["--prefix", "opt"], /--prefix must be an absolute path/],
  ["a prefix with blanks", () => ["--prefix", "/opt/my tools"], /--prefix has characters/],
  ["a user that is none", () => ["--user", "x;y"], /--user is no name/],
  ["an agent named like a path", () => ["--agent", "../x", "--config", "x"], /--agent may have/],
  ["an agent without configuration", () => ["--agent", "rpi4"], /--agent needs --config/],
  [
    "a configuration that is not there",
    () => ["--agent", "rpi4", "--config", "/nonexistent.conf"],
    /cannot read the configuration \/nonexistent.conf/,
  ],
  ["several versions to choose from", () => [], /there are several versions .* --version/],
  ["a version that is not there", () => ["--version", "9.9.9"], /no testflinger-agent 9\.9\.9 for/],
  ["a place that is not there", () => ["--from", "/nonexistent"], /there is no \/nonexistent/],
  ["another machine's file", ({ releases }) => [
    "--from",
    join(releases, `testflinger-agent-1.1.0-${OTHER_ARCH}`),
  ], new RegExp(`is for ${OTHER_ARCH}, and this machine is ${ARCH}`)],
  ["another machine's file under this machine's name", async ({ releases }) => {
    await writeRelease(releases, {
      [`testflinger-agent-1.3.0-${ARCH}`]: program("1.3.0", OTHER_ARCH),
    });
    return ["--version", "1.3.0"];
  }, new RegExp(`is for ${OTHER_ARCH}, and this machine is ${ARCH}`)],
  ["an ELF file of another machine under this machine's name", async ({ releases }) => {
    const elf = "\x7fELF".padEnd(18, "\x02") + "\xf3\x00\x01\x00".slice(0, 2) + "rest";
    await writeRelease(releases, { [`testflinger-agent-1.3.0-${ARCH}`]: elf });
    return ["--version", "1.3.0"];
  }, /is for no machine that is known, and this machine is/],
  ["a wrong checksum", async ({ releases }) => {
    await Deno.writeTextFile(
      join(releases, `testflinger-agent-1.1.0-${ARCH}`),
      "echo tampered\n",
      { append: true },
    );
    return ["--version", "1.1.0"];
  }, /wrong checksum for .*: it is [0-9a-f]{64}, and should be [0-9a-f]{64}\. Nothing was changed/],
  ["no checksum", async ({ releases }) => {
    await Deno.remove(join(releases, "SHA256SUMS"));
    return ["--from", join(releases, `testflinger-agent-1.1.0-${ARCH}`)];
  }, /no checksum for .*: put SHA256SUMS beside it, or give --sha256/],
  [
    "an http address without a checksum",
    () => ["--from", `http://127.0.0.1:1/testflinger-agent-1.1.0-${ARCH}`],
    /give --sha256 for http:/,
  ],
  ["a system with musl", async ({ root }) => {
    await Deno.mkdir(join(root, "lib"));
    return ["--version", "1.1.0"];
  }, /needs glibc: there is no .*ld-linux/],
  [
    "a relative folder of a host",
    () => ["--config-dir", "etc"],
    /--config-dir must be an absolute/,
  ],
  [
    "a folder of a host that a unit cannot name",
    () => ["--config-dir", "/a b"],
    /--config-dir has /,
  ],
  [
    "a folder of a host that is not there",
    () => ["--config-dir", "/none"],
    /there is no folder .*none/,
  ],
  ["two kinds of service", () => ["--config-dir", "/etc", "--per-agent"], /two ways/],
  ["purge without uninstall", () => ["--purge"], /--purge needs --uninstall/],
  ["stop without uninstall", () => ["--stop"], /--stop needs --uninstall/],
  ["force without a configuration", () => ["--force"], /--force needs --config/],
];

for (const [what, prepare, message] of REFUSED) {
  Deno.test(`install.sh refuses ${what}, and changes nothing`, () =>
    onHost(async (host) => {
      await host.install("--version", "1.0.0");
      const options = await prepare(host);
      const before = await host.state();
      const { code, stdout, stderr } = await host.install(...options);
      assert(code !== 0);
      assertEquals(stdout, "");
      assertMatch(stderr, /^install\.sh: /);
      assertMatch(stderr, message);
      assertEquals(await host.state(), before);
    }));
}

Deno.test("a prefix that cannot be written to is named, and nothing is changed", () =>
  onHost(async ({ root, install, state }) => {
    await Deno.mkdir(join(root, "usr/local"), { recursive: true });
    await Deno.chmod(join(root, "usr/local"), 0o555);
    const { code, stderr } = await install("--version", "1.0.0");
    assertEquals(code, 1);
    assertStringIncludes(stderr, `cannot make the folder ${root}/usr/local/lib/testflinger-agent`);
    assertEquals(await state(), {});
    await Deno.chmod(join(root, "usr/local"), 0o755);
  }));

Deno.test("on a full disk the version before stays, and no part of the new one", () =>
  onHost(async ({ root, releases, installer, install, version, state }) => {
    await install("--version", "1.0.0");
    const before = await state();
    const name = `testflinger-agent-1.2.0-${ARCH}`;
    await writeRelease(releases, { [name]: `${program("1.2.0")}${"#".repeat(200_000)}\n` });
    await giveAway(releases);
    const full = await runUnprivileged([
      ...["sh", "-c", 'ulimit -f 100; exec dash "$@"', "sh"],
      ...[installer, "--root", root, "--from", releases],
    ]);
    assert(full.code !== 0);
    assertEquals(await state(), before);
    assertEquals(await version(), "version 1.0.0");
  }));

/** Programs that the installer calls: at each it may be interrupted. */
for (const step of ["sha256sum", "sed", "od", "ln", "mv"]) {
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    Deno.test(`interrupted by ${signal} at '${step}', there is one whole version, and again it goes on`, () =>
      onHost(async (host) => {
        const { root, releases, installer, install, version } = host;
        await install("--version", "1.0.0");
        const before = await host.state();
        const bin = join(dirname(root), "bin");
        await Deno.mkdir(bin);
        const begun = join(bin, "begun");
        const goOn = join(bin, "go-on");
        await writeScript(
          join(bin, step),
          `#!/bin/sh\n: >${begun}\nwhile [ ! -e ${goOn} ]; do sleep 0.02; done\n` +
            `exec /usr/bin/${step} "$@"\n`,
        );
        await giveAway(bin);
        const child = startUnprivileged(
          ["dash", installer, "--root", root, "--from", releases, "--version", "1.1.0"],
          { env: { PATH: `${bin}:/usr/bin:/bin` } },
        );
        await until(`it calls ${step}`, () => exists(begun));
        child.kill(signal);
        const over = ended(child);
        await Deno.writeTextFile(goOn, "");
        const { code } = await over;

        const after = await host.state();
        if (signal === "SIGTERM" && step !== "ln" && step !== "mv") {
          assertEquals(code, 143);
          assertEquals(after, before);
        }
        // Whatever has been done: what is there runs, and nothing has half its content.
        assertMatch(await version(), /^version 1\.[01]\.0$/);
        const whole = Object.entries(after).filter(([name]) => !name.endsWith(".new"));
        for (const [name, content] of whole) {
          if (name in before && !/lib\/testflinger-agent\/|bin\/testflinger-agent$/.test(name)) {
            assertEquals(content, before[name], name);
          }
        }
        assertEquals((await install("--version", "1.1.0")).code, 0);
        assertEquals(await version(), "version 1.1.0");
        const left = Object.keys(await host.state()).filter((name) => name.endsWith(".new"));
        assertEquals(left, []);
      }));
  }
}

Deno.test("over http it takes a program whose checksum is given", () =>
  onHost(async ({ releases, root, installer, version }) => {
    const name = `testflinger-agent-1.1.0-${ARCH}`;
    const server = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      async (request) => {
        const path = join(releases, new URL(request.url).pathname);
        return new Response(await Deno.readFile(path));
      },
    );
    const sum = await sha256(await Deno.readFile(join(releases, name)));
    const from = `http://127.0.0.1:${server.addr.port}/${name}`;
    const { code, stderr } = await runUnprivileged(
      ["dash", installer, "--root", root, "--from", from, "--sha256", sum],
    );
    assertEquals([code, stderr], [0, ""]);
    assertEquals(await version(), "version 1.1.0");
    await server.shutdown();
  }));

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
mkdir "$given" "$given/job" "$given/job/test" "$given/.control"
echo +hugetlb >cgroup.subtree_control
echo +hugetlb >"$given/cgroup.subtree_control"
echo +hugetlb >"$given/job/cgroup.subtree_control"
sh -c 'echo 0 >"$1"; exec sleep 1000' sh "$given/job/test/cgroup.procs" &
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
