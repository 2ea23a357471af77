/**
 * Control groups of version 2 (cgroups(7)): what is started in one stays in it, whatever session, user or
 * environment it gives itself, and all of it is ended at once.
 *
 * Ours is the group in which this process was started, where it may be written to (`Delegate=yes` in a
 * unit). Below it is a group for whatever is ended as a whole, and in that one a group for each command:
 *
 * | group                        | what is in it                                                             |
 * | ---------------------------- | ------------------------------------------------------------------------- |
 * | `GIVEN`                      | nothing, once controllers are handed on: the kernel wants it so           |
 * | `GIVEN/main-process`         | this process, and what it starts for itself                               |
 * | `GIVEN/NAME`                 | nothing but groups                                                        |
 * | `GIVEN/NAME/limited`         | nothing but groups; it has the limits                                     |
 * | `GIVEN/NAME/limited/COMMAND` | a command with all that it has started; memory and time are counted there |
 * | `GIVEN/NAME/COMMAND`         | the same of a command that is to run whatever the limits have come to     |
 *
 * The runtime opens nothing under /sys, so shells do it on our behalf.
 */
import { type EndOptions, Grace, KILL_LOOKS, lookUntil, signalProcess } from "./grace.ts";
import { markOf } from "./mark.ts";
import { ask, askShell } from "./proc.ts";
import type { Survivor, SurvivorsEnd } from "./survivors.ts";
import { type GroupUsage, parseUsage, SAY_USAGE } from "./exit.ts";

/** Where this process goes. */
const LEAF = "main-process";

/** What is counted and limited, where the kernel and the owner of the group allow it. */
export const CONTROLLERS = ["memory", "pids", "io"] as const;

/**
 * Finds the group of process `$1`: `$dir` is then its folder, in the first mount where it is seen, and
 * `$path` its name for the kernel. One that is called `$2` stands for the one above it.
 */
const LOCATE = `
none() { printf 'none %s\\n' "$1"; exit; }
path= dir= readonly=
while IFS=: read -r number list name; do
  [ "$number" = 0 ] && path=$name
done <"/proc/$1/cgroup"
while read -r id parent device root point rest; do
  case $rest in *' - cgroup2 '*) ;; *) continue ;; esac
  case $path in "$root" | "\${root%/}"/*) ;; *) continue ;; esac
  dir=\${path#"\${root%/}"} dir=$point\${dir%/}
  [ -e "$dir/cgroup.procs" ] || { dir=; continue; }
  case $rest in ro[,\\ ]*) readonly=yes ;; esac
  break
done <"/proc/$1/mountinfo"
[ -n "$dir" ] || none 'this host shows no control groups of version 2'
case $dir in */"$2") dir=\${dir%/*} path=\${path%/*} ;; esac
[ -z "$readonly" ] || none "$dir is mounted read-only"
`;

/**
 * Makes the group ready: `$3` are controllers. To hand these on, it must have no process of its own: this
 * one (`$1`) and its children move away. What else is there stays, and the controllers stay off.
 */
const OPEN = `${LOCATE}
[ -w "$dir/cgroup.procs" ] || none "$dir may not be written to"
probe=$dir/probe-$$
mkdir "$probe" 2>/dev/null || none "no group can be made in $dir"
[ -e "$probe/cgroup.kill" ] && can_kill=yes || can_kill=
rmdir "$probe"
[ -n "$can_kill" ] || none 'this kernel has no cgroup.kill: it is older than 5.14'
read -r there <"$dir/cgroup.controllers"
wanted=
for one in $3; do
  case " $there " in *" $one "*) wanted="$wanted $one" ;; esac
done
if [ -n "$wanted" ]; then
  mkdir -p "$dir/$2" && {
    echo 0 >"$dir/$2/cgroup.procs"
    echo "$1" >"$dir/$2/cgroup.procs"
    for pid in $(cat "$dir/cgroup.procs"); do
      read -r pid name state parent rest <"/proc/$pid/stat" && [ "$parent" = "$1" ] &&
        echo "$pid" >"$dir/$2/cgroup.procs"
    done
  }
  for one in $wanted; do echo "+$one" >"$dir/cgroup.subtree_control"; done
fi
read -r on <"$dir/cgroup.subtree_control"
printf 'dir %s\\npath %s\\non %s\\n' "$dir" "$path" "$on"
`;

