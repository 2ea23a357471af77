/** A way to the server on which, from a seed, whatever can go wrong with HTTP does. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Sandbox } from "../../lib/sandbox/sandbox.ts";
import {
  cut,
  dripOn,
  PAGE_STATUSES,
  type RealAnswer,
  refuse,
  refuseRole,
  refuseToken,
  showPage,
  stall,
  STATUSES,
} from "./odd_answers.ts";
import type { Random } from "./random.ts";

/** What can happen to a request. */
export const FAULTS = [
  "delay",
  "reset before",
  "reset after",
  "truncate",
  "status before",
  "status after",
  "away",
  "page before",
  "page after",
  "portal",
  "stall",
  "endless",
  "403 token",
  "403 role",
] as const;
export type Fault = typeof FAULTS[number];

/** Of all requests so many meet a fault while there are faults. */
const FAULT_RATE = 0.2;
const LONGEST_DELAY_MS = 400;
const LONGEST_AWAY_MS = 1500;

/** A request of the simulation's own. */
const FENCE = "/fence";

/** A proxy that listens. */
export interface FaultyProxy {
  readonly url: string;
  /** How often each fault was injected. */
  readonly injected: Record<Fault, number>;
  /** Ids of the jobs that the server handed out. */
  readonly handedOut: ReadonlySet<string>;
  /** Those of them that were handed to somebody who had stopped listening: see docs/reliability.md. */
  readonly handedToNobody: ReadonlySet<string>;
  /** Those of them whose description was cut off on its way, or never came to its end. */
  readonly cutOff: ReadonlySet<string>;
  /** From now on no job is handed out; resolves when none is on its way any more. */
  holdJobs(): Promise<void>;
  /** From now on jobs are handed out again: who asks for them is still there. */
  handOutJobs(): void;
  /**
   * To be called when the agent has ended: what it had asked for is handed to nobody, also when its
   * question is read only now. The next agent's is answered again.
   */
  forgetAgent(): Promise<void>;
  /** From now on every request gets through. */
  calmDown(): void;
  close(): Promise<void>;
}

