/** The Debian package: what is in it, what a checker says of it, and that its program runs. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { VERSION } from "../../lib/version.ts";
import { buildDeb, debName } from "../../tools/build/deb.ts";
import { ROOT, sharedBuild } from "../packaging/support/built.ts";
import { ended, isInstalled } from "../packaging/support/command.ts";

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const [program = "", ...args] = argv;
  const stdio = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
  return await ended(new Deno.Command(program, { args, ...stdio }).spawn());
}

Deno.test({
  name:
    "a package has the program, the unit, the manual and the completions, and lintian finds no error",
  ignore: !isInstalled("dpkg-deb"),
  async fn() {
    const { dist, targets, env } = await sharedBuild();
    const folder = await Deno.makeTempDir({ prefix: "testflinger-deb-test-" });
    try {
      const out = join(folder, "dist");
      await run("cp", "-a", dist, out);
      for (const target of targets) {
        const name = await buildDeb({ target, out, root: ROOT, notices: "licences\n" });
        assertEquals(name, debName(target));
        const file = join(out, name);
        const { stdout: fields } = await run("dpkg-deb", "-f", file, "Version", "Architecture");
        assertMatch(fields, new RegExp(`^Version: ${VERSION}\nArchitecture: (amd64|arm64)\n$`));
        const { stdout: list } = await run("dpkg-deb", "-c", file);
        for (
          const path of [
            "./etc/testflinger-agent/",
            "./usr/bin/testflinger-agent -> ../lib/testflinger-agent/testflinger-agent",
            "./usr/bin/testflinger-device-connector",
            "./usr/lib/systemd/system/testflinger-agent@.service",
            "./usr/lib/systemd/system/testflinger-agents.service",
            "./usr/share/man/man1/testflinger-agent.1.gz",
            "./usr/share/bash-completion/completions/testflinger-agent",
            "./usr/share/zsh/vendor-completions/_testflinger-agent",
            "./usr/share/fish/vendor_completions.d/testflinger-agent.fish",
          ]
        ) assertStringIncludes(list, ` ${path}\n`);
        assertEquals(list.includes("multi-user.target.wants"), false, list);
        if (isInstalled("lintian")) {
          const { stdout } = await run("lintian", "--allow-root", "--fail-on", "none", file);
          assertEquals(stdout.split("\n").filter((line) => line.startsWith("E: ")), []);
        }
      }
      const [host] = targets.filter(({ name }) => name === Deno.build.target);
      if (host === undefined) return;
      await run("dpkg-deb", "-x", join(out, debName(host)), join(folder, "root"));
      const program = join(folder, "root/usr/bin/testflinger-agent");
      const stdio = { stdin: "null", stdout: "piped", stderr: "piped" } as const;
      const version = await ended(
        new Deno.Command(program, { args: ["version"], env, ...stdio }).spawn(),
      );
      assertMatch(version.stdout, new RegExp(`^testflinger-agent ${VERSION}\n`));
      const unit = join(folder, "root/usr/lib/systemd/system/testflinger-agent@.service");
      assertStringIncludes(
        await Deno.readTextFile(unit),
        "\nExecStart=/usr/bin/testflinger-agent -c /etc/testflinger-agent/%i/",
      );
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});