/** Looks at what process `$1`, of user `$3`, has been given. */
const INSPECT = `${LOCATE}
[ "$3" = 0 ] || [ "$(stat -c %u "$dir/cgroup.procs")" = "$3" ] || none "$dir belongs to another user"
# The root of all groups has neither.
[ -e "$dir/cgroup.kill" ] || [ ! -e "$dir/cgroup.events" ] ||
  none 'this kernel has no cgroup.kill: it is older than 5.14'
read -r on <"$dir/cgroup.subtree_control"
printf 'dir %s\\non %s\\n' "$dir" "$on"
`;

/** What the host has, whoever may use it: the controllers of the uppermost group that is seen here. */
const OF_HOST = `
while read -r id parent device root point rest; do
  case $rest in *' - cgroup2 '*) ;; *) continue ;; esac
  read -r there <"$point/cgroup.controllers" && printf 'there %s\\n' "$there" && exit
done <"/proc/self/mountinfo"
`;

/** What `inspectGroups()` finds. */
export type GroupsFound =
  | { ok: true; folder: string; controllers: string[] }
  /** The end of a sentence. */
  | { ok: false; reason: string };

/** Looks at the groups that a process has, or would have, without changing anything. */
export async function inspectGroups({ pid, uid }: {
  pid: number;
  /** As whom it runs. */
  uid: number;
}): Promise<GroupsFound> {
  const found = await shell(INSPECT, `${pid}`, LEAF, `${uid}`);
  const folder = valueOf(found, "dir");
  if (folder === undefined) return { ok: false, reason: reasonIn(found) };
  return { ok: true, folder, controllers: words(valueOf(found, "on")) };
}

/** The controllers that this host has for control groups of version 2; undefined where it has no such groups. */
export async function controllersOfHost(): Promise<string[] | undefined> {
  const there = valueOf(await shell(OF_HOST), "there");
  return there === undefined ? undefined : words(there);
}

/** What a group may use, with all that is in it. */
export interface GroupLimits {
  /** Bytes. */
  memoryMax?: number | undefined;
  /** Processes and threads. */
  pidsMax?: number | undefined;
}

/** What `ControlGroups.open()` comes to. */
export type ControlGroupsResult =
  | { ok: true; groups: ControlGroups }
  /** The end of a sentence. */
  | { ok: false; reason: string };

/** The part of the tree of control groups that is ours. */
export class ControlGroups {
  /** Its folder. */
  readonly folder: string;
  /** Which controllers the groups below it have. */
  readonly controllers: readonly string[];
  readonly #path: string;

  private constructor(folder: string, path: string, controllers: readonly string[]) {
    this.folder = folder;
    this.#path = path;
    this.controllers = controllers;
  }

  /**
   * Looks for groups that this process may use, and makes them ready.
   *
   * @param controllers that are wanted.
   */
  static async open(controllers: readonly string[] = CONTROLLERS): Promise<ControlGroupsResult> {
    const found = await shell(OPEN, `${Deno.pid}`, LEAF, controllers.join(" ")).catch(() => "");
    const dir = valueOf(found, "dir");
    if (dir === undefined) return { ok: false, reason: reasonIn(found) };
    const on = words(valueOf(found, "on"));
    const path = valueOf(found, "path") ?? "";
    return {
      ok: true,
      groups: new ControlGroups(dir, path, controllers.filter((name) => on.includes(name))),
    };
  }

  /** A group of this name, which may be there already. Nothing is made yet. */
  group(name: string): ControlGroup {
    const file = nameFor(name);
    const path = `${this.#path.replace(/\/$/, "")}/${file}`;
    return new ControlGroup(`${this.folder}/${file}`, { path, controllers: this.controllers });
  }

