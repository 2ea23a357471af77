/**
 * Tells systemd how the service does: ready, status, stopping, and the watchdog. (Not reloading: a new
 * configuration takes a restart.)
 *
 * systemd listens on a datagram socket (`NOTIFY_SOCKET`). Without an unstable flag the runtime has
 * no way to it: `Deno.connect` and `node:net` make stream sockets (EPROTOTYPE, "wrong type for
 * socket"), a socket cannot be opened as a file (ENXIO), `node:dgram` knows only UDP, and
 * `Deno.listenDatagram` is there with `--unstable-net` only. So each message is one run of
 * `systemd-notify`, which is wherever systemd is. It takes some 25 ms in parallel to the agent, and there is
 * one at a change of state and one a third of `WatchdogSec=`.
 *
 * The message then comes from a child: the unit needs `NotifyAccess=all`. Lest the programs of a job
 * speak in the agent's name, the variables are taken out of the environment.
 */
import { Said } from "../once.ts";
import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { escapeText } from "./log_format.ts";
import { type Sink, sinkOf } from "./events.ts";
import { count } from "./words.ts";

/** A ping may get lost without the service being killed. */
const PINGS_A_PERIOD = 3;

/** With many agents something changes all the time. */
const BETWEEN_STATUSES_MS = 1_000;

/** `systemd-notify` waits 5 s for systemd to have read the message. */
const NOTIFY_LIMIT_MS = 10_000;

/** Options of {@link createSystemd}. */
export interface SystemdOptions {
  clock: Clock;
  log: Log;
  /** Why the service is thought to hang: then the watchdog is not fed. */
  trouble(): string | undefined;
  /** @default Deno.env */
  env?: { get(name: string): string | undefined; delete(name: string): void };
  /** @default Deno.pid */
  pid?: number;
}

/** The service as systemd sees it. */
export interface Systemd {
  /**
   * Turns what happens into `STATUS=`, and the first sign that an agent works into `READY=1`: an outage
   * of the server must not delay it, or systemd would kill the service.
   */
  readonly sink: Sink;
  /** The service is up, also without an agent. */
  ready(): void;
  /** The service is about to end. */
  stopping(): void;
  /** Stops the watchdog's pings and waits for the last message to be sent. */
  close(): Promise<void>;
}

/** What one agent is about. */
interface Doing {
  /** `waiting`, `offline` ... or `with a job`. */
  kind: string;
  words: string;
}

