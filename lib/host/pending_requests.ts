/** What has been asked of an agent and waits, for the end of its job for one. */
import { Markers } from "../agent/markers.ts";
import { StateFile } from "../agent/state_file.ts";
import type { Clock } from "../clock.ts";
import type { Emit, PendingRequests } from "../observe/events.ts";

/** A person who has asked looks within seconds. */
const LOOK_EVERY_MS = 3_000;

/** What the agent itself says of its files is enough. */
const SILENT = { debug() {}, info() {}, warning() {}, error() {} };

const ON_THE_HOST = "on this host";
const ON_THE_SERVER = "on the server";

/** What is watched, and who is told. */
interface PendingRequestsOptions {
  agentId: string;
  /** The agent's own folder. */
  folder: string;
  clock: Clock;
  emit: Emit;
  signal: AbortSignal;
}

/** Tells what is asked whenever that changes, until the signal aborts. */
export async function watchRequests(options: PendingRequestsOptions): Promise<void> {
  const { agentId, folder, clock, emit, signal } = options;
  const markers = new Markers({ agentId, log: SILENT });
  let told = "{}";
  while (!signal.aborted) {
    const requests = await requestsNow(markers, folder);
    const words = JSON.stringify(requests);
    if (words !== told && !signal.aborted) {
      told = words;
      emit({ type: "requests", ...requests });
    }
    await clock.sleep(LOOK_EVERY_MS, signal).catch(() => {});
  }
}

async function requestsNow(markers: Markers, folder: string): Promise<PendingRequests> {
  const { wish, restart } = new StateFile(folder, SILENT).content;
  const marker = await markers.offlineComment();
  const wantsRestart = await markers.wantsRestart();
  return {
    ...(wish !== undefined
      ? { offline: { comment: wish.comment, by: wish.own ? "by the agent itself" : ON_THE_SERVER } }
      : marker !== undefined && { offline: { comment: marker, by: ON_THE_HOST } }),
    ...(wantsRestart
      ? { restart: { comment: "", by: ON_THE_HOST } }
      : restart !== undefined && { restart: { comment: restart.comment, by: askedBy(restart) } }),
  };
}

/** Comments of an agent's own, for what was asked without words. */
const HOST_COMMENTS = ["Restart marker file", "Restart signal (SIGUSR1)"];

function askedBy({ comment }: { comment: string }): string {
  return HOST_COMMENTS.includes(comment) ? ON_THE_HOST : ON_THE_SERVER;
}
