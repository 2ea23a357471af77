/** Starts programs in a session of their own, which no Ctrl-C on the agent's terminal reaches. */
import { exists } from "./path.ts";

/** Where systems have it: util-linux, busybox. */
const SETSID = ["/usr/bin/setsid", "/bin/setsid"].find(exists);

/**
 * A command that runs in a session and group of its own, which it leads. Its pid is the program's.
 *
 * The runtime could do it (`detached`), but it then copies the tables of all the agent's memory for each
 * program: 25 ms for 250 MB, in which no other agent of the process makes progress. setsid(1) takes 2 ms, outside.
 */
export function inOwnSession(
  program: string,
  options: Deno.CommandOptions & { args: string[] },
): Deno.Command {
  if (SETSID === undefined) return new Deno.Command(program, { ...options, detached: true });
  return new Deno.Command(SETSID, { ...options, args: [program, ...options.args] });
}