/** Makes the link to systemd; `undefined` where no systemd waits for messages. */
export function createSystemd(options: SystemdOptions): Systemd | undefined {
  const { clock, log, trouble, env = Deno.env, pid = Deno.pid } = options;
  const socket = env.get("NOTIFY_SOCKET");
  const watchdogMs = readWatchdog(env, pid);
  for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"]) env.delete(name);
  if (!socket) return undefined;

  /** Not sent yet, by name: only the latest word of each counts. */
  const waiting = new Map<string, string>();
  let sending: Promise<void> | undefined;
  let failed = false;
  let isReady = false;
  let isStopping = false;
  const jobs = new Map<string, string>();
  const doing = new Map<string, Doing>();
  let saidStatus = "";
  const closing = new AbortController();

  const tell = (name: string, argument: string) => {
    waiting.delete(name);
    waiting.set(name, argument);
    sending ??= sendAll().finally(() => sending = undefined);
  };

  const sendAll = async () => {
    // What is told in the same breath goes in one message.
    await Promise.resolve();
    while (waiting.size > 0) {
      const message = [...waiting.values()];
      waiting.clear();
      const problem = await runNotify(socket, message, clock);
      if (problem !== undefined && !failed) {
        log.warning(
          "systemd does not get the agent's messages; install systemd-notify, and set " +
            "NotifyAccess=all in the unit",
          { reason: problem },
        );
      }
      failed = problem !== undefined;
      if (doing.size > 1) await clock.sleep(BETWEEN_STATUSES_MS, closing.signal).catch(() => {});
    }
  };

  const status = (agent: string, now: Doing) => {
    doing.set(agent, now);
    const text = summary([...doing.values()]);
    if (text === saidStatus || isStopping) return;
    saidStatus = text;
    tell("STATUS", `STATUS=${escapeText(text)}`);
  };

  const feedWatchdog = async (periodMs: number) => {
    const said = new Said();
    while (true) {
      try {
        await clock.sleep(periodMs / PINGS_A_PERIOD, closing.signal);
      } catch {
        return;
      }
      const reason = trouble();
      if (reason === undefined) {
        said.forget("hangs");
        tell("WATCHDOG", "WATCHDOG=1");
      } else if (said.isNew("hangs")) {
        log.error("The agent hangs and systemd's watchdog will restart it; please report this", {
          reason,
        });
      }
    }
  };
  const feeding = watchdogMs === undefined ? Promise.resolve() : feedWatchdog(watchdogMs);

  const ready = () => {
    if (!isReady) tell("READY", "READY=1");
    isReady = true;
  };

  return {
    sink: sinkOf({
      turned: ready,
      recovery_began({ agent, job }) {
        // A cleanup may take longer than systemd waits for a service to start: it would be killed on it.
        ready();
        const words = `ends job ${job} of an earlier process`;
        status(agent, { kind: "with a job", words });
      },
      mode({ agent, state, comment }) {
        const job = jobs.get(agent);
        const what = job === undefined ? state : `job ${job}: ${state}`;
        status(agent, {
          kind: job === undefined ? state : "with a job",
          words: comment === "" ? what : `${what} (${comment})`,
        });
      },
      job_began({ agent, job }) {
        jobs.set(agent, job);
        status(agent, { kind: "with a job", words: `job ${job}` });
      },
      job_ended({ agent }) {
        jobs.delete(agent);
      },
    }),
    stopping() {
      if (isStopping) return;
      isStopping = true;
      tell("STATUS", "STATUS=stopping");
      tell("STOPPING", "STOPPING=1");
    },
    ready,
    async close() {
      closing.abort();
      await feeding;
      await sending;
    },
  };
}

/** `30 agents: 28 waiting, 2 with a job`; of a single one everything. */
function summary(all: readonly Doing[]): string {
  const [first] = all;
  if (first !== undefined && all.length === 1) return first.words;
  const kinds = Map.groupBy(all, ({ kind }) => kind);
  const parts = [...kinds].map(([kind, those]) => `${those.length} ${kind}`);
  return `${count(all.length, "agent")}: ${parts.join(", ")}`;
}

/** The watchdog's period in milliseconds; `undefined` when there is none, or it is not for us. */
function readWatchdog(env: { get(name: string): string | undefined }, pid: number) {
  const microseconds = Number(env.get("WATCHDOG_USEC"));
  const forPid = env.get("WATCHDOG_PID");
  if (forPid !== undefined && forPid !== `${pid}`) return undefined;
  return Number.isSafeInteger(microseconds) && microseconds > 0 ? microseconds / 1000 : undefined;
}

/** Sends one message. Returns what went wrong, if anything did. */
async function runNotify(
  socket: string,
  message: string[],
  clock: Clock,
): Promise<string | undefined> {
  const ended = new AbortController();
  const limit = new AbortController();
  clock.sleep(NOTIFY_LIMIT_MS, ended.signal).then(() => limit.abort(), () => {});
  try {
    const { success, code, stderr } = await new Deno.Command("systemd-notify", {
      args: message,
      env: { NOTIFY_SOCKET: socket },
      stdin: "null",
      stdout: "null",
      stderr: "piped",
      signal: limit.signal,
    }).output();
    if (success) return undefined;
    const said = new TextDecoder().decode(stderr).trim();
    return said === "" ? `systemd-notify ended with status ${code}` : said;
  } catch (error) {
    return messageOf(error);
  } finally {
    ended.abort();
  }
}
