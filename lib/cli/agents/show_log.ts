/**
 * What `testflinger-agent logs` does: the end of an agent's own log, or of what its job prints, and then what
 * comes.
 */
import { type Clock, systemClock } from "../../clock.ts";
import { isOfAnother } from "../../observe/log_format.ts";
import type { Io } from "../command.ts";
import { TerminalText } from "../terminal.ts";
import type { AgentRef } from "./agent_ref.ts";
import { askAgent, fetchFrom } from "./ask_agent.ts";

/** What to show. */
interface LogChoice {
  lines: number;
  follow: boolean;
  job: boolean;
}

/** Shows a log; resolves with the exit status. */
export async function showLog(agent: AgentRef, io: Io, choice: LogChoice): Promise<number> {
  return choice.job ? await showJob(agent, io, choice) : await showAgent(agent, io, choice);
}

async function showAgent(
  { logFile: path, id, mistake }: AgentRef,
  io: Io,
  { lines, follow }: LogChoice,
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
  let isEmpty = true;
  try {
    for await (const bytes of followFile(path, { lines, counts, follow, clock: systemClock })) {
      const all = (partial + decoder.decode(bytes, { stream: true })).split(/(?<=\n)/);
      partial = all.at(-1)?.endsWith("\n") ? "" : all.pop() ?? "";
      const shown = all.filter(counts).join("");
      if (shown !== "") isEmpty = false;
      io.stdout(screen.push(shown));
    }
    if (counts(partial)) io.stdout(screen.push(partial));
    if (!isEmpty || partial !== "" || lines === 0) return 0;
    io.stderr(`The log ${path} has no line of ${id} yet\n`);
    // It has not begun, and cannot.
    return mistake === undefined ? 0 : 1;
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

async function showJob(agent: AgentRef, io: Io, { lines, follow }: LogChoice): Promise<number> {
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

/** One part of a stream of server-sent events. */
interface ServerEvent {
  event: string;
  data: string;
}

/**
 * The end of what the job has printed, made fit for a screen, and with `follow` what it prints from
 * then on. `restarted`: another job has begun, or so much came that some was left out.
 */
async function* jobOutput(
  folder: string,
  { follow, signal }: { follow: boolean; signal: AbortSignal },
): AsyncGenerator<{ text: string; restarted: boolean }> {
  const response = await fetchFrom(folder, "/v1/events", signal);
  if (!response.ok || response.body === null) throw new Error((await response.text()).trim());
  let first = true;
  for await (const { event, data } of serverEvents(response.body)) {
    if (event !== "tail" && event !== "output") continue;
    const text: unknown = JSON.parse(data);
    if (typeof text !== "string") continue;
    yield { text, restarted: event === "tail" && !first };
    first = false;
    if (!follow) return;
  }
}

async function* serverEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const part of body) {
    text += decoder.decode(part, { stream: true });
    while (true) {
      const end = text.indexOf("\n\n");
      if (end < 0) break;
      const lines = text.slice(0, end).split("\n");
      text = text.slice(end + 2);
      const field = (name: string) =>
        lines.find((line) => line.startsWith(`${name}: `))?.slice(name.length + 2) ?? "";
      yield { event: field("event"), data: field("data") };
    }
  }
}

/** How often a file is looked at. */
const LOOK_MS = 250;
const CHUNK_BYTES = 64 * 1024;
const NEW_LINE = 0x0a;

/** What to read of a log file. */
interface FollowOptions {
  /** How many lines of its end, of those that count. */
  lines: number;
  /** Which lines count. @default all */
  counts?: (line: string) => boolean;
  /** Whether to go on with what is written later, also into its successor after a rotation. */
  follow: boolean;
  clock: Clock;
  /** Ends following. */
  signal?: AbortSignal;
}

/**
 * The bytes of a file's end, and then what comes.
 *
 * @throws Deno.errors.NotFound when there is no such file, unless it is waited for.
 */
export async function* followFile(
  path: string,
  { lines, counts = () => true, follow, clock, signal }: FollowOptions,
): AsyncGenerator<Uint8Array> {
  let file: Deno.FsFile | undefined;
  try {
    file = await open(path, follow);
    if (file !== undefined) {
      await file.seek(await startOfLastLines(file, lines, counts), Deno.SeekMode.Start);
    }
    while (true) {
      if (file !== undefined) yield* rest(file);
      if (!follow || signal?.aborted) return;
      try {
        await clock.sleep(LOOK_MS, signal);
      } catch {
        return;
      }
      if (file === undefined) {
        file = await open(path, true);
      } else if (await isReplaced(path, file)) {
        // What was written into the old one between the last look and its being moved aside.
        yield* rest(file);
        file.close();
        file = undefined;
        file = await open(path, true);
      } else if ((await file.stat()).size < await file.seek(0, Deno.SeekMode.Current)) {
        // It was truncated.
        await file.seek(0, Deno.SeekMode.Start);
      }
    }
  } finally {
    file?.close();
  }
}

async function open(path: string, mayLack: boolean): Promise<Deno.FsFile | undefined> {
  try {
    return await Deno.open(path);
  } catch (error) {
    if (mayLack && error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

async function* rest(file: Deno.FsFile): AsyncGenerator<Uint8Array> {
  while (true) {
    const chunk = new Uint8Array(CHUNK_BYTES);
    const count = await file.read(chunk);
    if (count === null) return;
    yield chunk.subarray(0, count);
  }
}

async function isReplaced(path: string, file: Deno.FsFile): Promise<boolean> {
  try {
    const [there, ours] = [await Deno.stat(path), await file.stat()];
    return there.ino !== ours.ino || there.dev !== ours.dev;
  } catch {
    // Moved aside, and the new one is not there yet.
    return false;
  }
}

/** Where the last lines begin that count, read from the end: a log may be large. */
async function startOfLastLines(
  file: Deno.FsFile,
  lines: number,
  counts: (line: string) => boolean,
): Promise<number> {
  const { size } = await file.stat();
  if (lines === 0) return size;
  let left = lines;
  /** The beginning of the line that ends in the part before. */
  let rest = new Uint8Array();
  for (let end = size; end > 0;) {
    const start = Math.max(0, end - CHUNK_BYTES);
    const part = new Uint8Array(end - start + rest.length);
    await readAt(file, start, part.subarray(0, end - start));
    part.set(rest, end - start);
    let lineEnd = part.length;
    for (let i = end - start - 1; i >= 0; i--) {
      // The end of the last line begins none.
      if (part[i] !== NEW_LINE || start + i === size - 1) continue;
      if (counts(new TextDecoder().decode(part.subarray(i + 1, lineEnd)))) left--;
      if (left === 0) return start + i + 1;
      lineEnd = i;
    }
    rest = part.slice(0, lineEnd);
    end = start;
  }
  return 0;
}

/** Fills `bytes` from that place, or as far as there is something. */
async function readAt(file: Deno.FsFile, place: number, bytes: Uint8Array): Promise<void> {
  await file.seek(place, Deno.SeekMode.Start);
  for (let filled = 0; filled < bytes.length;) {
    const count = await file.read(bytes.subarray(filled));
    if (count === null) return;
    filled += count;
  }
}
