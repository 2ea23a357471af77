/** Firmware of HPE servers: packages from HPE's repository, flashed through the server's iLO. */
import { join } from "../../../lib/path.ts";
import type { ConnectorContext } from "../../context.ts";
import { FirmwareUpdateError } from "../errors.ts";
import { temporaryFolder } from "../files.ts";
import { download } from "../http/download.ts";
import { failureText, succeeded } from "../process/runner.ts";
import type { SshTarget } from "../ssh/ssh.ts";
import { pollUntil } from "../wait/poll.ts";
import {
  compareVersions,
  type Component,
  fetchRelease,
  fetchReleaseNames,
  type FirmwarePackage,
  HPE_REPOSITORY,
  inFlashingOrder,
  packageFor,
  repositoryFor,
} from "./hpe_repository.ts";
import { bmcOf, Ilorest } from "./ilorest.ts";
import { waitUntilReachable } from "./machine.ts";

const FLASH_MS = 1_200_000;
const ILO_RESTART_MS = 600_000;
const ILO_PAUSE_MS = 10_000;
const PING_MS = 30_000;
const TYPES_LIMIT_MS = 300_000;
const POST_LIMIT_MS = 1_800_000;
const POST_PAUSE_MS = 10_000;
const SSH_LIMIT_MS = 1_800_000;

/** State of the power-on self test of a server that has booted. */
const POST_FINISHED = "FinishedPost";

/** A component and the package that it is to get. */
interface Update {
  readonly component: Component;
  readonly package: FirmwarePackage;
}

/**
 * Brings the server's firmware to a release.
 *
 * @param wanted `latest`, or the name of a release.
 * @throws FirmwareUpdateError when anything of it fails.
 */
export async function updateByIlo(
  ctx: ConnectorContext,
  target: SshTarget,
  wanted: string,
): Promise<void> {
  await using ilo = await Ilorest.open(ctx, await bmcOf(ctx));
  const model = await ilo.model();
  const repository = repositoryFor(ctx.config.firmware_repository ?? HPE_REPOSITORY, model);
  const names = await fetchReleaseNames(ctx, repository);
  const release = wanted === "latest" ? names[0]! : wanted;
  if (!names.includes(release)) {
    throw new FirmwareUpdateError(
      `${repository} has no release '${release}': it has ${names.slice(0, 10).join(", ")}`,
    );
  }
  ctx.log.info(`The server is a ${model}; its firmware is compared with release ${release}`);
  const packages = await fetchRelease(ctx, repository, release);
  const updates = inFlashingOrder(updatesFor(ctx, await ilo.components(), packages));
  if (updates.length === 0) {
    ctx.log.info("All firmware is as wanted");
    return;
  }
  if (ctx.config.firmware_dry_run) {
    for (const { component, package: { file } } of updates) {
      ctx.log.info(`firmware_dry_run is set, not flashed: ${component.name} with ${file}`);
    }
    return;
  }
  await using folder = await temporaryFolder({ dir: ctx.cwd, prefix: "fwpkg-" });
  const files = new Map<string, string>();
  for (const { package: { file, sha256 } } of updates) {
    if (files.has(file)) continue;
    const url = `${repository}${release}/${file}`;
    files.set(file, (await download(ctx, { url, to: join(folder.path, file), sha256 })).path);
  }
  await emptyTaskQueue(ctx, ilo);
  const failures = await flashAll(ctx, ilo, files);
  await reboot(ctx, ilo, target);
  failures.push(...await checkVersions(ilo, updates));
  if (failures.length > 0) {
    throw new FirmwareUpdateError(`Firmware is not updated: ${failures.join("; ")}`);
  }
}

/** Which components get which package; the log says of each what is done with it. */
function updatesFor(
  { log }: Pick<ConnectorContext, "log">,
  components: readonly Component[],
  packages: readonly FirmwarePackage[],
): Update[] {
  return components.flatMap((component) => {
    const { name, version } = component;
    const found = packageFor(component, packages);
    if (found === undefined) {
      log.info(`${name}: version ${version}, not in this release`);
      return [];
    }
    if (compareVersions(version, found.version) === 0) {
      log.info(`${name}: version ${version}, as wanted`);
      return [];
    }
    const { minimumVersion } = found;
    if (minimumVersion !== undefined && compareVersions(version, minimumVersion) < 0) {
      log.error(
        `${name}: version ${version} is left as it is: ${found.file} needs at least version ` +
          minimumVersion,
      );
      return [];
    }
    log.info(`${name}: version ${version}, to become ${found.version} (${found.file})`);
    return [{ component, package: found }];
  });
}

async function emptyTaskQueue(ctx: ConnectorContext, ilo: Ilorest): Promise<void> {
  const isEmpty = async () => (await ilo.call(["taskqueue"])).includes("No tasks found");
  if (await isEmpty()) return;
  await ilo.call(["taskqueue", "-c"]);
  if (!await isEmpty()) {
    ctx.log.warning("The iLO still has tasks of earlier updates, which may hold up this one");
  }
}

