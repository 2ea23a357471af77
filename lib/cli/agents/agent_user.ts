/**
 * As whom an agent runs, or would: what can be written, read and found is judged as that user, not as
 * the one who asks.
 */
import { type AgentConfig, FOLDER_KEYS } from "../../config/agent_config.ts";
import { agentFolder } from "../../job/store.ts";
import { dirname, isAbsolute, join, resolve } from "../../path.ts";
import { ask } from "../../process/proc.ts";
import { CONFIG_FOLDER, installedHostFolder } from "./agent_ref.ts";
import { lockHolder } from "./lock_holder.ts";

/** The user of an agent. */
export interface AgentUser {
  uid: number;
  gid: number;
  /** All groups, the main one included. */
  groups: readonly number[];
  /** For messages: the name, where there is one. */
  name: string;
  home: string | undefined;
  /** Of the running agent; undefined: nobody can tell before it runs. */
  path: string | undefined;
}

/** Whose user is wanted. */
interface WhoseUser {
  /** The configuration. */
  file: string;
  config: Partial<AgentConfig>;
}

/** The units that install.sh and the package put there: of one agent, and of all of a host. */
const UNITS = ["testflinger-agent@.service", "testflinger-agents.service"];
const UNIT_FOLDERS = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/** The kernel's "none": a user who is not in the list of users may still own folders. */
const NO_GROUP = 65_534;

/**
 * The running process's user, else the one that the unit names, else the owner of the agent's folders,
 * else the one who asks.
 */
export async function agentUser({ file, config }: WhoseUser): Promise<AgentUser> {
  const { agent_id: id, results_basedir } = config;
  const own = id === undefined || results_basedir === undefined
    ? undefined
    : agentFolder(results_basedir, id);
  const holder = own === undefined ? undefined : await lockHolder(join(own, "lock"));
  if (holder !== undefined) {
    const running = await userOfProcess(holder.pid);
    if (running !== undefined) return running;
  }
  const named = await userOfUnit(file);
  if (named !== undefined) return named;
  const folders = [own, ...FOLDER_KEYS.map((key) => config[key])];
  const { uid, gid } = await ownerOf(folders) ?? { uid: Deno.uid() ?? 0, gid: NO_GROUP };
  const unknown = { groups: [gid], name: `user ${uid}`, home: undefined, path: undefined };
  return await userByName(String(uid)) ?? { uid, gid, ...unknown };
}

/** The owner of the first folder that belongs to another user than root: `/tmp` is root's. */
async function ownerOf(
  folders: readonly (string | undefined)[],
): Promise<{ uid: number; gid: number } | undefined> {
  for (const folder of folders) {
    if (folder === undefined) continue;
    const { uid, gid } = await Deno.stat(folder).catch(() => ({ uid: null, gid: null }));
    if (uid !== null && gid !== null && uid !== 0) return { uid, gid };
  }
  return undefined;
}

async function userOfProcess(pid: number): Promise<AgentUser | undefined> {
  const { text } = await ask(["grep", "-E", "^(Uid|Gid|Groups):", `/proc/${pid}/status`]);
  const numbers = (name: string) =>
    new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1]?.trim().split(/\s+/).map(Number) ?? [];
  // Real, effective, saved, file system.
  const [, uid] = numbers("Uid");
  const [, gid] = numbers("Gid");
  if (uid === undefined || gid === undefined) return undefined;
  const environ = await ask(["grep", "-azE", "^(PATH|HOME)=", `/proc/${pid}/environ`]);
  const variable = (name: string) =>
    environ.text.split("\0").find((entry) => entry.startsWith(`${name}=`))?.slice(name.length + 1);
  const known = await userByName(String(uid));
  return {
    uid,
    gid,
    groups: [...new Set([gid, ...numbers("Groups")])],
    name: known?.name ?? `user ${uid}`,
    home: variable("HOME") ?? known?.home,
    path: variable("PATH"),
  };
}

/** Only of an agent whose configuration is where a unit looks for it. */
async function userOfUnit(file: string): Promise<AgentUser | undefined> {
  const real = await Deno.realPath(file).catch(() => file);
  const folders = [CONFIG_FOLDER, await installedHostFolder() ?? CONFIG_FOLDER];
  if (!folders.some((folder) => real.startsWith(`${folder}/`))) return undefined;
  for (const unit of UNIT_FOLDERS.flatMap((folder) => UNITS.map((name) => join(folder, name)))) {
    const text = await Deno.readTextFile(unit).catch(() => "");
    const name = /^User=(\S+)$/m.exec(text)?.[1];
    if (name !== undefined) return await userByName(name);
  }
  return undefined;
}

/** A user of this host, by name or number. */
async function userByName(name: string): Promise<AgentUser | undefined> {
  const { code, text } = await ask([
    "/bin/sh",
    "-c",
    'id -u "$1" && id -g "$1" && id -G "$1" && id -un "$1" && { getent passwd "$1" || :; }',
    "sh",
    name,
  ]);
  const [uid, gid, groups = "", own = "", entry = ""] = text.split("\n");
  if (code !== 0 || uid === undefined) return undefined;
  return {
    uid: Number(uid),
    gid: Number(gid),
    groups: groups.split(" ").map(Number),
    name: own,
    home: entry.split(":")[5],
    path: undefined,
  };
}