/** Starts a proxy before `sandbox`. */
export async function startFaultyProxy(sandbox: Sandbox, random: Random): Promise<FaultyProxy> {
  const injected = Object.fromEntries(FAULTS.map((fault) => [fault, 0])) as Record<Fault, number>;
  const handedOut = new Set<string>();
  const handedToNobody = new Set<string>();
  const cutOff = new Set<string>();
  const connections = new Set<Socket>();
  const ofDeadAgents = new WeakSet<Socket>();
  const offersUnderWay = new Set<Promise<void>>();
  let isHoldingJobs = false;
  let calm = false;
  let awayUntil = 0;
  /** What a portal shows in the server's place, and until when. */
  let portal = { status: 0, until: 0 };
  /** Answers that would not end by themselves. */
  const unending = new Set<ServerResponse>();

  const handle = async (request: IncomingMessage, response: ServerResponse) => {
    if (request.url === FENCE) return void response.end();
    if (!calm && performance.now() < awayUntil) return void request.socket.destroy();
    const isShown = !calm && performance.now() < portal.until;
    const fault = !calm && !isShown && random.chance(FAULT_RATE) ? random.pick(FAULTS) : undefined;
    if (fault !== undefined) injected[fault]++;
    if (fault === "away") {
      awayUntil = performance.now() + random.int(100, LONGEST_AWAY_MS);
      return void request.socket.destroy();
    }
    if (fault === "portal") {
      const until = performance.now() + random.int(100, LONGEST_AWAY_MS);
      portal = { status: random.pick(PAGE_STATUSES), until };
    }
    if (fault === "reset before") return void request.socket.destroy();
    const body = await bodyOf(request);
    if (body === undefined) return; // The agent has gone: a request that was cut does not arrive.
    if (isShown || fault === "portal") return showPage(response, portal.status);
    if (fault === "delay") {
      await new Promise((resolve) => setTimeout(resolve, random.int(1, LONGEST_DELAY_MS)));
      if (request.socket.destroyed) return;
    }
    if (fault === "status before") return refuse(response, random.pick(STATUSES), random);
    if (fault === "page before") return showPage(response, random.pick(PAGE_STATUSES));
    if (fault === "403 token") return refuseToken(response, random);
    if (fault === "403 role") return refuseRole(response);
    if (isJobQuestion(request) && (isHoldingJobs || ofDeadAgents.has(request.socket))) {
      return void request.socket.destroy();
    }
    const asked = askSandbox(request, body);
    const inFlight = asked.then(() => {});
    offersUnderWay.add(inFlight);
    const { answer, offer } = await asked.finally(() => offersUnderWay.delete(inFlight));
    const { length } = answer.content;
    // Of a job that is handed out the agent reads the id at least: then it can still be brought to an
    // end. One that is lost before is beyond anyone's reach: see docs/reliability.md.
    const at = random.int(offer?.readable ?? 0, Math.max(0, length - 1));
    const isCutting = fault === "truncate" || fault === "stall" || fault === "endless";
    if (isCutting && offer !== undefined) cutOff.add(offer.jobId);
    if (fault === "truncate" && length > 1) return cut(response, answer, at);
    if (fault === "stall" || fault === "endless") {
      unending.add(response);
      response.on("close", () => unending.delete(response));
      if (fault === "stall" && length > 1) return stall(response, answer, at);
      if (fault === "endless" && answer.status !== 204) return dripOn(response, answer);
    }
    if (offer === undefined) {
      if (fault === "reset after") return void request.socket.destroy();
      if (fault === "status after") return refuse(response, random.pick([500, 502, 504]), random);
      if (fault === "page after") return showPage(response, random.pick(PAGE_STATUSES));
    }
    response.writeHead(answer.status, answer.headers);
    response.end(answer.content);
  };

  const askSandbox = async (request: IncomingMessage, body: Uint8Array) => {
    const given = await sandbox.fetch(asRequest(request, body));
    const content = new Uint8Array(await given.arrayBuffer());
    const headers = headersOf(given, content.length);
    const answer: RealAnswer = { status: given.status, headers, content };
    const offer = jobOffer(request, answer);
    if (offer !== undefined) {
      handedOut.add(offer.jobId);
      if (request.socket.destroyed) handedToNobody.add(offer.jobId);
    }
    return { answer, offer };
  };

  const server = createServer((request, response) => {
    request.on("error", () => {});
    response.on("error", () => {});
    handle(request, response).catch(() => request.socket.destroy());
  });
  server.on("connection", (socket: Socket) => {
    connections.add(socket);
    socket.on("close", () => connections.delete(socket));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const port = typeof address === "object" && address !== null ? address.port : 0;
  const url = `http://127.0.0.1:${port}`;
  return {
    url,
    injected,
    handedOut,
    handedToNobody,
    cutOff,
    holdJobs: async () => {
      isHoldingJobs = true;
      await Promise.allSettled(offersUnderWay);
    },
    handOutJobs: () => {
      isHoldingJobs = false;
    },
    forgetAgent: async () => {
      isHoldingJobs = true;
      // Connections are accepted in order: when this one is, those of the agent that ended have been.
      const fence = await fetch(`${url}${FENCE}`, { headers: { connection: "close" } });
      await fence.body?.cancel();
      for (const connection of connections) ofDeadAgents.add(connection);
      isHoldingJobs = false;
    },
    calmDown: () => {
      calm = true;
      for (const response of unending) response.socket?.destroy();
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function bodyOf(request: IncomingMessage): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk);
  } catch {
    return undefined;
  }
  if (!request.complete) return undefined;
  const size = chunks.reduce((sum, chunk) => sum + chunk.length, 0);
  const body = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    body.set(chunk, at);
    at += chunk.length;
  }
  return body;
}

function asRequest(request: IncomingMessage, body: Uint8Array): Request {
  const headers = new Headers();
  for (const [name, value] of Object.entries(request.headers)) {
    if (typeof value === "string" && name !== "transfer-encoding") headers.set(name, value);
  }
  const method = request.method ?? "GET";
  return new Request(`http://sandbox${request.url}`, {
    method,
    headers,
    ...(method === "GET" ? {} : { body: new Uint8Array(body) }),
  });
}

function headersOf(answer: Response, length: number): Record<string, string> {
  const headers = Object.fromEntries(answer.headers);
  delete headers["transfer-encoding"];
  return { ...headers, "content-length": String(length) };
}

function isJobQuestion(request: IncomingMessage): boolean {
  return request.url?.startsWith("/v1/job?") ?? false;
}

/** Where in the answer the job's id has been read, when the answer hands out a job. */
function jobOffer(
  request: IncomingMessage,
  { status, content }: RealAnswer,
): { jobId: string; readable: number } | undefined {
  if (!isJobQuestion(request) || status !== 200 || content.length < 3) return undefined;
  const text = new TextDecoder().decode(content);
  const id = /"job_id":\s*"([0-9a-f-]{36})"/.exec(text);
  if (id === null) throw new Error(`Cannot find the id of the job in ${text}`);
  return { jobId: id[1] ?? "", readable: id.index + id[0].length };
}
