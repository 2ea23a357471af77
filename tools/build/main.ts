/**
 * `deno task build`: the files that a lab copies to its hosts, into `dist/`; `--help` has the options.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { manPage } from "../../lib/cli/help.ts";
import { agentCommand } from "../../lib/cli/run_agent.ts";
import { COMMANDS } from "../../lib/cli/table.ts";
import { messageOf } from "../../lib/message.ts";
import { VERSION } from "../../lib/version.ts";
import { bundle, shortPath, stampBundle } from "./bundle.ts";
import { compile } from "./compile.ts";
import { sha256 } from "./digest.ts";
import { commitOf } from "./git.ts";
import { collectNotices } from "./notices.ts";
import { portable } from "./portable.ts";
import { buildDeb, canBuildDeb } from "./deb.ts";
import { denoFor } from "./runtime.ts";
import { tryFile } from "./trial.ts";
import {
  BuildError,
  DENO_VERSION,
  type Packaging,
  PACKAGINGS,
  type Target,
  TARGETS,
} from "./targets.ts";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
const PROGRAM = "testflinger-agent";
const EXECUTABLE = 0o755;
const MEBIBYTE = 1024 * 1024;

/** Bad usage, as other programs have it. */
const USAGE_STATUS = 2;

const HELP = `usage: deno task build [options]

Builds the files that a lab copies to its hosts.

  --target TARGET[,TARGET]       machines to build for (default: ${
  TARGETS.map(({ name }) => name).join(",")
})
  --packaging portable|compile   portable: a script with Deno and the program behind it; needs nothing
                                 but npm. compile: made by 'deno compile', which needs 'denort' from
                                 Deno's own site (default: portable)
  --out FOLDER                   where to (default: dist)
  --no-deb                       no Debian packages (with dpkg-deb there are some)
  -h, --help                     show this help
`;

interface Order {
  targets: readonly Target[];
  packaging: Packaging;
  out: string;
  withDeb: boolean;
}

/** One line of `manifest.json`. */
interface Built {
  file: string;
  target: string;
  bytes: number;
  sha256: string;
}

/** What is to be built, or what is wrong with the command line. */
function readOrder(args: string[]): Order | string {
  let values;
  try {
    ({ values } = parseArgs({
      args,
      options: {
        target: { type: "string", multiple: true },
        packaging: { type: "string", default: "portable" },
        out: { type: "string", default: join(ROOT, "dist") },
        "no-deb": { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (error) {
    return messageOf(error);
  }
  if (values.help) return "help";
  const packaging = PACKAGINGS.find((name) => name === values.packaging);
  if (packaging === undefined) {
    return `--packaging is one of ${PACKAGINGS.join(", ")}, not '${values.packaging}'`;
  }
  const names = values.target?.flatMap((list) => list.split(",")) ??
    TARGETS.map(({ name }) => name);
  const unknown = names.find((name) => !TARGETS.some((target) => target.name === name));
  if (unknown !== undefined) {
    return `--target is one of ${TARGETS.map(({ name }) => name).join(", ")}, not '${unknown}'`;
  }
  const targets = TARGETS.filter(({ name }) => names.includes(name));
  return { targets, packaging, out: values.out, withDeb: !values["no-deb"] };
}

async function build({ targets, packaging, out, withDeb }: Order): Promise<void> {
  if (Deno.version.deno !== DENO_VERSION) {
    throw new BuildError(
      `This is Deno ${Deno.version.deno}; build with ${DENO_VERSION}, or the files are not the ` +
        `tested ones: npx -y deno@${DENO_VERSION} task build`,
    );
  }
  const commit = await commitOf(ROOT);
  const bundled = await bundle(join(ROOT, "main.ts"), ROOT);
  const notices = await collectNotices(bundled);
  await Deno.mkdir(out, { recursive: true });
  const built: Built[] = [];
  for (const target of targets) {
    const program = stampBundle(bundled, { commit, target, packaging, notices });
    const bytes = packaging === "compile"
      ? await compile({ target, program })
      : await portable({ version: VERSION, target, program, deno: await denoFor(target) });
    const file = `${PROGRAM}-${VERSION}-${target.arch}`;
    const path = join(out, file);
    await replaceFile(path, bytes, EXECUTABLE);
    if (target.name === Deno.build.target) await tryOut(path);
    built.push({ file, target: target.name, bytes: bytes.length, sha256: await sha256(bytes) });
    console.log(`${shortPath(path, ROOT)}  ${(bytes.length / MEBIBYTE).toFixed(1)} MiB`);
  }
  const manifest = {
    version: VERSION,
    commit,
    packaging,
    deno: DENO_VERSION,
    permissions: PERMISSIONS,
    files: built,
  };
  await replaceFile(join(out, "manifest.json"), encode(`${JSON.stringify(manifest, null, 2)}\n`));
  const texts = {
    [`${PROGRAM}.1`]: manPage(COMMANDS, agentCommand),
    "THIRD-PARTY-NOTICES": notices,
  };
  const sums = built.map(({ sha256, file }) => `${sha256}  ${file}\n`);
  for (const [file, text] of Object.entries(texts)) {
    const bytes = encode(text);
    await replaceFile(join(out, file), bytes);
    sums.push(`${await sha256(bytes)}  ${file}\n`);
  }
  await replaceFile(join(out, "SHA256SUMS"), encode(sums.join("")));
  if (!withDeb) return;
  if (!canBuildDeb()) {
    console.log("No Debian packages: there is no dpkg-deb here");
    return;
  }
  for (const target of targets) {
    const name = await buildDeb({ target, out, root: ROOT, notices });
    sums.push(`${await sha256(await Deno.readFile(join(out, name)))}  ${name}\n`);
    console.log(shortPath(join(out, name), ROOT));
  }
  await replaceFile(join(out, "SHA256SUMS"), encode(sums.join("")));
}

/** A file that does not do what users do with it must not leave the house. */
async function tryOut(path: string): Promise<void> {
  const cache = await Deno.makeTempDir({ prefix: "testflinger-build-" });
  try {
    // Not where this machine's agents look for their program.
    const wrong = await tryFile(path, { env: { TESTFLINGER_AGENT_CACHE: cache } });
    if (wrong === undefined) return;
    await Deno.remove(path);
    throw new BuildError(
      `The file that was built does not work, and was removed. Is DENORT_BIN a denort, not a ` +
        `deno?\n${wrong}`,
    );
  } finally {
    await Deno.remove(cache, { recursive: true });
  }
}

async function replaceFile(path: string, bytes: Uint8Array, mode = 0o644): Promise<void> {
  const temporary = `${path}.new`;
  await Deno.writeFile(temporary, bytes, { mode });
  // The mode at creation is subject to the umask.
  await Deno.chmod(temporary, mode);
  await Deno.rename(temporary, path);
}

function encode(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(text);
}

const order = readOrder(Deno.args);
if (order === "help") {
  console.log(HELP.trimEnd());
  Deno.exit(0);
}
if (typeof order === "string") {
  console.error(`build: ${order}`);
  Deno.exit(USAGE_STATUS);
}
try {
  await build(order);
} catch (error) {
  if (!(error instanceof BuildError)) throw error;
  console.error(`build: ${error.message}`);
  Deno.exit(1);
}
