/** Running commands in this process, as an operator would see them. */
import { dirname } from "node:path";
import { main } from "../../lib/cli/main.ts";

/** What a command printed, and how it ended. */
export interface Ran {
  status: number;
  stdout: string;
  stderr: string;
}

/** Runs the program with `args`. */
export async function run(...args: string[]): Promise<Ran> {
  let [stdout, stderr] = ["", ""];
  const status = await main(args, {
    stdout: (text) => stdout += text,
    stderr: (text) => stderr += text,
    signals: { listen() {} },
  });
  return { status, stdout, stderr };
}

/** Writes files into a fresh folder, which is gone after the test. */
export async function withFiles(
  files: Readonly<Record<string, string>>,
  test: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.mkdir(dirname(`${folder}/${name}`), { recursive: true });
      await Deno.writeTextFile(`${folder}/${name}`, text.replaceAll("DIR", folder));
    }
    await test(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** The keys that every agent needs, its folders in the test's own. */
export const AGENT = `agent_id: rpi4-1
server_address: http://127.0.0.1:1
job_queues: [rpi4]
execution_basedir: DIR/run
logging_basedir: DIR/logs
results_basedir: DIR/results
`;
