/** What `restart`, `offline` and `online` do: ask an agent for something, and watch it happen. */
import type { MarkerKind } from "../../agent/markers.ts";
import { StateFile } from "../../agent/state_file.ts";
import { type Clock, systemClock } from "../../clock.ts";
import { messageOf } from "../../message.ts";
import type { AgentStatus } from "../../observe/status_schema.ts";
import { showText } from "../../observe/output_text.ts";
import { type CommandLine, type Io, USAGE_STATUS } from "../command.ts";
import { type AgentPlaces, type AgentRef, isOfInstalledHost } from "./agent_ref.ts";
import { type AgentAnswer, askAgent } from "./ask_agent.ts";
import { chooseAgents } from "./choose.ts";
import { makeMarker, presentMarkers, removeMarkers, whyMarkerIgnored } from "./marker_file.ts";
import { duration } from "../../observe/words.ts";
import { jobInWords } from "./show_status.ts";

/** How often an agent is looked at while it is waited for. */
const LOOK_MS = 500;

/** Supervisors start an agent again within seconds; systemd's unit of ours within one minute. */
export const COMES_BACK_MS = 90_000;

/** How often a person who waits is told what for. */
const TELL_MS = 60_000;

/** Not done in the time that was given; the request stays. */
const LATE_STATUS = 3;

/** What became of a request; `late`: it is not done yet. */
type Outcome = "done" | "refused" | "late";

/** A request: says what it is about, and what became of it. */
type Request = (agent: AgentRef, answer: AgentAnswer, talk: Talk) => Promise<Outcome>;

/** What a request has besides the agent. */
interface Talk {
  /** A line about this agent. */
  say(text: string): void;
  /** Milliseconds to wait until it is done; undefined: not at all. */
  waitMs: number | undefined;
  comment: string;
  clock: Clock;
}

/** What a command is about, and with. */
export interface RequestOptions {
  request: Request;
  /** @default the clock on the wall */
  clock?: Clock;
  /** Where agents are looked for. @default where they are on every host */
  places?: AgentPlaces;
}

/** Does a request for each agent that the command line names. */
export async function runRequest(
  line: CommandLine,
  io: Io,
  { request, clock = systemClock, places }: RequestOptions,
): Promise<number> {
  const { timeout } = line.values;
  if (timeout !== undefined && !/^\d{1,9}$/.test(timeout)) {
    io.stderr(`--timeout must be a whole number of seconds: it is '${timeout}'\n`);
    return USAGE_STATUS;
  }
  const waitMs = timeout !== undefined
    ? Number(timeout) * 1000
    : line.switches.has("wait")
    ? Infinity
    : undefined;
  const chosen = await chooseAgents(line, io, { manyByDefault: false, places });
  if (chosen === undefined) return USAGE_STATUS;
  const outcomes = await Promise.all(chosen.agents.map(async (agent): Promise<Outcome> => {
    const say = (text: string) => io.stdout(`${agent.id}: ${text}\n`);
    const why = await whyMarkerIgnored(agent);
    if (why !== undefined) {
      say(why);
      return "refused";
    }
    const comment = line.values.comment ?? "";
    try {
      return await request(agent, await askAgent(agent), { say, waitMs, comment, clock });
    } catch (error) {
      say(messageOf(error));
      return "refused";
    }
  }));
  if (!chosen.isComplete || outcomes.includes("refused")) return 1;
  return outcomes.includes("late") ? LATE_STATUS : 0;
}

/** Asks for a restart as soon as no job runs. */
export const requestRestart: Request = async (agent, answer, talk) => {
  const { say, waitMs } = talk;
  if (answer.kind === "stopped") {
    say(`does not run, so there is nothing to restart; ${await startHint(agent)}`);
    return "refused";
  }
  await makeMarker(agent, "RESTART", "");
  if (answer.kind === "silent") {
    say(`is asked to restart by a marker file, but it does not answer: ${answer.why}`);
    return waitMs === undefined ? "done" : await markerGone(agent, "RESTART", talk);
  }
  const { status } = answer;
  const isOffline = ["offline", "maintenance"].includes(status.mode?.state ?? "");
  const job = jobInWords(status);
  say(
    isOffline
      ? `restarts when it is online again; it is ${status.mode?.state} now`
      : job === undefined
      ? "restarts now: no job is running"
      : `restarts when this is over: ${job}`,
  );
  if (waitMs === undefined) return "done";
  const isBack = ({ started_at }: AgentStatus) => started_at !== status.started_at;
  return await until(agent, { isSo: isBack, done: "has restarted", ...talk });
};

/** Asks an agent to take no more jobs. */
export const requestOffline: Request = async (agent, answer, talk) => {
  const { say, waitMs, comment } = talk;
  const line = comment.split("\n")[0]?.trim() ?? "";
  const path = await makeMarker(agent, "OFFLINE", line === "" ? "" : `${line}\n`);
  if (answer.kind === "stopped") {
    say(`does not run; when it is started it will be offline, until ${path} is removed`);
    return "done";
  }
  const job = answer.kind === "running" ? jobInWords(answer.status) : undefined;
  say(
    `takes no more jobs${
      job === undefined ? "" : `, and goes offline when this is over: ${job}`
    }; ` +
      "'testflinger-agent online' takes it back",
  );
  if (waitMs === undefined) return "done";
  const isSo = ({ mode, job }: AgentStatus) => mode?.state === "offline" && job === undefined;
  return await until(agent, { isSo, done: "is offline", ...talk });
};

