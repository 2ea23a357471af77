/**
 * Portable files of this checkout. They are built once and used by every test that runs the program
 * as users have it: the folder's name is a digest of what goes into them, so that a test which
 * finds it may use it, and a changed checkout has another one.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { PERMISSIONS } from "../../../lib/cli/command.ts";
import { VERSION } from "../../../lib/version.ts";
import { sha256 } from "../../../tools/build/digest.ts";
import { commitOf } from "../../../tools/build/git.ts";
import { type Target, TARGETS } from "../../../tools/build/targets.ts";
import { ended, exists } from "./command.ts";
import { hostTarget } from "./targets.ts";

export const ROOT = fileURLToPath(new URL("../../..", import.meta.url));

/** What the files are made from. */
const INPUTS = ["main.ts", "deno.json", "deno.lock", "lib", "connectors", "tools/build"];

/** Builds of checkouts that nobody tests any more are removed then. */
const KEPT_MS = 6 * 3_600_000;

/** Whether the tests run files for another machine in an emulator: a minute and more of the processor's time. */
export const EMULATES = Deno.env.get("CI") === "true" ||
  Deno.env.get("TESTFLINGER_EMULATE") === "1";

/** Options of {@link buildPortable}. */
export interface BuildOptions {
  /** The checkout to build. @default this one */
  root?: string;
  /** @default all */
  target?: Target;
}

/** Builds into `folder`. */
export async function buildPortable(
  folder: string,
  { root = ROOT, target }: BuildOptions = {},
): Promise<void> {
  const { code, stderr } = await ended(
    new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", ...PERMISSIONS, "tools/build/main.ts", "--no-deb", "--out", folder],
        ...(target === undefined ? [] : ["--target", target.name]),
      ],
      cwd: root,
      env: { NO_COLOR: "1" },
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn(),
  );
  if (code !== 0) throw new Error(stderr);
}

export function fileFor(folder: string, target: Target): string {
  return join(folder, `testflinger-agent-${VERSION}-${target.arch}`);
}

/** The files of this checkout. */
export interface SharedBuild {
  /** What the build has written; not to be changed. */
  dist: string;
  /** Those that are built: all where an emulator is used, else this machine's. */
  targets: readonly Target[];
  /** This machine's file. */
  program: string;
  /** With which it unpacks to a folder of the tests, not to where this machine's agents look. */
  env: Record<string, string>;
}

let shared: Promise<SharedBuild> | undefined;

/** Builds this checkout, unless that has been done already. */
export function sharedBuild(): Promise<SharedBuild> {
  return shared ??= build();
}

async function build(): Promise<SharedBuild> {
  const targets = EMULATES ? TARGETS : [hostTarget()];
  const base = join(Deno.env.get("TMPDIR") ?? "/tmp", `testflinger-built-${Deno.uid()}`);
  await Deno.mkdir(base, { recursive: true, mode: 0o755 });
  const { uid } = await Deno.lstat(base);
  if (uid !== Deno.uid()) throw new Error(`${base} belongs to another account: remove it`);
  const folder = join(base, await digest(targets));
  const dist = join(folder, "dist");
  const env = { TESTFLINGER_AGENT_CACHE: join(folder, "cache") };
  const program = fileFor(dist, hostTarget());
  // Test files run side by side, in one process and in several.
  using lock = await Deno.open(join(base, "lock"), { create: true, write: true });
  await lock.lock(true);
  if (!await exists(join(folder, "complete"))) {
    await removeOld(base);
    // Not writable for others, whatever the umask: it would not be used.
    await Deno.mkdir(folder, { recursive: true, mode: 0o755 });
    await buildPortable(dist, targets.length === TARGETS.length ? {} : { target: hostTarget() });
    // Unpacked before the first test runs it.
    const { code, stderr } = await ended(
      new Deno.Command(program, {
        args: ["version"],
        env,
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).spawn(),
    );
    if (code !== 0) throw new Error(stderr);
    await Deno.writeTextFile(join(folder, "complete"), "");
  }
  return { dist, targets, program, env };
}

async function removeOld(base: string): Promise<void> {
  for await (const { name, isDirectory } of Deno.readDir(base)) {
    const path = join(base, name);
    const { mtime } = await Deno.lstat(path);
    const isOld = Date.now() - (mtime?.getTime() ?? 0) > KEPT_MS;
    if (isDirectory && isOld) await Deno.remove(path, { recursive: true });
  }
}

async function digest(targets: readonly Target[]): Promise<string> {
  const parts = [await commitOf(ROOT), ...targets.map(({ name }) => name)];
  for (const input of INPUTS) {
    for await (const file of filesBelow(join(ROOT, input))) {
      parts.push(file, await sha256(await Deno.readFile(file)));
    }
  }
  const all = await sha256(new TextEncoder().encode(parts.join("\n")));
  return all.slice(0, 16);
}

async function* filesBelow(path: string): AsyncGenerator<string> {
  if ((await Deno.stat(path)).isFile) return yield path;
  const names = (await Array.fromAsync(Deno.readDir(path))).map(({ name }) => name).sort();
  for (const name of names) yield* filesBelow(join(path, name));
}
