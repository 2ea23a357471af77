import type { Clock } from "../lib/clock.ts";
import type { Log } from "../lib/log.ts";
import type { ProgressView } from "../lib/progress.ts";
import type { ConnectorContext, Stage } from "./context.ts";
import type { CommonConfig } from "./support/config.ts";
import { fullMessageOf } from "./support/errors.ts";
import { httpClient } from "./support/http/http.ts";
import { type JobData, readJobData } from "./support/job.ts";
import { processRunner } from "./support/process/process_runner.ts";
import { type PutBackStack, putBackStack } from "./support/put_back.ts";
import { SshConnections } from "./support/ssh/connections.ts";

/**
 * How long putting the hardware back may take once the connector has been asked to stop. The
 * agent kills what is still there after its own grace.
 */
const PUT_BACK_LIMIT_MS = 30_000;

/** What a context is made of. */
export interface ContextParts {
  readonly connector: string;
  readonly stage: Stage;
  readonly config: CommonConfig;
  readonly configValues: Readonly<Record<string, unknown>>;
  /** As given on the command line, relative to `cwd`. */
  readonly jobFile: string;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  readonly clock: Clock;
  readonly limits: Clock;
  readonly log: Log;
  readonly progress?: ProgressView | undefined;
  /** Stops the stage. */
  readonly signal: AbortSignal;
  /** Makes the end of programs quick: KILL at once. */
  readonly forceStop: AbortSignal;
  readonly print: (bytes: Uint8Array) => Promise<void>;
}

/** A context, and what must be put back when its stage is over. */
export function makeContext(
  parts: ContextParts,
): { readonly ctx: ConnectorContext; readonly putBack: PutBackStack } {
  const stack = putBackStack(parts.log);
  const connections = new SshConnections(parts.env.TMPDIR);
  let job: Promise<JobData> | undefined;

  function build(signal: AbortSignal): ConnectorContext {
    const { cwd, env, limits, forceStop } = parts;
    return {
      connector: parts.connector,
      stage: parts.stage,
      config: parts.config,
      configValues: parts.configValues,
      cwd,
      env,
      clock: parts.clock,
      limits,
      log: parts.log,
      progress: parts.progress,
      signal,
      runner: processRunner({ cwd, env, clock: limits, signal, forceStop }),
      connections,
      http: httpClient(limits, signal),
      print: (text) => parts.print(typeof text === "string" ? encoder.encode(text) : text),
      readJob() {
        job ??= readJobData(parts.jobFile, cwd);
        return job;
      },
      putBack: (name, action) => stack.add(name, () => unhindered((own) => action(build(own)))),
    };
  }

  /** Gives `action` a signal that does not abort with the stage, but some time after it. */
  async function unhindered(action: (signal: AbortSignal) => Promise<void>): Promise<void> {
    const own = new AbortController();
    const done = new AbortController();
    const limit = () => {
      parts.limits.sleep(PUT_BACK_LIMIT_MS, done.signal).then(
        () => own.abort(new Error(`not done within ${PUT_BACK_LIMIT_MS / 1000} s`)),
        () => {},
      );
    };
    if (parts.signal.aborted) limit();
    else parts.signal.addEventListener("abort", limit, { once: true });
    try {
      await action(own.signal);
    } finally {
      parts.signal.removeEventListener("abort", limit);
      done.abort();
    }
  }

  return {
    ctx: build(parts.signal),
    putBack: {
      ...stack,
      async runAll() {
        await stack.runAll();
        // What was put back may have needed them.
        await unhindered((own) => connections.close(build(own)))
          .catch((error) =>
            parts.log.error(`Cannot close ssh connections: ${fullMessageOf(error)}`)
          );
      },
    },
  };
}

const encoder = new TextEncoder();
