/**
 * `testflinger-agent_VERSION_ARCH.deb`: what install.sh puts into an image, where a distribution's
 * package has it. Needs `dpkg-deb`.
 */
import { dirname, join } from "node:path";
import { completionScript } from "../../lib/cli/completion.ts";
import { manPage } from "../../lib/cli/help.ts";
import { agentCommand } from "../../lib/cli/run_agent.ts";
import { COMMANDS } from "../../lib/cli/table.ts";
import { VERSION } from "../../lib/version.ts";
import { BuildError, type Target } from "./targets.ts";

/** Debian's names of machines, by those of `uname -m`. */
const DEBIAN_ARCH: Record<string, string> = { x86_64: "amd64", aarch64: "arm64" };

const ALL_COMMANDS = { commands: COMMANDS, bare: agentCommand };

const USER = "testflinger";
/** Each agent's own, and that of all agents of a host; for a shell. */
const UNITS = "'testflinger-agent@*.service' testflinger-agents.service";
const MAINTAINER = "testflinger-agent maintainers <noreply@users.noreply.github.com>";
/** No file is older than the project: package checkers take 1970 for a mistake. */
const FILE_TIME = "2026-01-01T00:00:00Z";

/** What goes into a package. */
export interface DebParts {
  target: Target;
  /** The folder with the built files, and where the package goes. */
  out: string;
  /** The folder of `install.sh`. */
  root: string;
  notices: string;
}

/** The name of a target's package. */
export function debName({ arch }: Target): string {
  return `testflinger-agent_${VERSION}_${DEBIAN_ARCH[arch]}.deb`;
}

/** Whether packages can be built here. */
export function canBuildDeb(): boolean {
  try {
    return new Deno.Command("dpkg-deb", { args: ["--version"], stdout: "null" }).outputSync()
      .success;
  } catch {
    return false;
  }
}

