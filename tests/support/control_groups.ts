/** The control groups of this host for tests, which say loudly when there are none. */
import { ControlGroups, type ControlGroupsResult } from "../../lib/process/cgroup.ts";

const opened: ControlGroupsResult = await ControlGroups.open();

/** Those that tests may use. */
export const GROUPS: ControlGroups | undefined = opened.ok ? opened.groups : undefined;

/** Why there are none; for the names of tests that are left out. */
export const WHY_NO_GROUPS = opened.ok ? "" : ` (LEFT OUT, no control groups: ${opened.reason})`;

if (!opened.ok) {
  console.error(
    `\n*** Nothing is proved about control groups here: ${opened.reason}. Run the tests as root on a ` +
      "host with control groups of version 2, or mount them:\n" +
      "*** mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified\n",
  );
}

/** A test that needs control groups. Where there are none it is left out, and its name says why. */
export function testWithGroups(name: string, test: () => Promise<void>): void {
  Deno.test(name + WHY_NO_GROUPS, { ignore: GROUPS === undefined }, test);
}

/** What a shell prints that looks at groups, which the runtime may not. */
export async function groupShell(script: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command("/bin/sh", { args: ["-c", script, "sh", ...args] })
    .output();
  return new TextDecoder().decode(stdout).trim();
}

/** The folders of the groups below ours whose names begin like this. */
export async function groupsNamed(prefix: string): Promise<string[]> {
  const found = await groupShell(
    'for dir in "$1/$2"*/; do [ -d "$dir" ] && echo "${dir%/}"; done',
    GROUPS!.folder,
    prefix,
  );
  return found.split("\n").filter((line) => line !== "");
}
