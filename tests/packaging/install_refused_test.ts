/** What install.sh refuses, and what interrupts it: there is always one whole version. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { dirname, join } from "node:path";
import { sha256 } from "../../tools/build/digest.ts";
import {
  ended,
  exists,
  giveAway,
  isInstalled,
  runUnprivileged,
  startUnprivileged,
  until,
  writeScript,
} from "./support/command.ts";
import {
  ARCH,
  type Host,
  onHost,
  OTHER_ARCH,
  program,
  writeRelease,
} from "./support/install_host.ts";

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
  ["two kinds of service", () => ["--config-dir", "/etc", "--per-agent"], /exclude each other/],
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