/** @returns what went wrong. */
async function flashAll(
  ctx: ConnectorContext,
  ilo: Ilorest,
  files: ReadonlyMap<string, string>,
): Promise<string[]> {
  const failures: string[] = [];
  for (const [file, path] of files) {
    // Sessions expire, and an iLO that has restarted knows none.
    await ilo.login();
    ctx.log.info(`Flashing ${file}`);
    const result = await ilo.try(["flashfwpkg", "--forceupload", path], FLASH_MS);
    if (!succeeded(result)) failures.push(failureText(`ilorest flashfwpkg ${file}`, result));
    const said = result.ended === "not_started" ? "" : result.stdout + result.stderr;
    if (/iLO will reboot/i.test(said)) await waitForIlo(ctx, ilo);
  }
  return failures;
}

/** An iLO that restarts goes away first: it is back when it takes a login after that. */
async function waitForIlo(ctx: ConnectorContext, ilo: Ilorest): Promise<void> {
  let wasAway = false;
  const missing = await pollUntil(ctx, {
    waitingFor: "the iLO to restart",
    limitMs: ILO_RESTART_MS,
    pauseMs: ILO_PAUSE_MS,
    async look(leftMs) {
      const ping = await ctx.runner.run(["ping", "-c", "1", "-W", "3", ilo.address], {
        timeoutMs: PING_MS,
      });
      const isThere = ping.ended === "not_started" || succeeded(ping);
      wasAway ||= !isThere;
      // One that was never seen away is taken to have been quick, once half of the time is over.
      if (!isThere) return "it does not answer pings";
      if (!wasAway && leftMs > ILO_RESTART_MS / 2) return "it has not gone down yet";
      return await ilo.tryLogin() ? undefined : "it takes no login yet";
    },
  });
  if (missing === undefined) return;
  throw new FirmwareUpdateError(
    `The iLO did not come back within ${ILO_RESTART_MS / 1000} s: ${missing}`,
  );
}

async function reboot(ctx: ConnectorContext, ilo: Ilorest, target: SshTarget): Promise<void> {
  const missingType = await pollUntil(ctx, {
    waitingFor: "the iLO to know its ComputerSystem",
    limitMs: TYPES_LIMIT_MS,
    pauseMs: POST_PAUSE_MS,
    lookFirst: true,
    async look() {
      const types = await ilo.try(["types"]);
      return succeeded(types) && types.stdout.includes("ComputerSystem")
        ? undefined
        : "it does not list it";
    },
  });
  if (missingType !== undefined) {
    ctx.log.warning(`The server is rebooted all the same: ${missingType}`);
  }
  await ilo.login();
  await ilo.call(["reboot"]);
  let hasChanged = false;
  const missing = await pollUntil(ctx, {
    waitingFor: "the server to finish its self test",
    limitMs: POST_LIMIT_MS,
    pauseMs: POST_PAUSE_MS,
    async look(leftMs) {
      const state = await postState(ilo);
      // Right after the command the state is still that of before.
      hasChanged ||= state !== POST_FINISHED;
      if (state === POST_FINISHED && (hasChanged || leftMs < POST_LIMIT_MS / 2)) return undefined;
      return `its state is ${state ?? "not known"}`;
    },
  });
  if (missing !== undefined) {
    throw new FirmwareUpdateError(
      `The server did not finish its self test within ${POST_LIMIT_MS / 1000} s: ${missing}`,
    );
  }
  await waitUntilReachable(ctx, target, SSH_LIMIT_MS);
}

/** The state of the self test; undefined while the iLO does not say. */
async function postState(ilo: Ilorest): Promise<string | undefined> {
  if (!await ilo.tryLogin()) return undefined;
  if (!succeeded(await ilo.try(["select", "ComputerSystem", "--refresh"]))) return undefined;
  const result = await ilo.try(["get", "Oem/Hpe/PostState", "--json"]);
  await ilo.try(["logout"]);
  if (!succeeded(result)) return undefined;
  return /"PostState"\s*:\s*"(\w+)"/.exec(result.stdout)?.[1];
}

/** @returns which components do not have the version that they were given. */
async function checkVersions(ilo: Ilorest, updates: readonly Update[]): Promise<string[]> {
  await ilo.login();
  const components = await ilo.components();
  return updates.flatMap(({ component, package: { version } }) => {
    // A component can change its name with its version, but not what it is a target of.
    const now = components.find(({ name, targets }) =>
      name === component.name || targets.some((target) => component.targets.includes(target))
    );
    if (now !== undefined && compareVersions(now.version, version) === 0) return [];
    return [`${component.name} has version ${now?.version ?? "unknown"}, expected ${version}`];
  });
}