/** Takes a request to be offline back. */
export const requestOnline: Request = async (agent, answer, talk) => {
  const { say, waitMs } = talk;
  const removed = await removeMarkers(agent, "OFFLINE");
  const desired = new StateFile(agent.folder, { debug() {}, info() {}, warning: say, error: say })
    .content.desired;
  if (desired?.own === true) {
    await makeMarker(agent, "ONLINE", "");
    say(
      answer.kind === "stopped"
        ? `does not run; when it is started it takes jobs again; ${await startHint(agent)}`
        : "takes jobs again: it had gone offline by itself",
    );
    if (waitMs === undefined || answer.kind === "stopped") return "done";
    return await until(agent, { isSo: isOnline, done: "is online", ...talk });
  }
  if (desired !== undefined) {
    const because = desired.comment === ""
      ? ""
      : `: ${showText(desired.comment).replaceAll("\n", " ")}`;
    say(
      `${removed.length > 0 ? "the marker file is removed, but it" : "it"} stays ${desired.state}` +
        `${because}. That was not asked for on this host but is kept on the server: set it online ` +
        `there, on its web page or with 'testflinger-cli admin set agent-status --status online ` +
        `--agents ${agent.id}'`,
    );
    return "refused";
  }
  if (answer.kind === "stopped") {
    if (removed.length === 0) {
      say(`does not run, and was not asked on this host to be offline; ${await startHint(agent)}`);
      return "refused";
    }
    say(`does not run; when it is started it takes jobs again; ${await startHint(agent)}`);
    return "done";
  }
  if (removed.length === 0) say("was not asked on this host to be offline");
  else say("takes jobs again");
  if (waitMs === undefined) return "done";
  return await until(agent, { isSo: isOnline, done: "is online", ...talk });
};

function isOnline({ mode }: AgentStatus): boolean {
  return mode !== undefined && mode.state !== "offline" && mode.state !== "maintenance";
}

interface Until extends Talk {
  isSo(status: AgentStatus): boolean;
  /** What is said in the end. */
  done: string;
}

/** Waits until something is so. `refused`: the agent has ended meanwhile and does not come back. */
async function until(agent: AgentRef, { isSo, done, ...talk }: Until): Promise<Outcome> {
  const { say, clock } = talk;
  const wait = new Wait(talk);
  let missingSince: number | undefined;
  while (true) {
    const now = await askAgent(agent);
    if (now.kind === "running" && isSo(now.status)) {
      say(done);
      return "done";
    }
    if (now.kind === "running") missingSince = undefined;
    else missingSince ??= clock.monotonic();
    if (clock.monotonic() - (missingSince ?? Infinity) > COMES_BACK_MS) {
      say(`has ended, and nothing has started it again; ${await startHint(agent)}`);
      return "refused";
    }
    if (await wait.isOver(waitedFor(now))) return "late";
  }
}

/** What keeps an agent from doing what it is asked. */
function waitedFor(answer: AgentAnswer): string {
  if (answer.kind === "stopped") return "it does not run; its supervisor has to start it again";
  if (answer.kind === "silent") return `it does not say what it is doing: ${answer.why}`;
  const { mode } = answer.status;
  const job = jobInWords(answer.status);
  if (job !== undefined) return job;
  const isOffline = ["offline", "maintenance"].includes(mode?.state ?? "");
  return isOffline ? `it is ${mode?.state}, and that comes first` : "its next look at the request";
}

/** Waiting that has a limit, and tells of itself. */
class Wait {
  readonly #talk: Talk;
  readonly #since: number;
  #saidAt: number;

  constructor(talk: Talk) {
    this.#talk = talk;
    this.#since = talk.clock.monotonic();
    this.#saidAt = this.#since;
  }

  /** Sleeps for a moment; true, and said so, when the time is over. */
  async isOver(what: string): Promise<boolean> {
    const { say, clock, waitMs = 0 } = this.#talk;
    const waited = clock.monotonic() - this.#since;
    if (waited >= waitMs) {
      say(`is not done after ${duration(waitMs / 1000)}, and stays asked for; waits for: ${what}`);
      return true;
    }
    if (clock.monotonic() - this.#saidAt >= TELL_MS) {
      this.#saidAt = clock.monotonic();
      say(`waits for: ${what}`);
    }
    await clock.sleep(Math.min(LOOK_MS, waitMs - waited));
    return false;
  }
}

/** Waits for an agent that cannot be asked: it removes the marker when it has taken the request. */
async function markerGone(agent: AgentRef, kind: MarkerKind, talk: Talk): Promise<Outcome> {
  const wait = new Wait(talk);
  while ((await presentMarkers(agent, kind)).length > 0) {
    if (await wait.isOver(waitedFor(await askAgent(agent)))) return "late";
  }
  talk.say("has taken the request");
  return "done";
}

/** What to do about an agent that does not run, as half a sentence. */
export async function startHint(agent: AgentRef): Promise<string> {
  const start = await startCommand(agent);
  return agent.mistake === undefined ? `start it: ${start}` : `it cannot start, ${agent.mistake}`;
}

/** How an agent is started, where it was set up by install.sh. */
async function startCommand({ file }: AgentRef): Promise<string> {
  if (await isOfInstalledHost(file)) return "systemctl start testflinger-agents";
  const name = /^\/etc\/testflinger-agent\/([^/]+)\/testflinger-agent\.conf$/.exec(file)?.[1];
  return name === undefined
    ? `testflinger-agent -c ${file}`
    : `systemctl start testflinger-agent@${name}`;
}
