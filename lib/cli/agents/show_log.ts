/** What `testflinger-agent logs` does. */
import { systemClock } from "../../clock.ts";
import { isOfAnother } from "../../observe/log_format.ts";
import type { Io } from "../command.ts";
import { TerminalText } from "../terminal_text.ts";
import type { AgentRef } from "./agent_ref.ts";
import { askAgent } from "./ask_agent.ts";
import { followFile } from "./follow.ts";
import { jobOutput } from "./job_output.ts";

/** What to show. */
interface LogWish {
  lines: number;
  follow: boolean;
  job: boolean;
}

/** Shows a log; resolves with the exit status. */
export async function showLog(agent: AgentRef, io: Io, wish: LogWish): Promise<number> {
  return wish.job ? await showJob(agent, io, wish) : await showAgent(agent, io, wish);
}

async function showAgent(
  { logFile: path, id }: AgentRef,
  io: Io,
  { lines, follow }: LogWish,
): Promise<number> {
  if (path === undefined) {
    io.stderr(`Where ${id} has its log is not known: its configuration cannot be read\n`);
    return 1;
  }
  const decoder = new TextDecoder();
  const screen = new TerminalText();
  // Agents with one logging_basedir write one file.
  const counts = (line: string) => !isOfAnother(line, id);
  let partial = "";
  try {
    for await (const bytes of followFile(path, { lines, counts, follow, clock: systemClock })) {
      const all = (partial + decoder.decode(bytes, { stream: true })).split(/(?<=\n)/);
      partial = all.at(-1)?.endsWith("\n") ? "" : all.pop() ?? "";
      io.stdout(screen.push(all.filter(counts).join("")));
    }
    if (counts(partial)) io.stdout(screen.push(partial));
    return 0;
  } catch (error) {
    const why = error instanceof Deno.errors.NotFound
      ? "there is none; has the agent ever run with this configuration?"
      : error instanceof Deno.errors.PermissionDenied
      ? "permission denied: try again as root"
      : String(error);
    io.stderr(`The log ${path} cannot be read: ${why}\n`);
    return 1;
  }
}

async function showJob(agent: AgentRef, io: Io, { lines, follow }: LogWish): Promise<number> {
  const answer = await askAgent(agent);
  if (answer.kind !== "running") {
    const why = answer.kind === "stopped" ? "does not run" : `does not say: ${answer.why}`;
    io.stderr(`${agent.id} ${why}; what earlier jobs printed is on the server\n`);
    return 1;
  }
  if (answer.status.job === undefined) {
    io.stderr(
      `${agent.id} runs no job now` +
        (follow ? "; waiting for one\n" : "; this is the last one's end\n"),
    );
  }
  const signal = new AbortController().signal;
  let first = true;
  for await (const { text, restarted } of jobOutput(agent.folder, { follow, signal })) {
    if (restarted) io.stdout("\n");
    io.stdout(first ? lastLines(text, lines) : text);
    first = false;
  }
  return 0;
}

function lastLines(text: string, lines: number): string {
  const all = text.split(/(?<=\n)/);
  return all.slice(Math.max(0, all.length - lines)).join("");
}
