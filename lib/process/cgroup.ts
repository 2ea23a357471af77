/**
 * Control groups of version 2 (cgroups(7)): what is started in one stays in it, whatever session, user or
 * environment it gives itself, and all of it is ended at one stroke.
 *
 * Ours is the group in which this process was started, where it may be written to (`Delegate=yes` in a
 * unit). Below it is a group for whatever is ended as a whole, and in that one a group for each command:
 *
 * | group                | what is in it                                                             |
 * | -------------------- | ------------------------------------------------------------------------- |
 * | `GIVEN`              | nothing, once controllers are handed on: the kernel wants it so           |
 * | `GIVEN/main-process` | this process, and what it starts for itself                               |
 * | `GIVEN/NAME`         | nothing but the groups of its commands; it has the limits                 |
 * | `GIVEN/NAME/COMMAND` | a command with all that it has started; memory and time are counted there |
 *
 * The runtime opens nothing under /sys, so shells do it on our behalf.
 */
import { type EndOptions, Grace, lookUntil } from "./grace.ts";
import { markOf } from "./mark.ts";
import { ask } from "./proc.ts";
import { signalProcess } from "./signal.ts";
import type { Survivor, SurvivorsEnd } from "./survivors.ts";

/** Where this process goes. */
const LEAF = "main-process";

/** What is counted and limited, where the kernel and whoever gave us the group allow it. */
const CONTROLLERS = ["memory", "pids", "io"];

/** What is dead within milliseconds of its kill, unless it hangs in the kernel. */
const KILL_LOOKS = 30;

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

/** What a group may use, with all that is in it. */
export interface GroupLimits {
  /** Bytes. */
  memoryMax?: number | undefined;
  /** Processes and threads. */
  pidsMax?: number | undefined;
}

/** What a command has used, with all that it has started. Unknown where its controller is off. */
export interface GroupUsage {
  cpuMs?: number;
  /** Bytes, at most at one time. */
  memoryPeak?: number;
  /** Bytes. */
  read?: number;
  written?: number;
  /** What the kernel has killed because memory ran out: how many, and those that its log names. */
  killed: number;
  victims: Survivor[];
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
    const found = await shell(OPEN, `${Deno.pid}`, LEAF, controllers.join(" "));
    const dir = valueOf(found, "dir");
    if (dir === undefined) {
      return { ok: false, reason: valueOf(found, "none") ?? "they cannot be looked at" };
    }
    const on = valueOf(found, "on")?.split(" ") ?? [];
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

  /**
   * Hands no controllers on any more: a supervisor can then start the next process in the group itself. The
   * groups of what runs on stay.
   */
  async release(): Promise<void> {
    if (this.controllers.length > 0) await shell(RELEASE, this.folder);
  }
}

const RELEASE = `
for file in "$1"/*/cgroup.subtree_control "$1/cgroup.subtree_control"; do
  for one in $(cat "$file"); do echo "-$one" >"$file"; done
done 2>/dev/null`;

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

  /**
   * Makes it, and a group in it for a command, or takes those that are there.
   *
   * @returns the file that a process writes its number to when it joins the command's group; undefined
   * when they cannot be made.
   */
  async prepare(command: string, limits: GroupLimits = {}): Promise<string | undefined> {
    const { memoryMax = "", pidsMax = "" } = limits;
    const on = this.#controllers.map((name) => `+${name}`).join(" ");
    const made = await shell(
      PREPARE,
      this.folder,
      nameFor(command),
      `${memoryMax}`,
      `${pidsMax}`,
      on,
    );
    return valueOf(made, "join");
  }

  /** What a command has used until now. */
  async usage(command: string): Promise<GroupUsage> {
    const name = nameFor(command);
    const text = await shell(USAGE, `${this.folder}/${name}`, `${this.#path}/${name}`);
    return parseUsage(text);
  }

  /**
   * Ends everything in the group, and removes it: TERM, then the group's own kill after the grace, which
   * reaches what belongs to other users as well.
   */
  async end(options: EndOptions): Promise<SurvivorsEnd> {
    const seen = new Map<number, string>();
    let alive: Survivor[] = [];
    const look = async (signal: "SIGTERM" | "SIGKILL") => {
      const text = await shell(MEMBERS, this.folder, signal === "SIGKILL" ? "kill" : "");
      alive = parseMembers(text);
      for (const { pid, name } of alive) {
        if (signal === "SIGTERM" && !seen.has(pid)) {
          signalProcess(pid, "SIGTERM");
          signalProcess(pid, "SIGCONT");
        }
        seen.set(pid, name);
      }
      return text === "" ? "done" : "again";
    };
    using grace = new Grace(options);
    const gone = !grace.over.aborted &&
      await lookUntil(() => look("SIGTERM"), { over: grace.over });
    if (!gone) await lookUntil(() => look("SIGKILL"), { looks: KILL_LOOKS });
    const left = new Set(alive.map(({ pid }) => pid));
    return {
      ended: [...seen].filter(([pid]) => !left.has(pid)).map(([pid, name]) => ({ pid, name })),
      fleeting: 0,
      left: alive.map((process) => ({ ...process, why: "still_alive" })),
    };
  }
}

