/** A sandbox on a port. */
import { randomToken } from "./auth.ts";
import { createSandbox, type Sandbox, type SandboxOptions } from "./sandbox.ts";

/** Where a sandbox listens, and how it behaves. */
export interface ServeOptions extends SandboxOptions {
  /** 0 takes any free one. @default 0 */
  port?: number;
  /** @default "127.0.0.1" */
  hostname?: string;
  /** One that exists, to come back with after an outage; the other options are then its own. */
  sandbox?: Sandbox;
}

/** A sandbox that listens. */
export interface ServedSandbox {
  /** Without a slash at the end. */
  readonly url: string;
  readonly sandbox: Sandbox;
  /** Drops all connections. */
  close(): Promise<void>;
}

/**
 * Makes a server and lets it listen.
 *
 * @throws Deno.errors.AddrInUse when the port is taken.
 */
export function serveSandbox(options: ServeOptions = {}): ServedSandbox {
  const { port = 0, hostname = "127.0.0.1", sandbox = createSandbox(options) } = options;
  const stop = new AbortController();
  const server = Deno.serve(
    { port, hostname, signal: stop.signal, onListen() {} },
    (request) => sandbox.fetch(request),
  );
  const host = hostname.includes(":") ? `[${hostname}]` : hostname;
  return {
    url: `http://${host}:${server.addr.port}`,
    sandbox,
    async close() {
      stop.abort();
      await server.finished;
    },
  };
}

/** What `testflinger-agent sandbox` was asked for. */
export interface RunSandboxOptions {
  /** 0 takes any free one. */
  port: number;
  hostname: string;
  /** Whether to be a server of the older generation. */
  legacy: boolean;
  /** Whether agents have a mode in addition to their state. @default false */
  mode?: boolean;
  /** Whether to demand tokens. */
  tokens: boolean;
  /** Told each line that a person should see. */
  print: (line: string) => void;
  signal: AbortSignal;
}

/**
 * Serves until the signal aborts.
 *
 * @throws Deno.errors.AddrInUse when the port is taken.
 */
export async function runSandbox(options: RunSandboxOptions): Promise<void> {
  const { print, signal, tokens } = options;
  if (signal.aborted) return;
  const served = serveSandbox({
    port: options.port,
    hostname: options.hostname,
    generation: options.legacy ? "legacy" : "current",
    mode: options.mode ?? false,
    tokens,
    deliverWebhooks: true,
    log: print,
  });
  const { sandbox, url } = served;
  print(
    `A Testflinger server in memory listens at ${url} (Ctrl-C ends it and forgets everything).`,
  );
  print("");
  print("In the agent's configuration:");
  print(`  server_address: ${url}`);
  if (tokens) {
    const refreshToken = randomToken();
    const secret = randomToken();
    sandbox.addRefreshToken(refreshToken);
    sandbox.addClient({ clientId: "admin", secret, role: "admin" });
    print("In the agent's token file:");
    print(`  {"refresh_token": "${refreshToken}"}`);
    print("For the command-line client's admin commands:");
    print(`  --client-id admin --secret-key ${secret}`);
  }
  print("To submit a job, and to see how it ends:");
  print(`  testflinger-agent submit job.yaml --wait --server ${url}`);
  print(`Its queues, jobs, logs and agents are at ${url}/ in a browser. Without the program:`);
  print(`  curl -H 'Content-Type: application/json' ${url}/v1/job \\`);
  print(`    -d '{"job_queue": "QUEUE", "test_data": {"test_cmds": "echo hello"}}'`);
  print(`  curl ${url}/v1/result/JOB_ID`);
  print("");
  try {
    await new Promise<void>((resolve) => {
      signal.addEventListener("abort", () => resolve(), { once: true });
    });
  } finally {
    await served.close();
  }
}
