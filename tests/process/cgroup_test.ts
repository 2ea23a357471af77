/** On the control groups of this host, where there are any that may be used. */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { systemClock } from "../../lib/clock.ts";
import {
  type ControlGroup,
  ControlGroups,
  inspectGroups,
  parseVictims,
} from "../../lib/process/cgroup.ts";
import { type KeptCommand } from "../../lib/process/keeper.ts";
import { startKept } from "../../lib/process/keeper_start.ts";
import type { GroupUsage } from "../../lib/process/exit.ts";
import {
  GROUPS as groups,
  groupShell as shell,
  WHY_NO_GROUPS as whyNot,
} from "../support/control_groups.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { ENV, until } from "./support.ts";

/** Making groups for others, and mounting, takes the superuser. */
const isRoot = Deno.uid() === 0;
const ignore = groups === undefined;

const FIXTURES = join(import.meta.dirname ?? "", "fixtures");
const FIXTURE = join(FIXTURES, "own_group.ts");
const END_GROUP = join(FIXTURES, "end_group.ts");
const PERMISSIONS = ["--allow-read", "--allow-write", "--allow-run", "--allow-sys", "--allow-env"];

async function isThere(folder: string): Promise<boolean> {
  return await shell('[ -e "$1" ] && echo yes', folder) === "yes";
}

/** A group with commands in it; what is left of it goes with the test. */
class Fixture implements AsyncDisposable {
  readonly name = `test-${crypto.randomUUID()}`;
  readonly group: ControlGroup = groups!.group(this.name);
  readonly #folder = new TempFolder();
  readonly #commands: KeptCommand[] = [];

  /** Runs a script in a group of this name in it, to its end; says what it has used. */
  async run(command: string, script: string): Promise<GroupUsage> {
    const own = { name: command, isLimited: true };
    assert(await this.group.prepare([own]));
    const cgroup = this.group.folderOf(own);
    const started = await startKept(["/bin/sh", "-c", script, this.#folder.path], {
      folder: this.#folder.at(command),
      cwd: this.#folder.path,
      env: ENV,
      cgroup,
    });
    if (!started.started) throw new Error(started.message);
    this.#commands.push(started.command);
    await started.command.exit;
    return started.command.usage;
  }

  /** Names of what is in the group. */
  async names(): Promise<string[]> {
    const names = await shell(
      'for pid in $(find "$1" -name cgroup.procs -exec cat {} +); do cat /proc/$pid/comm; done',
      this.group.folder,
    );
    return names.split("\n").filter((name) => name !== "").toSorted();
  }

