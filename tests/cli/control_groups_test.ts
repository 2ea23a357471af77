/** What `doctor` and `check` say of control groups, on a host as it is and on one that shows none. */
import { assertEquals, assertMatch } from "@std/assert";
import { PERMISSIONS } from "../../lib/cli/command.ts";
import { GROUPS, groupShell, testWithGroups } from "../support/control_groups.ts";
import { about, withFixture } from "./doctor_fixture.ts";

const MAIN = new URL("../../main.ts", import.meta.url).pathname;
const LIMITS = "job_memory_max: 4 GiB\njob_pids_max: 1000\n";

/** What a command says where no control groups are mounted. */
async function withoutGroups(...args: string[]): Promise<string> {
  return await groupShell(
    'exec unshare --mount sh -c \'mount -t tmpfs none /sys/fs/cgroup && exec "$@"\' sh "$@"',
    ...[Deno.execPath(), "run", "--quiet", ...PERMISSIONS, MAIN, ...args],
  );
}

const reason = await groupShell(
  "unshare --mount mount -t tmpfs none /sys/fs/cgroup 2>&1 || echo failed",
);
const whyNoMount = reason === "" ? "" : ` (LEFT OUT, nothing can be mounted: ${reason})`;

Deno.test(
  "where a host shows no control groups doctor says what serves in their place" + whyNoMount,
  {
    ignore: whyNoMount !== "",
  },
  () =>
    withFixture({}, async ({ folder }) => {
      const said = await withoutGroups("doctor", "-c", `${folder}/a.conf`);
      assertMatch(
        said,
        /^ok +control groups +jobs have none: this host shows no control groups of version 2; what a job leaves running is looked for /m,
      );
    }),
);

Deno.test(
  "limits that a host cannot keep are told by doctor and by check, each once" + whyNoMount,
  {
    ignore: whyNoMount !== "",
  },
  () =>
    withFixture({ agent: LIMITS }, async ({ folder }) => {
      const doctor = await withoutGroups("doctor", "-c", `${folder}/a.conf`);
      assertMatch(
        doctor,
        /^warning +control groups +job_memory_max and job_pids_max cannot be enforced: jobs have no control groups: this host .* -> have the agent started by systemd /m,
      );
      assertEquals(doctor.split("job_memory_max").length, 2, doctor);
      const check = await withoutGroups("check", `${folder}/a.conf`);
      const lines = check.split("\n").filter((line) => line.includes("warning: job_"));
      assertEquals(
        lines.map((line) => line.replace(/^.*warning: /, "")),
        ["job_memory_max", "job_pids_max"].map((key) =>
          `${key}: does nothing on this host: it shows no control groups of version 2`
        ),
      );
    }),
);

testWithGroups(
  "doctor says that each job of an agent that runs has a control group",
  () =>
    withFixture({}, async ({ examine, folder }) => {
      assertMatch(
        about("control groups", await examine()),
        /^control groups: ok: this host has them; whether jobs have them is known once the agent runs$/,
      );
      await Deno.mkdir(`${folder}/results/agent-rpi4-1`, { recursive: true });
      using lock = await Deno.open(`${folder}/results/agent-rpi4-1/lock`, {
        write: true,
        create: true,
      });
      await lock.lock(true);
      const counted = ["CPU time", ...GROUPS!.controllers].join(", ");
      assertEquals(
        about("control groups", await examine()),
        `control groups: ok: each job has one, below ${GROUPS!.folder}, which counts ${counted}`,
      );
      const user = {
        uid: 65_534,
        gid: 65_534,
        groups: [],
        name: "nobody",
        home: undefined,
        path: "",
      };
      assertMatch(
        about("control groups", await examine({ user })),
        /^control groups: ok: jobs have none: \S+ belongs to another user; what a job leaves /,
      );
    }),
);
