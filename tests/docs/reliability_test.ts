/** The table of faults in docs/reliability.md names tests and faults of the simulation that there are. */
import { assert, assertEquals } from "@std/assert";
import { JOB_FAULTS } from "../chaos/chaos_jobs.ts";
import { DISK_FAULTS } from "../chaos/disk_faults.ts";
import { FAULTS } from "../chaos/faulty_proxy.ts";
import { HARMFUL, SERVER_FAULTS } from "../chaos/seed.ts";

const ROOT = new URL("../../", import.meta.url);
const PAGE = await Deno.readTextFile(new URL("docs/reliability.md", ROOT));

/** All that the simulation does. */
const SIMULATED = new Set<string>(
  [
    ...FAULTS,
    ...DISK_FAULTS,
    ...HARMFUL.filter((name) => name !== undefined),
    ...Object.keys(SERVER_FAULTS),
    ...Object.keys(JOB_FAULTS),
  ],
);

/** One row of the table: what it says the fault is tested by. */
interface Row {
  fault: string;
  files: string[];
  tasks: string[];
  simulated: string[];
  /** What is none of these. */
  other: string[];
}

function readRow(line: string): Row {
  const [fault = "", , testedBy = ""] = line.split("|").slice(1, -1).map((cell) => cell.trim());
  const [named = "", simulated = ""] = testedBy.split(/(?:, )?\bsim: /);
  const parts = named.split(", ").filter((part) => part !== "");
  const matching = (pattern: RegExp) => parts.flatMap((part) => pattern.exec(part)?.[1] ?? []);
  const files = matching(/^`(tests\/\S+_test\.ts)`$/);
  const tasks = matching(/^`deno task (\w+)`$/);
  return {
    fault,
    files,
    tasks,
    simulated: simulated.split(", ").filter((name) => name !== ""),
    other: parts.length === files.length + tasks.length ? [] : parts,
  };
}

const [, table = ""] = /\*\*Fault by fault:\*\*[^|]*((?:^\|.*\n)+)/m.exec(PAGE) ?? [];
const rows = table.trimEnd().split("\n").slice(2).map(readRow);

Deno.test("each row of the table of faults names what causes its fault, and that is there", async () => {
  assert(rows.length > 40, `there are ${rows.length} rows`);
  const { tasks } = JSON.parse(await Deno.readTextFile(new URL("deno.json", ROOT)));
  for (const { fault, files, tasks: named, simulated, other } of rows) {
    assertEquals(other, [], fault);
    assert(files.length + simulated.length > 0, `nothing causes: ${fault}`);
    for (const task of named) assert(Object.hasOwn(tasks, task), `${fault}: no task ${task}`);
    for (const name of simulated) assert(SIMULATED.has(name), `${fault}: not simulated: ${name}`);
    for (const file of files) {
      const text = await Deno.readTextFile(new URL(file, ROOT)).catch(() => "");
      assert(/^ *(Deno\.test|it)\(/m.test(text), `${fault}: no tests in ${file}`);
    }
  }
});

Deno.test("each fault of the simulation is in the table of faults", () => {
  const named = new Set(rows.flatMap(({ simulated }) => simulated));
  assertEquals([...SIMULATED].filter((name) => !named.has(name)), []);
});
