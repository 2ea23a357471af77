/**
 * The repository in which HPE publishes firmware for its servers: an index page of releases, and for
 * each release a file that says for which components its packages are. All of it but `fetchRelease`
 * and `fetchReleaseNames` is pure.
 */
import * as z from "zod";
import type { ConnectorContext } from "../../context.ts";
import { FirmwareUpdateError } from "../errors.ts";
import { issuesText } from "../job.ts";

/** Where the packages are, unless the configuration names a mirror. */
export const HPE_REPOSITORY = "https://downloads.linux.hpe.com/SDR/repo/";

const INDEX_FILE = "fwrepodata/fwrepo.json";
/** In it a target that a release gives as one word is given as the list that it stands for. */
const CURRENT = "current";

const PAGE_LIMIT_MS = 1_800_000;
const FILE_LIMIT_MS = 300_000;
/** Indexes have megabytes. */
const FILE_MAX_BYTES = 64 * 1024 * 1024;
const ATTEMPTS = 3;
const ATTEMPT_PAUSE_MS = 5_000;

/**
 * `2023.09.00.04`, and releases other than the plain ones, such as `2022.03.0_supspp_rhel9.0_x86_64`:
 * anywhere in a page, since each server lists its folders in its own way. A part of another
 * name is none, nor is a name that the page has cut off (`2022.03.0_supsp..`), nor a date with a time.
 */
const RELEASE_NAME = /(?<![\w.-])\d{4}\.\d{2}\.\d(?:[\w.]*\w)?(?![\w-]|\.[\w.]|\s+\d{1,2}:\d{2})/g;

const PACKAGE_SUFFIX = ".fwpkg";

const Entry = z.looseObject({
  version: z.string(),
  deviceclass: z.string().nullish(),
  target: z.union([z.string(), z.array(z.string())]).nullish(),
  /** The text `null` where any version will do. */
  minimum_active_version: z.string().nullish(),
  sha256: z.string().regex(/^[0-9a-fA-F]{64}$/).nullish().catch(undefined),
});

/** Entries of other kinds than we know are none of ours. */
const Index = z.record(z.string(), z.unknown());

/** One package of a release. */
export interface FirmwarePackage {
  readonly file: string;
  readonly version: string;
  readonly deviceClass: string | undefined;
  readonly targets: readonly string[];
  readonly minimumVersion: string | undefined;
  readonly sha256: string | undefined;
}

/** A component of the server, as its iLO lists it. */
export interface Component {
  readonly name: string;
  readonly version: string;
  readonly deviceClass: string | undefined;
  readonly targets: readonly string[];
}

/**
 * The part of the repository for a server.
 *
 * @param model such as `ProLiant DL380 Gen10 Plus`.
 * @throws FirmwareUpdateError when its generation has none.
 */
export function repositoryFor(base: string, model: string): string {
  const generation = /gen1[012]/i.exec(model)?.[0].toLowerCase();
  if (generation !== undefined) return `${base.replace(/\/*$/, "/")}fwpp-${generation}/`;
  throw new FirmwareUpdateError(
    `HPE has no firmware repository for the model '${model}': expected a name with Gen10, Gen11 or ` +
      `Gen12 in it`,
  );
}

/** The releases that an index page names, the newest first. */
function releaseNames(page: string): string[] {
  const names = new Set([...page.matchAll(RELEASE_NAME)].map(([name]) => name));
  return [...names].sort().reverse();
}

/**
 * The packages of a release.
 *
 * @param index its `fwrepo.json`.
 * @param current that of the release `current`.
 */
export function packagesIn(
  index: Readonly<Record<string, unknown>>,
  current: Readonly<Record<string, unknown>>,
): FirmwarePackage[] {
  return Object.entries(index).flatMap(([file, value]) => {
    const entry = Entry.safeParse(value);
    if (!file.includes(PACKAGE_SUFFIX) || !entry.success) return [];
    const { version, deviceclass, minimum_active_version: minimum, sha256 } = entry.data;
    return [{
      file,
      version,
      deviceClass: deviceclass ?? undefined,
      targets: targetsOf(entry.data.target, Entry.safeParse(current[file]).data?.target),
      minimumVersion: minimum === null || minimum === "null" ? undefined : minimum,
      sha256: sha256 ?? undefined,
    }];
  });
}

type Target = z.output<typeof Entry>["target"];