/** Builds the package; resolves with its name. */
export async function buildDeb(parts: DebParts): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "testflinger-deb-" });
  try {
    const stage = join(folder, "stage");
    await Deno.mkdir(stage, { mode: 0o755 });
    await Deno.chmod(stage, 0o755);
    await fill(stage, parts);
    await normalize(stage);
    const name = debName(parts.target);
    // What is inside is compressed already.
    await run([
      ...["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", stage],
      join(parts.out, name),
    ]);
    return name;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

async function fill(stage: string, { target, out, root, notices }: DebParts): Promise<void> {
  const install = ["sh", join(root, "install.sh"), "--root", stage, "--prefix", "/usr"];
  const etc = "etc/testflinger-agent";
  await Deno.mkdir(join(stage, etc), { recursive: true });
  await run([
    ...[...install, "--arch", target.arch, "--from", out, "--version", VERSION],
    ...["--config-dir", `/${etc}`],
  ]);
  const move = async (from: string, to: string) => {
    await Deno.mkdir(dirname(join(stage, to)), { recursive: true });
    await Deno.rename(join(stage, from), join(stage, to));
  };
  // One version at a time: the package manager keeps the one before.
  const lib = "usr/lib/testflinger-agent";
  await move(`${lib}/testflinger-agent-${VERSION}-${target.arch}`, `${lib}/testflinger-agent`);
  await Deno.remove(join(stage, `${lib}/testflinger-agent-${VERSION}-${target.arch}.sha256`));
  await Deno.remove(join(stage, "usr/bin/testflinger-agent"));
  await Deno.symlink(
    "../lib/testflinger-agent/testflinger-agent",
    join(stage, "usr/bin/testflinger-agent"),
  );
  for (const unit of ["testflinger-agent@.service", "testflinger-agents.service"]) {
    await move(`etc/systemd/system/${unit}`, `usr/lib/systemd/system/${unit}`);
  }
  // Which of the two, if any, is the administrator's to enable.
  const wants = "etc/systemd/system/multi-user.target.wants";
  await Deno.remove(join(stage, wants), { recursive: true });
  await move("etc/sysusers.d/testflinger-agent.conf", "usr/lib/sysusers.d/testflinger-agent.conf");
  await move("etc/tmpfiles.d/testflinger-agent.conf", "usr/lib/tmpfiles.d/testflinger-agent.conf");
  for (const empty of ["etc/systemd/system", "etc/systemd", "etc/sysusers.d", "etc/tmpfiles.d"]) {
    await Deno.remove(join(stage, empty));
  }
  const doc = "usr/share/doc/testflinger-agent";
  await move(
    `${etc}/testflinger-agent.conf.example`,
    `${doc}/examples/testflinger-agent.conf`,
  );
  const write = async (path: string, text: string, mode = 0o644) => {
    await Deno.mkdir(dirname(join(stage, path)), { recursive: true });
    await Deno.writeTextFile(join(stage, path), text, { mode });
    await Deno.chmod(join(stage, path), mode);
  };
  const share = "usr/share";
  await write(`${share}/man/man1/testflinger-agent.1`, manPage(COMMANDS, agentCommand));
  for (const name of ["testflinger-device-connector", "snappy-device-agent"]) {
    await write(`${share}/man/man1/${name}.1`, ".so man1/testflinger-agent.1\n");
  }
  await write(
    `${share}/bash-completion/completions/testflinger-agent`,
    completionScript("bash", ALL_COMMANDS),
  );
  await write(
    `${share}/zsh/vendor-completions/_testflinger-agent`,
    completionScript("zsh", ALL_COMMANDS),
  );
  await write(
    `${share}/fish/vendor_completions.d/testflinger-agent.fish`,
    completionScript("fish", ALL_COMMANDS),
  );
  const license = await Deno.readTextFile(join(root, "LICENSE"));
  await write(
    `${doc}/copyright`,
    "testflinger-agent is licensed under the Apache License, version 2.0; on Debian systems it is in\n" +
      `/usr/share/common-licenses/Apache-2.0.\n\n${
        license.includes("Apache") ? "" : license
      }${notices}`,
  );
  await write(`${doc}/changelog`, changelog());
  await run(["gzip", "-9n", join(stage, `${doc}/changelog`)]);
  for (const name of ["testflinger-agent", "testflinger-device-connector", "snappy-device-agent"]) {
    await run(["gzip", "-9n", join(stage, `${share}/man/man1/${name}.1`)]);
  }
  await write(
    `${share}/lintian/overrides/testflinger-agent`,
    "# A shell script with the runtime and the program behind it.\n" +
      "testflinger-agent: shell-script-fails-syntax-check *testflinger-agent*\n" +
      "# The licences of what is inside, as their holders want them.\n" +
      "testflinger-agent: copyright-file-contains-full-apache-2-license\n",
  );
  await writeControl(write, target);
}

type Write = (path: string, text: string, mode?: number) => Promise<void>;

async function writeControl(write: Write, target: Target): Promise<void> {
  await write(
    "DEBIAN/control",
    [
      "Package: testflinger-agent",
      `Version: ${VERSION}`,
      `Architecture: ${DEBIAN_ARCH[target.arch]}`,
      `Maintainer: ${MAINTAINER}`,
      "Section: admin",
      "Priority: optional",
      "Depends: libc6 (>= 2.27), adduser",
      "Recommends: systemd, openssh-client",
      "Description: agent of a Testflinger hardware lab",
      " A service beside each device under test that takes jobs from a Testflinger",
      " server, runs them, streams their logs and reports the outcome.",
      "",
    ].join("\n"),
  );
  // The user is made here: not every host has systemd-sysusers.
  await write(
    "DEBIAN/postinst",
    `#!/bin/sh
set -e
if [ "$1" = configure ]; then
  if ! getent passwd ${USER} >/dev/null; then
    adduser --system --group --home /var/lib/testflinger-agent --no-create-home \\
      --gecos "Testflinger agent" ${USER}
  fi
  mkdir -p /etc/testflinger-agent
  if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || true
    # An upgrade: the new version takes up what runs, and jobs go on.
    if [ -n "$2" ]; then
      systemctl list-units --plain --no-legend --state=active ${UNITS} | cut -d ' ' -f 1 |
        xargs -r systemctl reload || true
    fi
  fi
fi
`,
    0o755,
  );
  await write(
    "DEBIAN/prerm",
    `#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
  systemctl list-units --plain --no-legend ${UNITS} | cut -d ' ' -f 1 |
    xargs -r systemctl disable --now || true
fi
`,
    0o755,
  );
  await write(
    "DEBIAN/postrm",
    `#!/bin/sh
set -e
if [ "$1" = remove ] || [ "$1" = purge ]; then
  rm -rf /var/cache/testflinger-agent
fi
if [ "$1" = purge ]; then
  rm -rf /etc/testflinger-agent /var/lib/testflinger-agent
fi
if [ -d /run/systemd/system ]; then
  systemctl daemon-reload || true
fi
`,
    0o755,
  );
}

function changelog(): string {
  return `testflinger-agent (${VERSION}) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n -- ` +
    `${MAINTAINER}  Thu, 01 Jan 2026 00:00:00 +0000\n`;
}

/** The same input gives the same bytes. */
async function normalize(stage: string): Promise<void> {
  await run(["find", stage, "-type", "d", "-exec", "chmod", "0755", "{}", "+"]);
  await run(["find", stage, "-exec", "touch", "-h", "-d", FILE_TIME, "{}", "+"]);
}

async function run(argv: readonly string[]): Promise<void> {
  const [program = "", ...args] = argv;
  const { success, stdout, stderr } = await new Deno.Command(program, {
    args,
    env: { SOURCE_DATE_EPOCH: `${Date.parse(FILE_TIME) / 1000}` },
    stdin: "null",
  }).output();
  if (success) return;
  const text = new TextDecoder();
  throw new BuildError(`'${argv.join(" ")}' fails:\n${text.decode(stdout)}${text.decode(stderr)}`);
}
