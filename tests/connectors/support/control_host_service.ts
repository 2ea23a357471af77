/** The REST service of a control host: a real HTTP server that plays what a test tells it. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { assertEquals, assertStringIncludes } from "@std/assert";
import { type Call, Lab, type Run } from "./lab.ts";

/** A stream of the log: its pieces as they are sent, and how it ends. */
export interface LogStream {
  readonly pieces?: readonly string[];
  /** Status of a refusal, in place of a stream. */
  readonly status?: number;
  /** @default "end" */
  readonly end?: "end" | "reset" | "hang";
}

/** What the service is asked, in order. */
export interface ServiceCall {
  readonly line: string;
  readonly headers: Readonly<Record<string, string | undefined>>;
  readonly body: Uint8Array;
}

/** What the service answers; what is not given is that all goes well. */
export interface ServicePlay {
  /** One for each time that the log is asked for; after the last one they are empty. */
  readonly logs?: readonly LogStream[];
  /** One for each time that the status is asked for; the last one goes on. */
  readonly statuses?: readonly (Record<string, unknown> | string | number)[];
  /** The answer to the request: its status, or its body. */
  readonly submit?: number | string;
  /** Told each call before it is answered. */
  readonly onCall?: (line: string) => void | Promise<void>;
}

/** An event as the service sends it. */
export function entry(message: string, more: { id?: string; level?: string } = {}): string {
  const id = more.id === undefined ? "" : `id: ${more.id}\n`;
  return `${id}data: ${JSON.stringify({ level: more.level ?? "INFO", message })}\n\n`;
}

/** The service. */
export class ControlHostService implements AsyncDisposable {
  readonly calls: ServiceCall[] = [];
  #logs = 0;
  #statuses = 0;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  /** Connections that hang. */
  hanging = 0;

  private constructor(readonly play: ServicePlay) {
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error) => response.destroy(error));
    });
    this.#server.on("connection", (socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
  }

  static async open(play: ServicePlay = {}): Promise<ControlHostService> {
    const service = new ControlHostService(play);
    await service.listen(0);
    return service;
  }

  get port(): number {
    // It listens on TCP.
    return (this.#server.address() as AddressInfo).port;
  }

  /** Configuration of a device with this control host. */
  get config(): Record<string, unknown> {
    return {
      agent_name: "a1",
      device_ip: "10.1.1.1",
      reboot_script: ["pdu cycle"],
      control_host: "127.0.0.1",
      control_host_port: this.port,
    };
  }

  /** What was asked, without its answers: `POST /api/v1/provision`. */
  get lines(): string[] {
    return this.calls.map(({ line }) => line);
  }

  /** The same, but of the provisioning alone. */
  get provisioning(): string[] {
    return this.lines.filter((line) => line.includes("/api/v1/provision"));
  }

  /** What the log was asked for from. */
  get cursors(): (string | undefined)[] {
    return this.calls.filter(({ line }) => line.endsWith("/logs"))
      .map(({ headers }) => headers["last-event-id"]);
  }

  /** The request that it got. */
  get request(): { method: string; args: unknown; kwargs: Record<string, unknown> } {
    const call = this.calls.find(({ line }) => line.startsWith("POST /api/v1/provision"));
    return JSON.parse(new TextDecoder().decode(call?.body));
  }

  listen(port: number): Promise<void> {
    return new Promise((resolve) => this.#server.listen(port, "127.0.0.1", resolve));
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
    await closed;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const line = `${request.method} ${request.url}`;
    const body = new Uint8Array(await new Blob(await Array.fromAsync(request)).arrayBuffer());
    const headers = Object.fromEntries(
      Object.entries(request.headers).map(([name, value]) => [name, value?.toString()]),
    );
    this.calls.push({ line, headers, body });
    await this.play.onCall?.(line);
    if (line.startsWith("POST /api/v1/provision")) {
      const { submit = '{"job_id": "j1"}' } = this.play;
      if (typeof submit === "number") response.writeHead(submit).end("the reason");
      else response.end(submit);
    } else if (line.endsWith("/logs")) {
      await this.#stream(response, this.play.logs?.[this.#logs++] ?? {});
    } else if (line.startsWith("GET /api/v1/provision/")) {
      const { statuses = [{ status: "completed" }] } = this.play;
      const status = statuses[Math.min(this.#statuses++, statuses.length - 1)];
      if (typeof status === "number") response.writeHead(status).end();
      else response.end(typeof status === "string" ? status : JSON.stringify(status));
    } else {
      response.end();
    }
  }

  async #stream(
    response: ServerResponse,
    { pieces = [], status = 200, end = "end" }: LogStream,
  ): Promise<void> {
    response.writeHead(status, { "content-type": "text/event-stream" });
    response.flushHeaders();
    for (const piece of pieces) {
      response.write(piece);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
    if (end === "end") response.end();
    else if (end === "reset") response.socket?.resetAndDestroy();
    else this.hanging++;
  }
}

/** A stage of a connector with this service as its control host. */
export async function provisionWith(
  lab: Lab,
  service: ControlHostService,
  { connector, data, ...more }: {
    connector: string;
    data: Record<string, unknown>;
    config?: Record<string, unknown>;
    test?: Record<string, unknown>;
    signal?: AbortSignal;
    onStderr?: (text: string) => void;
  },
): Promise<Run> {
  await lab.config({ ...service.config, ...more.config });
  await lab.job({ job_id: "tf-1", provision_data: data, test_data: more.test ?? null });
  return await lab.stage(connector, "provision", {
    ...(more.signal === undefined ? {} : { signal: more.signal }),
    ...(more.onStderr === undefined ? {} : { onStderr: more.onStderr }),
  });
}

/** What came of a provision. */
export interface Outcome {
  readonly run: Run;
  /** What the service was asked. */
  readonly lines: readonly string[];
  /** Of the request; undefined where there was none. */
  readonly kwargs: Record<string, unknown> | undefined;
  readonly calls: readonly Call[];
  readonly failure: Record<string, string | null>;
  /** In seconds. */
  readonly pauses: readonly number[];
}

/** What is special about a provision. */
export interface ProvisionOptions {
  readonly test?: Record<string, unknown>;
  readonly config?: Record<string, unknown>;
  readonly play?: ServicePlay;
  readonly before?: (lab: Lab) => Promise<void>;
  readonly after?: (lab: Lab) => Promise<void>;
}

/** One provision in a lab of its own. */
export async function provisionOnce(
  connector: string,
  data: Record<string, unknown>,
  { test = {}, config = {}, play, before, after }: ProvisionOptions = {},
): Promise<Outcome> {
  await using lab = await Lab.open();
  await using service = await ControlHostService.open(play);
  await before?.(lab);
  const run = await provisionWith(lab, service, { connector, data, test, config });
  await after?.(lab);
  return {
    run,
    lines: service.lines,
    kwargs: service.lines.includes("POST /api/v1/provision") ? service.request.kwargs : undefined,
    calls: await lab.calls(),
    failure: run.code === 0 ? {} : await lab.failure("provision"),
    pauses: lab.clock.paused.map((ms) => ms / 1000),
  };
}

/** Was it refused with these words, and nothing asked of the control host? */
export function assertRefused(
  { run, failure, lines }: Outcome,
  words: string,
  name = "ProvisioningError",
): void {
  assertEquals(run.code, 1, run.stderr);
  assertEquals(failure.exception_name, name);
  assertStringIncludes(failure.exception_message ?? "", words);
  assertEquals(lines, []);
}