function targetsOf(own: Target, current: Target): readonly string[] {
  if (Array.isArray(own)) return own;
  if (Array.isArray(current)) return current;
  return own == null ? [] : [own];
}

/** The newest of the packages that are for a component. */
export function packageFor(
  component: Component,
  packages: readonly FirmwarePackage[],
): FirmwarePackage | undefined {
  const fitting = packages.filter(({ targets, deviceClass }) =>
    targets.some((target) => component.targets.includes(target)) &&
    (component.deviceClass === undefined || component.deviceClass === deviceClass)
  );
  return fitting.sort((a, b) => compareVersions(b.version, a.version))[0];
}

/** Flashed in this order: what others depend on first. */
const ORDER = [
  /system rom/i,
  /server platform services/i,
  /innovation engine/i,
  /\bilo\b/i,
];

/** Sorts components into the order in which they are flashed. */
export function inFlashingOrder<T extends { readonly component: Component }>(
  updates: readonly T[],
): T[] {
  const rank = ({ component }: T) => {
    const found = ORDER.findIndex((pattern) => pattern.test(component.name));
    return found < 0 ? ORDER.length : found;
  };
  return [...updates].sort((a, b) => rank(a) - rank(b));
}

/**
 * The releases that a repository has, the newest first.
 *
 * @throws FirmwareUpdateError when the page cannot be had or names none.
 */
export async function fetchReleaseNames(
  ctx: ConnectorContext,
  repository: string,
): Promise<string[]> {
  const names = releaseNames(await fetchText(ctx, repository, PAGE_LIMIT_MS));
  if (names.length > 0) return names;
  throw new FirmwareUpdateError(`The firmware repository ${repository} names no release`);
}

/** The packages of a release. @throws FirmwareUpdateError when its index cannot be had or read. */
export async function fetchRelease(
  ctx: ConnectorContext,
  repository: string,
  name: string,
): Promise<FirmwarePackage[]> {
  return packagesIn(
    await fetchIndex(ctx, `${repository}${name}/${INDEX_FILE}`),
    await fetchIndex(ctx, `${repository}${CURRENT}/${INDEX_FILE}`),
  );
}

async function fetchIndex(ctx: ConnectorContext, url: string): Promise<Record<string, unknown>> {
  const text = await fetchText(ctx, url, FILE_LIMIT_MS);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new FirmwareUpdateError(`${url} is not JSON`);
  }
  const index = Index.safeParse(value);
  if (!index.success) throw new FirmwareUpdateError(`${url}: ${issuesText(index.error)}`);
  return index.data;
}

async function fetchText(ctx: ConnectorContext, url: string, timeoutMs: number): Promise<string> {
  for (let attempt = 1;; attempt++) {
    const answer = await ctx.http.send(url, { timeoutMs, maxBytes: FILE_MAX_BYTES });
    if (answer.ended === "answered" && answer.status === 200) return answer.body;
    const why = answer.ended === "failed" ? answer.message : `status ${answer.status}`;
    if (attempt === ATTEMPTS) throw new FirmwareUpdateError(`Cannot read ${url}: ${why}`);
    ctx.log.warning(`Cannot read ${url}: ${why}; trying again`);
    await ctx.clock.sleep(ATTEMPT_PAUSE_MS, ctx.signal);
  }
}

/**
 * The numbers of a version, from the most to the least significant: what follows the last `v`, up to
 * the first letter. Where nothing is left of it, the text from its first digit on. `0x31` is one
 * hexadecimal number. Text without a digit has no numbers.
 */
export function versionNumbers(text: string): number[] {
  const trimmed = text.trim();
  if (/^0x[0-9a-f]+$/i.test(trimmed)) return [Number(trimmed)];
  const behindV = trimmed.slice(trimmed.lastIndexOf("v") + 1);
  const numbers = numbersIn(/^[^A-Za-z]*/.exec(behindV)?.[0] ?? "");
  if (numbers.length > 0) return numbers;
  return numbersIn(/\d[^A-Za-z]*/.exec(trimmed)?.[0] ?? "");
}

function numbersIn(text: string): number[] {
  return (text.match(/\d+/g) ?? []).map(Number);
}

/** Negative where `a` is older than `b`, 0 where they are the same, positive where it is newer. */
export function compareVersions(a: string, b: string): number {
  const left = versionNumbers(a);
  const right = versionNumbers(b);
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}
