/** Whether the server would have this agent. Nothing is posted but the exchange of the token. */
import { sharedLockPath } from "../../agent/lock.ts";
import { markerPaths } from "../../agent/markers.ts";
import * as z from "zod";
import { isOfEnd } from "../../agent/desired_state.ts";
import type { Log } from "../../log.ts";
import { showText } from "../../observe/output_text.ts";
import { duration } from "../../observe/words.ts";
import type { CallFailure } from "../../server/classify.ts";
import { Received } from "../../server/exchange.ts";
import { AgentRecord, TokenAnswer } from "../../server/schema.ts";
import { Connections } from "../../server/connections.ts";
import { Transport } from "../../server/transport.ts";
import { canRead } from "../agents/agent_user.ts";
import { readFailure } from "../../config/source_text.ts";
import { lockHolder } from "../agents/lock_holder.ts";
import {
  type Check,
  type CheckResult,
  type Examined,
  failed,
  ok,
  skipped,
  warning,
} from "./check_result.ts";

const CALL_LIMIT_MS = 15_000;
const ANSWER_BYTES = 1024 * 1024;

/** Beyond this, times in logs mislead, and certificates and tokens seem to begin or end. */
const MOST_SKEW_MS = 60_000;

/** A living agent posts once a minute. */
const FRESH_MS = 150_000;

const silent: Log = { debug() {}, info() {}, warning() {}, error() {} };

/** Everything about the server, in the order in which one thing needs the other. */
export const serverChecks: Check = async (examined) => {
  const { config } = examined.agent;
  // The runtime's certificates and proxies, as the agent has them.
  const connections = new Connections(examined.clock);
  const transport = new Transport({
    connections,
    address: config.server_address,
    basic: undefined,
    clock: examined.clock,
    log: silent,
    cookie: () => undefined,
    onAnswer: undefined,
  });
  try {
    const reached = await reach(transport, examined);
    const [first] = reached;
    if (first?.result === "failed") {
      return [...reached, ...["token", "role", "agent"].map(notAsked)];
    }
    const token = await tokenOf(transport, examined);
    if (token.checkResult.result === "failed") {
      return [...reached, token.checkResult, ...["role", "agent"].map(notAsked)];
    }
    const role = await roleOf(transport, token.text);
    const checkResults = [...reached, token.checkResult, role];
    if (role.result === "failed") return [...checkResults, notAsked("agent")];
    return [...checkResults, await recordOf(transport, examined, token.text)];
  } finally {
    transport.close();
    connections.close();
  }
};

function notAsked(check: string): CheckResult {
  return skipped(check, "not asked, because of what is above");
}

async function reach(transport: Transport, { agent, clock }: Examined): Promise<CheckResult[]> {
  const { server_address: address } = agent.config;
  const answer = await transport.send({ method: "GET", path: "/v1/", limitMs: CALL_LIMIT_MS });
  if (!(answer instanceof Received)) {
    if (answer.status !== undefined && answer.status < 500) {
      return [notTestflinger(answer.message), skipped("clock", "no server to compare with")];
    }
    return [
      failed("server", answer.message, adviceFor(answer, address)),
      skipped("clock", "no server to compare with"),
    ];
  }
  const { bytes } = await answer.readAll(ANSWER_BYTES);
  const text = new TextDecoder().decode(bytes).trim();
  const date = Date.parse(answer.headers.get("date") ?? "");
  if (!/^testflinger server/i.test(text)) {
    return [
      notTestflinger(`${address}/v1/ answers '${showText(text).slice(0, 60).split("\n")[0]}'`),
      skipped("clock", "no server to compare with"),
    ];
  }
  return [
    ok("server", `${address} answers: ${showText(text).slice(0, 60)}`),
    skewOf(date - clock.now()),
  ];
}

function notTestflinger(message: string): CheckResult {
  return failed(
    "server",
    `what answers there is no Testflinger server: ${message}`,
    "correct server_address: the address of the server itself, without /v1 and without a page's path",
  );
}