  async untilNames(...expected: string[]): Promise<void> {
    await until(`${expected} are there`, async () => `${await this.names()}` === `${expected}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.group.end({ graceMs: 0, clock: systemClock });
    for (const command of this.#commands) command[Symbol.dispose]();
    // Their keepers put a last file there.
    for (const keeper of Deno.readDirSync(this.#folder.path)) {
      const eof = this.#folder.at(keeper.name, "eof");
      await until("a keeper has ended", () => Deno.lstat(eof).then(() => true, () => false));
    }
    await this.#folder[Symbol.asyncDispose]();
  }
}

Deno.test(
  "whatever a command leaves is ended with its group, however it hides, and the group is gone" +
    whyNot,
  {
    ignore,
  },
  async () => {
    await using fixture = new Fixture();
    await fixture.run("one", "env -i setsid sleep 1000 & (setsid setsid tail -f /dev/null &) ");
    const user = isRoot ? "setpriv --reuid 65534 --clear-groups" : "";
    await fixture.run("two", `(${user} env -i setsid perl -e '$0 = "odd"; sleep 1000' &)`);
    await fixture.untilNames("odd", "sleep", "tail");
    const end = await fixture.group.end({ graceMs: 10_000, clock: new FakeClock() });
    assertEquals(end.ended.map(({ name }) => name).toSorted(), ["odd", "sleep", "tail"]);
    assertEquals(end.left, []);
    assertEquals(await isThere(fixture.group.folder), false);
  },
);

Deno.test(
  "what ignores TERM is killed after the grace, also what starts itself again without end" + whyNot,
  {
    ignore,
  },
  async () => {
    await using fixture = new Fixture();
    const again = 'while (1) { exit if fork; setsid(); $SIG{TERM} = "IGNORE"; }';
    await fixture.run("one", `setsid perl -e 'use POSIX; ${again}' &`);
    await fixture.run("two", "setsid sh -c 'trap \"\" TERM; while :; do sleep 1000; done' &");
    await until("it ignores TERM", async () => (await fixture.names()).includes("sleep"));
    const clock = new FakeClock();
    const end = fixture.group.end({ graceMs: 10_000, clock });
    await until("the grace has begun", () => clock.sleepers > 0);
    await clock.advance(9_999);
    assert((await fixture.names()).includes("sh"));
    await clock.advance(1);
    assertEquals((await end).left, []);
    assertEquals(await isThere(fixture.group.folder), false);
  },
);

Deno.test(
  "a group is found again by its name, and one that is not there is ended at once" + whyNot,
  {
    ignore,
  },
  async () => {
    await using fixture = new Fixture();
    await fixture.run("one", "setsid sleep 1000 &");
    await fixture.untilNames("sleep");
    const again = await ControlGroups.open();
    if (!again.ok) throw new Error(again.reason);
    const options = { graceMs: 10_000, clock: new FakeClock() };
    const { ended } = await again.groups.group(fixture.name).end(options);
    assertEquals(ended.map(({ name }) => name), ["sleep"]);
    assertEquals(await again.groups.group(fixture.name).end(options), {
      ended: [],
      fleeting: 0,
      left: [],
    });
  },
);

Deno.test(
  "any text names a group, and none leads out of its place" + whyNot,
  { ignore },
  async () => {
    for (const name of ["../..", "a/b", "cgroup.procs", "é".repeat(200), " "]) {
      const group = groups!.group(name);
      const free = { name, isLimited: false };
      assert(await group.prepare([free, { name: "other", isLimited: true }]), name);
      const folder = group.folderOf(free);
      assertEquals(await isThere(folder), true, folder);
      assertEquals(await shell('cd "$1/../.." && pwd', folder), groups!.folder);
      await group.end({ graceMs: 0, clock: systemClock });
      assertEquals(await isThere(group.folder), false);
    }
  },
);

Deno.test(
  "groups of what is gone are found by how their names begin" + whyNot,
  { ignore },
  async () => {
    await using fixture = new Fixture();
    await fixture.run("one", "setsid sleep 1000 &");
    await fixture.untilNames("sleep");
    const prefix = fixture.name.slice(0, -3);
    assertEquals(await groups!.others(prefix, [fixture.name]), []);
    const [other, ...more] = await groups!.others(prefix, ["test-of-another"]);
    assertEquals(more, []);
    await other!.end({ graceMs: 0, clock: systemClock });
    assertEquals(await isThere(fixture.group.folder), false);
  },
);

Deno.test("the time that a command and its children took is counted for each command" + whyNot, {
  ignore,
}, async () => {
  await using fixture = new Fixture();
  const [busy, idle] = [
    await fixture.run("busy", "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done'"),
    await fixture.run("idle", "true"),
  ];
  assert((busy.cpuMs ?? 0) > (idle.cpuMs ?? Infinity), JSON.stringify({ busy, idle }));
  assertEquals(busy.killed, 0);
});

Deno.test(
  "a process of another user is killed at once, since no signal before that reaches it" + whyNot,
  {
    ignore: ignore || !isRoot,
  },
  async () => {
    await using fixture = new Fixture();
    const odd = `setpriv --reuid 65534 --clear-groups env -i perl -e '$0 = "odd"; sleep 1000'`;
    await fixture.run("one", `setsid ${odd} &`);
    await fixture.untilNames("odd");
    // As a user is who may write to the group, and may signal nobody else's processes.
    const end = await shell(
      'exec timeout 60 setpriv --bounding-set -kill "$@"',
      ...[Deno.execPath(), "run", "--quiet", ...PERMISSIONS, END_GROUP, fixture.name],
    );
    assertEquals(JSON.parse(end || "{}"), { ended: ["odd"], left: [] });
    assertEquals(await isThere(fixture.group.folder), false);
  },
);

Deno.test("the kernel's log is read for the processes that were killed when memory ran out", () => {
  assertEquals(parseVictims("victim 4711 stress-ng vm\nvictim 12 sh\n"), [
    { pid: 4711, name: "stress-ng vm" },
    { pid: 12, name: "sh" },
  ]);
  assertEquals(parseVictims(""), []);
});

/** Runs the fixture in a group of its own, as a supervisor would start it. */
async function inOwnGroup<T>(
  test: (group: string, run: (...args: string[]) => Promise<Record<string, unknown>>) => Promise<T>,
): Promise<T> {
  const group = `${groups!.folder}/given-${crypto.randomUUID()}`;
  const before = await shell('cat "$1/cgroup.subtree_control"', groups!.folder);
  await shell('mkdir "$1"; echo +hugetlb >"${1%/*}/cgroup.subtree_control"', group);
  try {
    return await test(group, async (...args) => {
      const text = await shell(
        'echo 0 >"$1/cgroup.procs" || exit 219; shift; exec "$@"',
        group,
        ...[Deno.execPath(), "run", "--quiet", ...PERMISSIONS, FIXTURE, ...args],
      );
      assert(text !== "", "the group cannot be joined");
      return JSON.parse(text);
    });
  } finally {
    await shell('echo 1 >"$1/cgroup.kill"', group);
    await until("nobody is in it", async () => {
      await shell('find "$1" -depth -type d -exec rmdir {} \\; 2>/dev/null', group);
      return !await isThere(group);
    });
    // As it was, unless somebody else uses it by now.
    if (before === "") await shell('echo -hugetlb >"$1/cgroup.subtree_control"', groups!.folder);
  }
}

/** Any controller will do to see whether it is handed on; this one nobody else wants. */
const hasController = groups !== undefined && isRoot &&
  (await shell('cat "$1/cgroup.controllers"', groups.folder)).split(" ").includes("hugetlb");

Deno.test(
  "a process that has a group to itself moves into one of its own, so that commands get controllers",
  {
    ignore: !hasController,
  },
  () =>
    inOwnGroup(async (group, run) => {
      const found = await run("release");
      assertEquals(found.folder, group);
      assertEquals(found.controllers, ["hugetlb"]);
      assertMatch(`${found.own}`, /\/given-[^/]+\/main-process$/);
      assertEquals(found.ofTest, `${group}/job/limited/test`);
      assertEquals([found.handedOn, found.ofCommand], ["hugetlb", "hugetlb"]);
      // Else a supervisor could not start the next process there.
      assertEquals(found.after, "");
      assertEquals((await run("release")).controllers, ["hugetlb"]);
    }),
);

Deno.test(
  "where others are in the group there are no controllers, and nobody is moved but the process itself",
  {
    ignore: !hasController,
  },
  () =>
    inOwnGroup(async (group, run) => {
      const other = new Deno.Command("/bin/sh", {
        args: ["-c", 'echo 0 >"$1/cgroup.procs"; exec sleep 1000', "sh", group],
      }).spawn();
      await until("it is there", async () => await shell('cat "$1/cgroup.procs"', group) !== "");
      const found = await run();
      assertEquals(found.controllers, []);
      assertEquals(found.ofTest, `${group}/job/limited/test`);
      assertEquals(await shell('cat "$1/cgroup.procs"', group), `${other.pid}`);
      other.kill();
      await other.status;
    }),
);

async function reasonIn(setUp: string): Promise<string> {
  const text = await shell(
    `exec unshare --mount sh -c '${setUp} && exec "$@"' sh "$@"`,
    ...[Deno.execPath(), "run", "--quiet", ...PERMISSIONS, FIXTURE],
  );
  return JSON.parse(text === "" ? "{}" : text).reason;
}

Deno.test(
  "groups that may not be written to, or are not there, are not used, and it is said why" + whyNot,
  {
    ignore: ignore || !isRoot,
  },
  async () => {
    const { folder } = groups!;
    const mount = folder.replace(/(\/sys\/fs\/cgroup(\/unified)?).*/, "$1");
    assertStringIncludes(
      await reasonIn(`mount -o remount,bind,ro ${mount}`),
      `${folder} is mounted read-only`,
    );
    assertEquals(
      await reasonIn(`umount -l ${mount}`),
      "this host shows no control groups of version 2",
    );
  },
);

Deno.test("what a process has been given is found without changing anything" + whyNot, {
  ignore,
}, async () => {
  const found = await inspectGroups({ pid: Deno.pid, uid: Deno.uid() ?? 0 });
  if (!found.ok) throw new Error(found.reason);
  assertEquals(found.folder, groups!.folder);
  const other = await inspectGroups({ pid: Deno.pid, uid: 65_534 });
  assertEquals(other, {
    ok: false,
    reason: `${groups!.folder} belongs to another user`,
  });
});
