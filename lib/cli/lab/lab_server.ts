/** A Testflinger server as a person who submits jobs sees it. */
import * as z from "zod";
import { messageOf } from "../../message.ts";
import type { CommandLine, Flag } from "../command.ts";

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
    help: "for servers with authentication (default: $TESTFLINGER_CLIENT_ID)",
  },
];

/** An answer, or what is wrong in one line. */
export type LabAnswer = { ok: true; response: Response } | {
  ok: false;
  status: number | undefined;
  message: string;
};

const Token = z.object({ access_token: z.string() });

/** The server that a command line names. The secret of a client is in the environment alone. */
export class LabServer {
  readonly address: string;
  readonly #login: string | undefined;
  #token: string | undefined;

  constructor({ values }: CommandLine, env: Readonly<Record<string, string>>) {
    const address = values.server ?? env.TESTFLINGER_SERVER ?? SANDBOX;
    this.address = (/^https?:\/\//i.test(address) ? address : `http://${address}`)
      .replace(/\/+$/, "");
    const clientId = values["client-id"] ?? env.TESTFLINGER_CLIENT_ID;
    const secret = env.TESTFLINGER_SECRET_KEY;
    this.#login = clientId === undefined || secret === undefined
      ? undefined
      : `Basic ${btoa(String.fromCharCode(...new TextEncoder().encode(`${clientId}:${secret}`)))}`;
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
    const limit = AbortSignal.timeout(isTransfer ? TRANSFER_LIMIT_MS : CALL_LIMIT_MS);
    try {
      const signal = init.signal ? AbortSignal.any([init.signal, limit]) : limit;
      const response = await fetch(`${this.address}${path}`, { ...init, headers, signal });
      if (response.ok) return { ok: true, response };
      const text = (await response.text()).replaceAll(/\s+/g, " ").trim().slice(0, SHOWN_CHARS);
      const { status, statusText } = response;
      const message = `${what}: ${status} ${statusText}${text === "" ? "" : `: ${text}`}`;
      return { ok: false, status, message };
    } catch (error) {
      const hint = this.address === SANDBOX ? " (start one with: testflinger-agent sandbox)" : "";
      return { ok: false, status: undefined, message: `${what}: ${messageOf(error)}${hint}` };
    }
  }
}