function adviceFor({ message }: CallFailure, address: string): string {
  if (/certificate|UnknownIssuer/i.test(message)) {
    return /expired|not valid yet|NotValidYet/i.test(message)
      ? "have the server's certificate renewed; or this host's clock is wrong (see 'date')"
      : "name the authority's certificate in SSL_CERT_FILE, for the agent too (its environment file)";
  }
  if (/dns|lookup|resolve/i.test(message)) {
    return "correct the name in server_address, or this host's DNS";
  }
  if (/timed? ?out|no answer within|time/i.test(message)) {
    return `is a firewall or a proxy between this host and ${address}? Try: curl -v ${address}/v1/`;
  }
  return `does the server run, and is the port right? Try: curl -v ${address}/v1/`;
}

function skewOf(ms: number): CheckResult {
  if (Number.isNaN(ms)) return skipped("clock", "the server does not tell the time");
  const away = `${duration(Math.abs(ms) / 1000)} ${ms > 0 ? "behind" : "ahead of"} the server's`;
  if (Math.abs(ms) <= MOST_SKEW_MS) return ok("clock", "agrees with the server's");
  return failed(
    "clock",
    `this host's clock is ${away}`,
    "have NTP set both ('timedatectl set-ntp true'): times in logs mislead, and certificates fail",
  );
}

/** The access token, or undefined where there is none; and what to say about it. */
async function tokenOf(
  transport: Transport,
  { tokenFile, user }: Examined,
): Promise<{ checkResult: CheckResult; text?: string }> {
  const issue = 'have one issued for an agent, and put {"refresh_token": "..."} into it';
  let text: string;
  let mode: number | null;
  try {
    ({ mode } = await Deno.stat(tokenFile));
    text = await Deno.readTextFile(tokenFile);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      return {
        checkResult: ok("token", `there is no ${tokenFile}: the server is asked without one`),
      };
    }
    return {
      checkResult: failed(
        "token",
        `${tokenFile} cannot be read: ${readFailure(error)}`,
        error instanceof Deno.errors.PermissionDenied
          ? `give it to ${user.name}, mode 0600 (and run this as that user, or root)`
          : "name the file with the token: --token-file, or token_file in the configuration",
      ),
    };
  }
  if (!await canRead(tokenFile, user)) {
    const message = `${tokenFile} cannot be read by ${user.name}, the agent's user`;
    return {
      checkResult: failed(
        "token",
        message,
        `chown ${user.name} ${tokenFile}; chmod 0600 ${tokenFile}`,
      ),
    };
  }
  const file = z.looseObject({ refresh_token: z.string().min(1) }).safeParse(parsed(text));
  if (!file.success) {
    return { checkResult: failed("token", `${tokenFile} holds no refresh_token`, issue) };
  }
  const { refresh_token: refreshToken } = file.data;
  const answer = await transport.send({
    method: "POST",
    path: "/v1/oauth2/refresh",
    body: { type: "application/json", content: JSON.stringify({ refresh_token: refreshToken }) },
    limitMs: CALL_LIMIT_MS,
    anonymous: true,
    secret: refreshToken,
  });
  if (!(answer instanceof Received)) {
    if (answer.status === 404 || answer.status === 405) {
      return { checkResult: ok("token", "the server is older than tokens: none is needed") };
    }
    return {
      checkResult: failed(
        "token",
        `the server refuses that of ${tokenFile}: ${answer.message}`,
        issue,
      ),
    };
  }
  const { bytes } = await answer.readAll(ANSWER_BYTES);
  const grant = TokenAnswer.safeParse(parsed(new TextDecoder().decode(bytes)));
  if (!grant.success) {
    return {
      checkResult: failed(
        "token",
        "the server's answer holds no token",
        "is it a Testflinger server?",
      ),
    };
  }
  const checkResult = ((mode ?? 0) & 0o004) === 0
    ? ok("token", `the server takes that of ${tokenFile}`)
    : warning(
      "token",
      `the server takes that of ${tokenFile}, which every account on this host may read`,
      `chmod 0600 ${tokenFile}`,
    );
  return { checkResult, text: grant.data.access_token };
}

