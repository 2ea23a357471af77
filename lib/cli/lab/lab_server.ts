/** A Testflinger server as a person who submits jobs sees it. */
import * as z from "zod";
import { serverAddress } from "../../config/agent_config.ts";
import { foreignLine } from "../../server/classify.ts";
import { describeNoAnswer } from "../../server/exchange.ts";
import { type CommandLine, type Flag, type Io, USAGE_STATUS } from "../command.ts";

const CALL_LIMIT_MS = 30_000;
/** Attachments and artifacts may be large, and the line slow. */
const TRANSFER_LIMIT_MS = 600_000;
const SANDBOX = "http://127.0.0.1:5000";
const SHOWN_CHARS = 300;

/** Which server, and as whom. */
export const SERVER_FLAGS: readonly Flag[] = [
  {
    name: "server",
    short: "s",
    value: "URL",
    help: `the server (default: $TESTFLINGER_SERVER, else the sandbox: ${SANDBOX})`,
  },
  {
    name: "client-id",
    value: "ID",
    help:
      "for servers with authentication (default: $TESTFLINGER_CLIENT_ID); its secret must be in " +
      "$TESTFLINGER_SECRET_KEY",
  },
];

/** An answer, or what is wrong in one line. */
export type LabAnswer = { ok: true; response: Response } | {
  ok: false;
  status: number | undefined;
  message: string;
};

type Read = { ok: true; server: LabServer } | { ok: false; message: string };

const Token = z.object({ access_token: z.string() });

/** The server that a command line names. The secret of a client is in the environment alone. */
export class LabServer {
  readonly address: string;
  readonly #login: string | undefined;
  #token: string | undefined;

  /** @param login a client's name and secret, with a colon between them. */
  private constructor(address: string, login: string | undefined) {
    this.address = address;
    this.#login = login === undefined
      ? undefined
      : `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(login)))}`;
  }

  /** Reads the command line and the environment. */
  static read({ values }: CommandLine, env: Readonly<Record<string, string>>): Read {
    const { TESTFLINGER_SERVER: fromEnv = "" } = env;
    const setting = values.server === undefined ? "TESTFLINGER_SERVER" : "--server";
    const given = serverAddress.safeParse(values.server ?? (fromEnv === "" ? SANDBOX : fromEnv));
    if (!given.success) {
      return { ok: false, message: `${setting} ${given.error.issues[0]?.message}` };
    }
    const clientId = values["client-id"] ?? env.TESTFLINGER_CLIENT_ID ?? "";
    const secret = env.TESTFLINGER_SECRET_KEY ?? "";
    if (clientId !== "" && secret === "") {
      const message = `The client '${foreignLine(clientId)}' has no secret: set ` +
        "TESTFLINGER_SECRET_KEY in the environment";
      return { ok: false, message };
    }
    const login = clientId === "" ? undefined : `${clientId}:${secret}`;
    return { ok: true, server: new LabServer(given.data, login) };
  }

  /** Asks; with a token where there is a client, a new one when it has expired. */
  async call(path: string, init: RequestInit = {}): Promise<LabAnswer> {
    const refused = await this.#logIn();
    if (refused !== undefined) return refused;
    const first = await this.#send(path, init);
    if (first.ok || first.status !== 401 || this.#token === undefined) return first;
    this.#token = undefined;
    return await this.#logIn() ?? await this.#send(path, init);
  }

  async #logIn(): Promise<LabAnswer & { ok: false } | undefined> {
    if (this.#login === undefined || this.#token !== undefined) return undefined;
    const headers = { authorization: this.#login };
    const answer = await this.#send("/v1/oauth2/token", { method: "POST", headers });
    if (!answer.ok) {
      // An older server has no tokens.
      return answer.status === 404 || answer.status === 405 ? undefined : answer;
    }
    const grant = Token.safeParse(await answer.response.json().catch(() => undefined));
    if (grant.success) this.#token = grant.data.access_token;
    return grant.success ? undefined : {
      ok: false,
      status: undefined,
      message: `${this.address} gives no token: is it a Testflinger server?`,
    };
  }

  async #send(path: string, init: RequestInit): Promise<LabAnswer> {
    const what = `${init.method ?? "GET"} ${this.address}${path}`;
    const headers = new Headers(init.headers);
    if (this.#token !== undefined) headers.set("authorization", `Bearer ${this.#token}`);
    const isTransfer = /\/(attachments|artifact)$/.test(path);
    const limitMs = isTransfer ? TRANSFER_LIMIT_MS : CALL_LIMIT_MS;
    const limit = AbortSignal.timeout(limitMs);
    try {
      const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
      const response = await fetch(`${this.address}${path}`, { ...init, headers, signal });
      if (response.ok) return { ok: true, response };
      const text = (await response.text()).replaceAll(/\s+/g, " ").trim().slice(0, SHOWN_CHARS);
      const { status, statusText } = response;
      const message = `${what}: ${status} ${statusText}${text === "" ? "" : `: ${text}`}`;
      return { ok: false, status, message };
    } catch (error) {
      const reason = limit.aborted
        ? `no whole answer within ${limitMs / 1000} s`
        : describeNoAnswer(error, "--server");
      const hint = this.address === SANDBOX ? " (start one with: testflinger-agent sandbox)" : "";
      return { ok: false, status: undefined, message: `${what}: ${reason}${hint}` };
    }
  }
}

/** The server of a command; what is wrong with its address is told, and there is an exit status. */
export function readServer(line: CommandLine, io: Io): LabServer | number {
  const read = LabServer.read(line, Deno.env.toObject());
  if (read.ok) return read.server;
  io.stderr(`${read.message}\n`);
  return USAGE_STATUS;
}