  /** The groups that are there whose names begin like this, but for those named. */
  async others(prefix: string, names: readonly string[]): Promise<ControlGroup[]> {
    const files = (await shell(LIST, this.folder, nameFor(prefix))).split("\n");
    const spared = new Set(["", ...names.map(nameFor)]);
    return files.filter((file) => !spared.has(file)).map((file) =>
      new ControlGroup(`${this.folder}/${file}`, {
        path: `${this.#path.replace(/\/$/, "")}/${file}`,
        controllers: this.controllers,
      })
    );
  }

  /**
   * Hands no controllers on any more: a supervisor can then start the next process in the group itself. The
   * groups of what runs on stay.
   */
  async release(): Promise<void> {
    if (this.controllers.length > 0) await shell(RELEASE, this.folder);
  }
}

const LIST = `cd "$1" && for dir in "$2"*/; do [ -d "$dir" ] && printf '%s\\n' "\${dir%/}"; done`;

const RELEASE = `
for file in "$1"/*/*/cgroup.subtree_control "$1"/*/cgroup.subtree_control "$1/cgroup.subtree_control"; do
  for one in $(cat "$file"); do echo "-$one" >"$file"; done
done 2>/dev/null`;

/** A command that has a group of its own. */
export interface GroupCommand {
  name: string;
  /** Whether it shares the limits. */
  isLimited: boolean;
}

function placeOf({ name, isLimited }: GroupCommand): string {
  return `${isLimited ? "limited/" : ""}${nameFor(name)}`;
}

/** A group for what is ended as a whole. */
export class ControlGroup {
  readonly folder: string;
  readonly #path: string;
  readonly #controllers: readonly string[];

  /** @param path its name for the kernel. */
  constructor(
    folder: string,
    { path, controllers }: { path: string; controllers: readonly string[] },
  ) {
    this.folder = folder;
    this.#path = path;
    this.#controllers = controllers;
  }

  /** The folder of the group of one of its commands: see `KeepOptions.cgroup`. */
  folderOf(command: GroupCommand): string {
    return `${this.folder}/${placeOf(command)}`;
  }

  /**
   * Makes it, and a group in it for each of these commands, or takes those that are there.
   *
   * @returns whether commands can join it.
   */
  async prepare(commands: readonly GroupCommand[], limits: GroupLimits = {}): Promise<boolean> {
    const { memoryMax = "", pidsMax = "" } = limits;
    const on = this.#controllers.map((name) => `+${name}`).join(" ");
    const folders = commands.map((command) => this.folderOf(command));
    return await shell(PREPARE, this.folder, `${memoryMax}`, `${pidsMax}`, on, ...folders) !== "";
  }

  /** What a command has used so far. */
  async usage(command: GroupCommand): Promise<GroupUsage> {
    const { text } = await ask(["awk", USAGE, this.folderOf(command)]);
    return parseUsage(text);
  }

  /** Those of a command that the kernel has killed because memory ran out, as far as its log tells. */
  async victims(command: GroupCommand): Promise<Survivor[]> {
    return parseVictims(await shell(VICTIMS, `${this.#path}/${placeOf(command)}`));
  }

  /**
   * Ends everything in the group, and removes it: TERM, then the group's own kill after the grace, which
   * reaches what belongs to other users as well. Who cannot be told to end gets no grace.
   *
   * @throws Error when nobody can look: what is there may be all that this user may have.
   */
  async end(options: EndOptions): Promise<SurvivorsEnd> {
    const seen = new Map<number, string>();
    const refused = new Set<number>();
    let alive: Survivor[] = [];
    let blind: { error: unknown } | undefined;
    const look = async (signal: "SIGTERM" | "SIGKILL") => {
      const text = await shell(MEMBERS, this.folder, signal === "SIGKILL" ? "kill" : "")
        .catch((error) => void (blind = { error }));
      if (text === undefined) return signal === "SIGKILL" ? "again" : "give up";
      blind = undefined;
      alive = parseMembers(text);
      for (const { pid, name } of alive) {
        if (signal === "SIGTERM" && !seen.has(pid)) {
          if (signalProcess(pid, "SIGTERM") === "refused") refused.add(pid);
          signalProcess(pid, "SIGCONT");
        }
        seen.set(pid, name);
      }
      if (text === "") return "done";
      const isDeaf = signal === "SIGTERM" && alive.length > 0 &&
        alive.every(({ pid }) => refused.has(pid));
      return isDeaf ? "give up" : "again";
    };
    using grace = new Grace(options);
    const gone = !grace.over.aborted &&
      await lookUntil(() => look("SIGTERM"), { over: grace.over });
    if (!gone) await lookUntil(() => look("SIGKILL"), { looks: KILL_LOOKS });
    if (blind !== undefined) throw blind.error;
    const left = new Set(alive.map(({ pid }) => pid));
    return {
      ended: [...seen].filter(([pid]) => !left.has(pid)).map(([pid, name]) => ({ pid, name })),
      fleeting: 0,
      left: alive.map((process) => ({ ...process, why: "still_alive" })),
    };
  }
}