/** Asks for a job from no queue at all: only who may ask for jobs is told that a queue is lacking. */
async function roleOf(transport: Transport, token: string | undefined): Promise<CheckResult> {
  const answer = await transport.send(
    { method: "GET", path: "/v1/job", limitMs: CALL_LIMIT_MS, once: true },
    { token },
  );
  if (answer instanceof Received) {
    answer.release();
    return ok("role", "this agent may ask for jobs");
  }
  const { status, message } = answer;
  if (status === 400 || status === 401 && /not identified/i.test(message)) {
    return ok("role", "this agent may ask for jobs");
  }
  if (status === 401 || status === 403) {
    return failed(
      "role",
      `with its present credentials the agent may not ask for jobs: ${message}`,
      token === undefined
        ? "it wants a token: have one of the role 'agent' issued, and put it into the token file"
        : "the token has another role: have one of the role 'agent' issued",
    );
  }
  return failed("role", message, "the server itself has a problem: contact its administrator");
}

/** Whether a marker file asks for it: then the server only shows what the check of those tells of. */
async function isAskedHere(agentId: string, sharedFolder: string): Promise<boolean> {
  for (const path of markerPaths("OFFLINE", { agentId, folder: sharedFolder })) {
    if (await Deno.lstat(path).then(() => true, () => false)) return true;
  }
  return false;
}

async function recordOf(
  transport: Transport,
  { agent, clock, sharedFolder }: Examined,
  token: string | undefined,
): Promise<CheckResult> {
  const { agent_id: id } = agent.config;
  const path = `/v1/agents/data/${encodeURIComponent(id.toWellFormed())}`;
  const answer = await transport.send({ method: "GET", path, limitMs: CALL_LIMIT_MS }, { token });
  // With other folders it would be a mistake of its own, which the check of the lock tells of.
  const holder = await lockHolder(`${agent.folder}/lock`) ??
    await lockHolder(sharedLockPath(sharedFolder, id));
  if (!(answer instanceof Received)) {
    if (answer.status === 404) {
      return holder === undefined
        ? ok("agent", `'${id}' is not known to the server; its first start makes it known`)
        : failed(
          "agent",
          `'${id}' runs here, and the server does not know it`,
          "see the agent's log: testflinger-agent logs",
        );
    }
    return failed(
      "agent",
      answer.message,
      "the server itself has a problem: contact its administrator",
    );
  }
  const { bytes } = await answer.readAll(ANSWER_BYTES);
  const record = AgentRecord.safeParse(parsed(new TextDecoder().decode(bytes)));
  if (!record.success) {
    return failed("agent", "the server's answer is not valid", "is it a Testflinger server?");
  }
  const { state, comment, updated_at } = record.data;
  const because = comment ? `: ${showText(comment).replaceAll("\n", " ")}` : "";
  const heard = typeof updated_at === "string" ? Date.parse(updated_at) : NaN;
  // An agent that has ended says one of these two last.
  const hasEnded = state === "offline" || state === "restart";
  if (holder === undefined && clock.now() - heard < FRESH_MS && !hasEnded) {
    return warning(
      "agent",
      `'${id}' does not run on this host, and the server has heard of it ${
        duration((clock.now() - heard) / 1000)
      } ago`,
      "does another host have an agent of the same agent_id? Each needs its own",
    );
  }
  if (state === "offline" && await isAskedHere(id, sharedFolder)) {
    return ok("agent", `the server has '${id}' as offline, as a file on this host asks`);
  }
  if ((state === "offline" || state === "maintenance") && !isOfEnd(comment ?? "")) {
    return warning(
      "agent",
      `the server has '${id}' as ${state}${because}`,
      "it takes no jobs until it is set online on the server",
    );
  }
  return ok("agent", `the server has '${id}' as ${state ?? "unknown"}${because}`);
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
