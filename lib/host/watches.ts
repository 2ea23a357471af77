/** What is looked at now and then for an agent: the space on its disks, and what has been asked of it. */
import { isOfHost } from "../agent/desired_state.ts";
import { type LookAtDisk, lookAtDisk } from "../agent/host_check.ts";
import { Markers } from "../agent/markers.ts";
import { StateFile } from "../agent/state_file.ts";
import type { Clock } from "../clock.ts";
import { type Either, either } from "../wait.ts";
import { type Emit, type PendingRequests, type Sink, sinkOf } from "../observe/events.ts";

const LOOK_AT_DISKS_EVERY_MS = 30_000;

/** Who is told, and until when. */
interface FreeSpaceOptions {
  clock: Clock;
  emit: Emit;
  signal: AbortSignal;
  /** @default what the kernel says now */
  lookAt?: LookAtDisk;
}

/** Tells at once and then every 30 s, until the signal aborts. A disk that does not answer is waited for. */
export async function watchFreeSpace(
  folders: readonly string[],
  { clock, emit, signal, lookAt = lookAtDisk }: FreeSpaceOptions,
): Promise<void> {
  while (!signal.aborted) {
    const disks = await Promise.all(folders.map(lookAt));
    const free = disks.flatMap((disk) => disk === undefined ? [] : disk.freeBytes);
    if (free.length > 0 && !signal.aborted) {
      emit({ type: "free_space", bytes: Math.min(...free) });
    }
    await clock.sleep(LOOK_AT_DISKS_EVERY_MS, signal).catch(() => {});
  }
}

/** A person who has asked looks within seconds. */
const LOOK_FOR_REQUESTS_EVERY_MS = 3_000;
/** While no job runs a request is carried out soon, and shown as what it has come to. */
const LOOK_RARELY_MS = 60_000;

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

/**
 * Tells what is asked whenever that changes, until the signal aborts.
 *
 * @returns to be told what happens to the agent: as long as no job runs nothing waits for its end, and
 * there is hardly a reason to look.
 */
export function watchRequests(options: PendingRequestsOptions): Sink {
  const { agentId, folder, clock, emit, signal } = options;
  const markers = new Markers({ agentId, log: SILENT });
  let told = "{}";
  let isBusy = false;
  let isOffline = false;
  let pause: Either | undefined;
  const look = async () => {
    while (!signal.aborted) {
      pause = either(signal);
      const requests = requestsNow(markers, folder);
      const words = JSON.stringify(requests);
      if (words !== told && !signal.aborted) {
        told = words;
        emit({ type: "requests", ...requests });
      }
      const ms = isBusy || isOffline ? LOOK_FOR_REQUESTS_EVERY_MS : LOOK_RARELY_MS;
      await clock.sleep(ms, pause.signal).catch(() => {});
      pause[Symbol.dispose]();
    }
  };
  look();
  return sinkOf({
    mode({ state }) {
      isOffline = state === "offline" || state === "maintenance";
      pause?.abort();
    },
    job_began() {
      isBusy = true;
      pause?.abort();
    },
    job_ended() {
      isBusy = false;
    },
  });
}

/**
 * What is asked of an agent at this moment.
 *
 * @param folder the agent's own folder.
 */
export function requestsNow(markers: Markers, folder: string): PendingRequests {
  const { desired, restart } = new StateFile(folder, SILENT).content;
  const marker = markers.offlineComment();
  const wantsRestart = markers.wantsRestart();
  return {
    ...(desired !== undefined
      ? {
        offline: {
          comment: desired.comment,
          by: desired.own ? "by the agent itself" : ON_THE_SERVER,
        },
      }
      : marker !== undefined && { offline: { comment: marker, by: ON_THE_HOST } }),
    ...(wantsRestart
      ? { restart: { comment: "", by: ON_THE_HOST } }
      : restart !== undefined && { restart: { comment: restart.comment, by: askedBy(restart) } }),
  };
}

function askedBy({ comment }: { comment: string }): string {
  return isOfHost(comment) ? ON_THE_HOST : ON_THE_SERVER;
}
