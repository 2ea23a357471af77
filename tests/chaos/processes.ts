/** Which processes of the host belong to a job. */

/** The patterns come on standard input: as arguments they would be found in the search itself. */
const SEARCH = "grep -lszxF -f - /proc/[0-9]*/environ /proc/[0-9]*/cmdline";

/**
 * The pids of all that have the id of one of the jobs in the environment they were started with; what
 * hides (see chaos_jobs.ts) has cleared that, and has the id as an argument.
 */
export async function processesOf(jobIds: readonly string[]): Promise<number[]> {
  const search = new Deno.Command("/bin/sh", {
    args: ["-c", SEARCH],
    stdin: "piped",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const patterns = jobIds.flatMap((id) => [`TESTFLINGER_JOB_ID=${id}\n`, `${id}\n`]);
  const writer = search.stdin.getWriter();
  await writer.write(new TextEncoder().encode(patterns.join("")));
  await writer.close();
  const { stdout } = await search.output();
  const pids = new TextDecoder().decode(stdout).matchAll(/^\/proc\/(\d+)\//gm);
  return [...new Set([...pids].map((found) => Number(found[1])))];
}
