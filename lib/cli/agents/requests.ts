/** What `restart`, `offline` and `online` do: ask an agent for something, and watch it happen. */
import type { MarkerKind } from "../../agent/markers.ts";
import { Memory } from "../../agent/memory.ts";
import { systemClock } from "../../clock.ts";
import type { AgentStatus } from "../../observe/status_schema.ts";
import { showText } from "../../observe/output_text.ts";
import type { CommandLine, Io } from "../command.ts";
import type { AgentRef } from "./agent_ref.ts";
import { type AgentAnswer, askAgent } from "./ask_agent.ts";
import { chooseAgents } from "./choose.ts";
import { makeMarker, presentMarkers, removeMarkers, whyNotHeeded } from "./marker_file.ts";
import { jobInWords } from "./show_status.ts";

/** How often an agent is looked at while it is waited for. */
const LOOK_MS = 500;

/** Supervisors start an agent again within seconds; systemd's unit of ours within one minute. */
const COMES_BACK_MS = 90_000;

/** A request: says what it is about, and whether it was granted. */
type Request = (agent: AgentRef, answer: AgentAnswer, talk: Talk) => Promise<boolean>;

/** What a request has besides the agent. */
interface Talk {
  /** A line about this agent. */
  say(text: string): void;
  /** Whether to wait until it is done. */
  wait: boolean;
  comment: string;
}

/** Does a request for each agent that the command line names. */
export async function runRequest(line: CommandLine, io: Io, request: Request): Promise<number> {
  const agents = await chooseAgents(line, io, { manyByDefault: false });
  if (agents === undefined) return 1;
  const granted = await Promise.all(agents.map(async (agent) => {
    const say = (text: string) => io.stdout(`${agent.config.agent_id}: ${text}\n`);
    const why = await whyNotHeeded(agent);
    if (why !== undefined) {
      say(why);
      return false;
    }
    try {
      return await request(agent, await askAgent(agent), {
        say,
        wait: line.switches.has("wait"),
        comment: line.values.comment ?? "",
      });
    } catch (error) {
      say(error instanceof Error ? error.message : String(error));
      return false;
    }
  }));
  return granted.every(Boolean) ? 0 : 1;
}

/** Asks for a restart as soon as no job runs. */
export const requestRestart: Request = async (agent, answer, { say, wait }) => {
  if (answer.kind === "stopped") {
    say(`does not run, so there is nothing to restart; start it: ${startHint(agent)}`);
    return false;
  }
  await makeMarker(agent, "RESTART", "");
  if (answer.kind === "silent") {
    say(`is asked to restart by a marker file, but it does not answer: ${answer.why}`);
    return wait ? await markerGone(agent, "RESTART", say) : true;
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
  if (!wait) return true;
  const isBack = ({ started_at }: AgentStatus) => started_at !== status.started_at;
  if (!await until(agent, isBack, say)) return false;
  say("has restarted");
  return true;
};

/** Asks an agent to take no more jobs. */
export const requestOffline: Request = async (agent, answer, { say, wait, comment }) => {
  const line = comment.split("\n")[0]?.trim() ?? "";
  const path = await makeMarker(agent, "OFFLINE", line === "" ? "" : `${line}\n`);
  if (answer.kind === "stopped") {
    say(`does not run; when it is started it will be offline, until ${path} is removed`);
    return true;
  }
  const job = answer.kind === "running" ? jobInWords(answer.status) : undefined;
  say(
    `takes no more jobs${
      job === undefined ? "" : `, and goes offline when this is over: ${job}`
    }; ` +
      "'testflinger-agent online' takes it back",
  );
  if (!wait) return true;
  const isSo = ({ mode, job }: AgentStatus) => mode?.state === "offline" && job === undefined;
  if (!await until(agent, isSo, say)) return false;
  say("is offline");
  return true;
};

/** Takes a request to be offline back. */
export const requestOnline: Request = async (agent, answer, { say, wait }) => {
  const removed = await removeMarkers(agent, "OFFLINE");
  const wish = new Memory(agent.folder, { debug() {}, info() {}, warning: say, error: say })
    .content.wish;
  if (wish !== undefined) {
    const because = wish.comment === "" ? "" : `: ${showText(wish.comment).replaceAll("\n", " ")}`;
    say(
      `${removed.length > 0 ? "the marker file is removed, but it" : "it"} stays ${wish.state}` +
        `${because}. That was not asked for on this host but is kept on the server: set it online ` +
        `there, on its web page or with 'testflinger-cli admin set agent-status --status online ` +
        `--agents ${agent.config.agent_id}'`,
    );
    return false;
  }
  if (answer.kind === "stopped") {
    say(`does not run; start it: ${startHint(agent)}`);
    return false;
  }
  if (removed.length === 0) say("was not asked on this host to be offline");
  else say("takes jobs again");
  if (!wait) return true;
  const isSo = ({ mode }: AgentStatus) => mode !== undefined && mode.state !== "offline";
  if (!await until(agent, isSo, say)) return false;
  say("is online");
  return true;
};

/** Waits until something is so; false when the agent ends meanwhile and does not come back. */
async function until(
  agent: AgentRef,
  isSo: (status: AgentStatus) => boolean,
  say: (text: string) => void,
): Promise<boolean> {
  let missingSince: number | undefined;
  while (true) {
    const now = await askAgent(agent);
    if (now.kind === "running" && isSo(now.status)) return true;
    if (now.kind === "running") missingSince = undefined;
    else missingSince ??= systemClock.monotonic();
    if (systemClock.monotonic() - (missingSince ?? Infinity) > COMES_BACK_MS) {
      say(`has ended, and nothing has started it again: ${startHint(agent)}`);
      return false;
    }
    await systemClock.sleep(LOOK_MS);
  }
}

async function markerGone(
  agent: AgentRef,
  kind: MarkerKind,
  say: (text: string) => void,
): Promise<boolean> {
  while ((await presentMarkers(agent, kind)).length > 0) await systemClock.sleep(LOOK_MS);
  say("has taken the request");
  return true;
}

/** How an agent is started, where it was set up by install.sh. */
function startHint({ file }: AgentRef): string {
  const name = /^\/etc\/testflinger-agent\/([^/]+)\/testflinger-agent\.conf$/.exec(file)?.[1];
  return name === undefined
    ? `testflinger-agent -c ${file}`
    : `systemctl start testflinger-agent@${name}`;
}