const PREPARE = `
mkdir -p "$1" || exit
[ -z "$3" ] || echo "$3" >"$1/memory.max"
# Swap would only put off what the limit is for.
[ -z "$3" ] || echo 0 >"$1/memory.swap.max"
[ -z "$4" ] || echo "$4" >"$1/pids.max"
for one in $5; do echo "$one" >"$1/cgroup.subtree_control"; done
mkdir -p "$1/$2" && [ -w "$1/$2/cgroup.procs" ] && printf 'join %s\\n' "$1/$2/cgroup.procs"
`;

/** Each file below its name. dmesg is for root alone on many hosts. */
const USAGE = `
for file in cpu.stat memory.peak memory.events io.stat; do
  [ -e "$1/$file" ] && echo "file $file" && cat "$1/$file"
done
if grep -q '^oom_kill [1-9]' "$1/memory.events"; then
  dmesg | grep -F "task_memcg=$2" | sed -n 's/.*task_memcg=\\([^,]*\\),task=\\(.*\\),pid=\\([0-9]*\\),uid=.*/victim \\3 \\2/p'
fi
`;

/** Kills all of the group when `$2` is not empty; says who is in it. When nobody is, it is removed. */
const MEMBERS = `
[ -e "$1/cgroup.procs" ] || exit 0
[ -z "$2" ] || echo 1 >"$1/cgroup.kill"
if grep -q '^populated 0' "$1/cgroup.events"; then
  find "$1" -depth -type d -exec rmdir {} \\;
  exit
fi
for pid in $(find "$1" -name cgroup.procs -exec cat {} +); do
  read -r name <"/proc/$pid/comm" && echo "member $pid $name"
done
echo populated
`;

function parseMembers(text: string): Survivor[] {
  return text.split("\n").flatMap((line) => {
    const [, pid = "", name = ""] = /^member ([1-9]\d*) (.*)$/.exec(line) ?? [];
    return pid === "" ? [] : [{ pid: Number(pid), name }];
  });
}

/** Reads what `USAGE` printed. */
export function parseUsage(text: string): GroupUsage {
  const files = new Map<string, string[]>();
  let lines: string[] = [];
  const victims: Survivor[] = [];
  for (const line of text.split("\n")) {
    const [, file] = /^file (\S+)$/.exec(line) ?? [];
    const [, pid, name = ""] = /^victim (\d+) (.*)$/.exec(line) ?? [];
    if (file !== undefined) files.set(file, lines = []);
    else if (pid !== undefined) victims.push({ pid: Number(pid), name });
    else lines.push(line);
  }
  const flat = (file: string, key: string) => {
    const line = files.get(file)?.find((line) => line.startsWith(`${key} `));
    return line === undefined ? undefined : Number(line.slice(key.length + 1));
  };
  const cpuMicros = flat("cpu.stat", "usage_usec");
  const peak = files.get("memory.peak")?.[0];
  const io = files.get("io.stat");
  const sum = (key: string) =>
    io?.reduce((all, line) => all + Number(RegExp(`\\b${key}=(\\d+)`).exec(line)?.[1] ?? 0), 0);
  const read = sum("rbytes");
  const written = sum("wbytes");
  return {
    ...(cpuMicros !== undefined && { cpuMs: cpuMicros / 1000 }),
    ...(peak !== undefined && { memoryPeak: Number(peak) }),
    ...(read !== undefined && { read }),
    ...(written !== undefined && { written }),
    killed: flat("memory.events", "oom_kill") ?? 0,
    victims,
  };
}

/** What may be the name of a group, and no file that the kernel makes; the longest name has 255 bytes. */
function nameFor(name: string): string {
  const safe = encodeURIComponent(name).replaceAll(".", "%2E");
  if (safe.length <= 200) return safe;
  return `${safe.slice(0, 180)}-${markOf(name).toString(36)}`;
}

function valueOf(text: string, key: string): string | undefined {
  return new RegExp(`^${key} (.*)$`, "m").exec(text)?.[1];
}

async function shell(script: string, ...args: string[]): Promise<string> {
  return (await ask(["/bin/sh", "-c", script, "sh", ...args])).text;
}
