/** What happens to the files of an agent while it is not there: a failing disk, a hand, a tidy host. */
import { join } from "node:path";
import { JournalFile } from "../../lib/outbox/journal.ts";
import { removeTree } from "../../lib/remove_tree.ts";
import type { Random } from "./random.ts";

/** What can happen to the journal of a job, or to its working folder. */
export const DISK_FAULTS = [
  "zeros at the end",
  "a flipped byte",
  "a torn line",
  "a FIFO",
  "an entry of a newer version",
  "swapped journals",
  "removed working folders",
] as const;
export type DiskFault = typeof DISK_FAULTS[number];

/** The folders of the agent. */
export interface AgentFolders {
  /** Where the jobs are that are not wholly delivered. */
  jobs: string;
  run: string;
}

/**
 * Does something to the agent's files.
 *
 * @returns what, and the ids of the jobs that this may cost a part of their log; undefined when there
 * was nothing to do it to.
 */
export async function damage(
  { jobs, run }: AgentFolders,
  random: Random,
): Promise<{ fault: DiskFault; jobIds: string[] } | undefined> {
  const names = namesIn(jobs);
  const [first] = names;
  if (first === undefined) return undefined;
  const fault = random.pick(DISK_FAULTS);
  const name = random.pick([first, ...names.slice(1)]);
  const path = join(jobs, name, "record");
  if (!isFile(path)) return undefined; // It is a FIFO since the last time.
  switch (fault) {
    case "zeros at the end": {
      const bytes = await Deno.readFile(path);
      bytes.fill(0, random.int(0, bytes.length));
      await Deno.writeFile(path, bytes);
      break;
    }
    case "a flipped byte": {
      const bytes = await Deno.readFile(path);
      const at = random.int(0, bytes.length - 1);
      bytes[at] = (bytes[at] ?? 0) ^ 1;
      await Deno.writeFile(path, bytes);
      break;
    }
    case "a torn line":
      await Deno.writeTextFile(path, '0123abcd {"t":"mess', { append: true });
      break;
    case "a FIFO":
      await Deno.remove(path);
      await new Deno.Command("mkfifo", { args: [path] }).output();
      break;
    case "an entry of a newer version": {
      const { file } = JournalFile.open(path);
      file.append({ t: "of a newer version" });
      file.close();
      break;
    }
    case "swapped journals": {
      const other = names.find((each) => each !== name && isFile(join(jobs, each, "record")));
      if (other === undefined) return undefined;
      const otherPath = join(jobs, other, "record");
      await Deno.rename(path, `${path}.swapped`);
      await Deno.rename(otherPath, path);
      await Deno.rename(`${path}.swapped`, otherPath);
      return { fault, jobIds: [idOf(name), idOf(other)] };
    }
    case "removed working folders":
      await removeTree(run);
      return { fault, jobIds: names.map(idOf) };
  }
  return { fault, jobIds: [idOf(name)] };
}

function idOf(name: string): string {
  return name.split("~")[0] ?? name;
}

function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name).sort();
  } catch {
    return []; // It was never made.
  }
}

function isFile(path: string): boolean {
  try {
    return Deno.lstatSync(path).isFile;
  } catch {
    return false;
  }
}
