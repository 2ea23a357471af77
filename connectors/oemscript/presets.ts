/** What makes the installation go on without anybody: presets, put onto the recovery partition. */
import { dirname, join } from "../../lib/path.ts";
import { ProvisioningError } from "../support/errors.ts";
import { makeFolder, temporaryFolder, writeFile } from "../support/files.ts";
import { expectSuccess } from "../support/process/runner.ts";
import { quote } from "../support/ssh/ssh.ts";
import type { Remote } from "../support/ssh/remote.ts";
import type { IsoPlan, OemContext, OemPrepareContext } from "./config.ts";
import addLocalRepository from "./templates/add_local_repository.sh" with { type: "text" };
import bootEntry from "./templates/99_ubuntu_recovery" with { type: "text" };
import removeLocalRepository from "./templates/remove_local_repository.sh" with { type: "text" };
import ubuntuRecovery from "./templates/ubuntu-recovery.cfg" with { type: "text" };

const REPOSITORIES = "https://git.launchpad.net/~oem-solutions-engineers/pc-enablement/+git/";

const CLONE_TIMEOUT_MS = 300_000;
const PACK_TIMEOUT_MS = 60_000;

/** In the home folder over there. */
const PUSH_FOLDER = "push_preseed";

/** A repository of presets. */
interface Preset {
  readonly repository: string;
  readonly branch?: string;
}

/** In the order in which they are laid over one another. */
function presetsFor({ flavour, branch }: IsoPlan): Preset[] {
  return [
    ...(flavour === "dell"
      ? [
        { repository: "oem-fix-misc-cnl-skip-storage-selecting" },
        { repository: "oem-fix-misc-cnl-no-secureboot" },
      ]
      : []),
    { repository: "oem-fix-misc-cnl-misc-for-automation" },
    { repository: "oem-fix-misc-cnl-skip-oobe", branch },
  ];
}

/**
 * Puts the presets onto the recovery partition, which is mounted at /cdrom.
 *
 * @throws ProvisioningError when one cannot be had or does not arrive.
 */
export async function pushPresets(
  ctx: OemContext,
  device: Remote,
  plan: IsoPlan,
): Promise<void> {
  await using work = await temporaryFolder({ dir: ctx.cwd, prefix: ".oem-presets-" });
  await device.must({
    step: "make a folder for presets",
    program: "mkdir",
    command: `rm -rf ${PUSH_FOLDER} && mkdir ${PUSH_FOLDER}`,
  });
  if (plan.flavour === "ubr") {
    const folder = join(work.path, "ubuntu-recovery");
    await writeOwnPresets(device, folder);
    await push(ctx, device, { folder, name: "ubuntu-recovery", work: work.path });
  }
  for (const preset of presetsFor(plan)) {
    const folder = await fetchPreset(ctx, preset, work.path);
    await push(ctx, device, { folder, name: preset.repository, work: work.path });
  }
  await device.must({
    step: "copy the presets to the recovery partition",
    program: "cp",
    command: `sudo cp -r ${PUSH_FOLDER}/. /cdrom/ && sync`,
  });
}

/** The presets that are made here and not fetched. */
async function writeOwnPresets(device: Remote, folder: string): Promise<void> {
  const project = await device.must({
    step: "read the presets of the ISO",
    program: "cat",
    command: "cat /cdrom/preseed/project.cfg",
  });
  const hooks = "scripts/chroot-scripts";
  const files: readonly (readonly [path: string, text: string, mode: number])[] = [
    ["preseed/ubuntu-recovery.cfg", ubuntuRecovery, 0o644],
    ["preseed/project.cfg", rebootingPreset(project), 0o644],
    [`${hooks}/fish/00-testflinger-repository`, addLocalRepository, 0o755],
    [`${hooks}/os-post/99-testflinger-repository`, removeLocalRepository, 0o755],
    ["99_ubuntu_recovery", bootEntry, 0o644],
  ];
  for (const [path, text, mode] of files) {
    const file = join(folder, path);
    await makeFolder(dirname(file));
    await writeFile(file, text);
    // The mode at creation is subject to the umask.
    await Deno.chmod(file, mode);
  }
}

/** The presets of an ISO, changed so that the device reboots at the end and is not switched off. */
export function rebootingPreset(text: string): string {
  const wanted: readonly (readonly [question: string, answer: boolean])[] = [
    ["ubiquity/reboot", true],
    ["ubiquity/poweroff", false],
  ];
  const kept = text.split("\n").filter((line) =>
    !wanted.some(([question]) => line.split(/\s+/).includes(question))
  );
  const answers = wanted.map(([question, answer]) => `ubiquity ${question} boolean ${answer}`);
  return [...kept.join("\n").trimEnd().split("\n"), ...answers, ""].join("\n");
}

/**
 * Makes sure that this host has the copies of presets which the configuration speaks of.
 *
 * @throws ProvisioningError naming the preset that is not there.
 */
export async function checkPresetCopies(
  { config }: OemPrepareContext,
  plan: IsoPlan,
): Promise<void> {
  const { oem_preset_dir: copies } = config;
  if (copies === undefined) return;
  for (const preset of presetsFor(plan)) await presetCopy(copies, preset);
}

/** @returns the folder that is the copy of a preset. */
async function presetCopy(copies: string, { repository, branch }: Preset): Promise<string> {
  for (const name of [`${repository}-${branch}`, repository]) {
    const copy = join(copies, name);
    if (await Deno.stat(copy).then((info) => info.isDirectory, () => false)) return copy;
  }
  throw new ProvisioningError(
    `There is no copy of the preset '${repository}' in ${copies} ('oem_preset_dir')`,
  );
}

/** @returns a folder with the files of a preset. */
async function fetchPreset(ctx: OemContext, preset: Preset, folder: string): Promise<string> {
  const { repository, branch } = preset;
  const { oem_preset_dir: copies } = ctx.config;
  if (copies !== undefined) return await presetCopy(copies, preset);
  const clone = join(folder, repository);
  const result = await ctx.runner.run([
    "git",
    "clone",
    "--quiet",
    "--depth",
    "1",
    ...(branch === undefined ? [] : ["-b", branch]),
    `${REPOSITORIES}${repository}`,
    clone,
  ], { timeoutMs: CLONE_TIMEOUT_MS, env: { GIT_TERMINAL_PROMPT: "0" } });
  expectSuccess(result, { step: `fetch the preset '${repository}'`, program: "git clone" });
  return clone;
}

interface Push {
  /** With the preset's files. */
  readonly folder: string;
  readonly name: string;
  /** Where the archive may be. */
  readonly work: string;
}

/** Packs a folder, copies it, and unpacks it over what is in the push folder already. */
async function push(
  ctx: OemContext,
  device: Remote,
  { folder, name, work }: Push,
): Promise<void> {
  const archive = `${name}.tar.gz`;
  const local = join(work, archive);
  const packed = await ctx.runner.run(
    ["tar", "-C", folder, "--exclude=./.git", "--owner=0", "--group=0", "-czf", local, "."],
    { timeoutMs: PACK_TIMEOUT_MS },
  );
  expectSuccess(packed, { step: `pack the preset '${name}'`, program: "tar" });
  await device.copy({ step: `copy the preset '${name}'`, local, remote: archive });
  await device.must({
    step: `unpack the preset '${name}'`,
    program: "tar",
    command: `tar -C ${PUSH_FOLDER} -xzf ${quote(archive)} && rm ${quote(archive)}`,
  });
}