const PREPARE = `
limited=$1/limited
[ -z "$2$3$4" ] || mkdir -p "$limited"
for one in $4; do echo "$one" >"$1/cgroup.subtree_control"; done
[ -z "$2" ] || echo "$2" >"$limited/memory.max"
# Swap would only put off what the limit is for.
[ -z "$2" ] || echo 0 >"$limited/memory.swap.max"
[ -z "$3" ] || echo "$3" >"$limited/pids.max"
for one in $4; do echo "$one" >"$limited/cgroup.subtree_control"; done
shift 4
mkdir -p "$@" && [ -w "$1/cgroup.procs" ] && echo ready
`;

const USAGE = `${SAY_USAGE}
BEGIN { say_usage(ARGV[1]) }`;

/** dmesg is for root alone on many hosts. */
const VICTIMS = `dmesg | grep -F "task_memcg=$1," |
  sed -n 's/.*task_memcg=[^,]*,task=\\(.*\\),pid=\\([0-9]*\\),uid=.*/victim \\2 \\1/p'`;

/** Says who is in the group, and kills all of it when `$2` is not empty. When nobody is in it, it is removed. */
const MEMBERS = `
[ -e "$1/cgroup.procs" ] || exit 0
while read -r key value && [ "$key" != populated ]; do :; done <"$1/cgroup.events"
if [ "$value" = 0 ]; then
  # What others have made below it takes longer.
  rmdir "$1"/*/*/ "$1"/*/ "$1" || find "$1" -depth -type d -exec rmdir {} +
  exit
fi
for pid in $(find "$1" -name cgroup.procs -exec cat {} +); do
  read -r name <"/proc/$pid/comm" && echo "member $pid $name"
done
[ -z "$2" ] || echo 1 >"$1/cgroup.kill"
echo populated
`;

function parseMembers(text: string): Survivor[] {
  return processesIn(text, "member");
}

/** Reads what `VICTIMS` printed. */
export function parseVictims(text: string): Survivor[] {
  return processesIn(text, "victim");
}

function processesIn(text: string, word: "member" | "victim"): Survivor[] {
  return text.split("\n").flatMap((line) => {
    const [, said, pid = "", name = ""] = /^(\w+) ([1-9]\d*) (.*)$/.exec(line) ?? [];
    return said === word ? [{ pid: Number(pid), name }] : [];
  });
}

/** What may be the name of a group, and no file that the kernel makes; the longest name has 255 bytes. */
function nameFor(name: string): string {
  const safe = encodeURIComponent(name.toWellFormed()).replaceAll(".", "%2E");
  if (safe.length <= 200) return safe;
  return `${safe.slice(0, 180)}-${markOf(name).toString(36)}`;
}

function valueOf(text: string, key: string): string | undefined {
  return new RegExp(`^${key} (.*)$`, "m").exec(text)?.[1];
}

function words(line = ""): string[] {
  return line.split(" ").filter((word) => word !== "");
}

function reasonIn(text: string): string {
  return valueOf(text, "none") ?? "they cannot be looked at";
}

async function shell(script: string, ...args: string[]): Promise<string> {
  return (await askShell(script, ...args)).text;
}