/** Does the kernel let this user do it? Undefined where that cannot be asked from this account. */
async function testAs(
  user: AgentUser,
  condition: string,
  path: string,
): Promise<boolean | undefined> {
  const shell = ["/bin/sh", "-c", condition, "sh", resolve(path)] as const;
  if (user.uid === Deno.uid()) return (await ask(shell)).code === 0;
  if (Deno.uid() !== 0) return undefined;
  const groups = user.groups.length === 0 ? "--clear-groups" : `--groups=${user.groups.join(",")}`;
  const { code } = await ask([
    ...["/bin/sh", "-c", 'exec setpriv "$@"', "sh"] as const,
    ...[`--reuid=${user.uid}`, `--regid=${user.gid}`, groups, "--", ...shell],
  ]);
  // Not there on every host: what the modes say has to do.
  return code === 127 ? undefined : code === 0;
}

/** Whether the user can make files in this folder, which is there. */
async function canWriteIn(folder: string, user: AgentUser): Promise<boolean> {
  return await testAs(user, '[ -w "$1" ] && [ -x "$1" ]', folder) ??
    modeAllows(await Deno.stat(folder).catch(() => undefined), user, 0o3);
}

/** Whether the user can read this file. */
export async function canRead(file: string, user: AgentUser): Promise<boolean> {
  return await testAs(user, '[ -r "$1" ]', file) ??
    modeAllows(await Deno.stat(file).catch(() => undefined), user, 0o4);
}

/**
 * What the modes say, access lists apart.
 *
 * @param bits of read (4), write (2) and execute (1).
 */
function modeAllows(
  info: Deno.FileInfo | undefined,
  user: AgentUser,
  bits: number,
): boolean {
  if (info === undefined) return false;
  const mode = info.mode ?? 0;
  // Root may do everything but execute what nobody may.
  if (user.uid === 0) return bits !== 1 || (mode & 0o111) !== 0;
  const isOwn = info.uid === user.uid;
  const isGroups = info.gid === user.gid || user.groups.includes(info.gid ?? -1);
  const granted = isOwn ? mode >> 6 : isGroups ? mode >> 3 : mode;
  return (granted & bits) === bits;
}

/** Whether a folder is on a file system that is mounted without writing. */
async function isReadOnly(folder: string): Promise<boolean> {
  const { text } = await ask(["cat", "/proc/self/mountinfo"]);
  const real = await Deno.realPath(folder).catch(() => folder);
  let longest = { length: 0, readOnly: false };
  for (const line of text.split("\n")) {
    // `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`
    const [, , , , point, options = ""] = line.split(" ");
    const superOptions = line.split(" - ")[1]?.split(" ")[2] ?? "";
    if (point === undefined) continue;
    const place = point.replaceAll(
      /\\(\d{3})/g,
      (_, octal) => String.fromCharCode(parseInt(octal, 8)),
    );
    if (real !== place && !real.startsWith(place === "/" ? "/" : `${place}/`)) continue;
    // Of several mounts at one place the last is seen.
    if (place.length < longest.length) continue;
    const readOnly = [options, superOptions].some((list) => list.split(",").includes("ro"));
    longest = { length: place.length, readOnly };
  }
  return longest.readOnly;
}

const USUAL_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const EXECUTE = 0o1;

/** Where a program is; undefined where it is not, or the user may not run it. */
export async function findProgram(
  name: string,
  { user, path = Deno.env.get("PATH") ?? USUAL_PATH }: {
    user: AgentUser;
    path?: string | undefined;
  },
): Promise<string | undefined> {
  const candidates = isAbsolute(name)
    ? [name]
    : path.split(":").filter((folder) => folder !== "").map((folder) => join(folder, name));
  for (const candidate of candidates) {
    const info = await Deno.stat(candidate).catch(() => undefined);
    if (info?.isFile === true && modeAllows(info, user, EXECUTE)) return candidate;
  }
  return undefined;
}

/** Why files cannot be written below `folder` by that user; undefined where they can. */
export async function whyNotWritable(
  folder: string,
  user: AgentUser,
): Promise<{ why: string; isReadOnly: boolean } | undefined> {
  let existing = resolve(folder);
  while (true) {
    try {
      const { isDirectory } = await Deno.stat(existing);
      if (!isDirectory) return { why: `${existing} is not a folder`, isReadOnly: false };
      break;
    } catch (error) {
      if (!isMissing(error)) {
        return { why: `${existing} cannot be looked at from this account`, isReadOnly: false };
      }
      const parent = dirname(existing);
      if (parent === existing) return { why: "there is no such folder", isReadOnly: false };
      existing = parent;
    }
  }
  if (await isReadOnly(existing)) {
    return {
      why: `${existing} is on a file system that is mounted read-only`,
      isReadOnly: true,
    };
  }
  return await canWriteIn(existing, user) ? undefined : {
    why: `${existing} cannot be written by ${user.name}, the agent's user`,
    isReadOnly: false,
  };
}

/** Also below something that is no folder: the loop says so when it gets there. */
function isMissing(error: unknown): boolean {
  return error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory;
}
