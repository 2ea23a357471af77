/**
 * The files by which an administrator on the host asks an agent to restart or to go offline. `/tmp`
 * is everybody's: a marker counts only if it is a regular file of root's or of the agent's own user.
 */
import { Said } from "../once.ts";
import { systemClock } from "../clock.ts";
import { NotRegular, openForReading } from "../job/untrusted_paths.ts";
import type { Log } from "../log.ts";
import { messageOf } from "../message.ts";
import { join } from "../path.ts";

/** More of an offline marker's first line than this is nobody's comment. */
const LONGEST_COMMENT_BYTES = 1024;

/** What can be asked for. */
export type MarkerKind = "RESTART" | "OFFLINE" | "ONLINE";

/** Where markers are looked for, and who may have made them. */
export interface MarkersOptions {
  agentId: string;
  log: Log;
  /** @default "/tmp" */
  folder?: string;
  /** The agent's user id. @default the process's */
  uid?: number;
}

/** The paths of an agent's markers: its id as it is, and with every dash removed. */
export function markerPaths(
  kind: MarkerKind,
  { agentId, folder }: { agentId: string; folder: string },
): string[] {
  const ids = new Set([agentId, agentId.replaceAll("-", "")]);
  return [...ids].map((id) => join(folder, `TESTFLINGER-DEVICE-${kind}-${id}`));
}

/** The markers of one agent. */
export class Markers {
  readonly #options: MarkersOptions;
  readonly #folder: string;
  readonly #uid: number;
  /** Of files that are ignored, or stay. */
  readonly #said = new Said();
  /** When the folder had last been changed, as it was looked at and had no marker of a kind. */
  readonly #without = new Map<MarkerKind, number>();

  constructor(options: MarkersOptions) {
    this.#options = options;
    this.#folder = options.folder ?? "/tmp";
    this.#uid = options.uid ?? Deno.uid() ?? 0;
  }

  /** The paths that count. */
  paths(kind: MarkerKind): string[] {
    return markerPaths(kind, { agentId: this.#options.agentId, folder: this.#folder });
  }

  /** The markers that are there and count. */
  #present(kind: MarkerKind): string[] {
    const present: string[] = [];
    const { changedAt, isSettled } = lookAtFolder(this.#folder);
    if (changedAt !== undefined && this.#without.get(kind) === changedAt) return present;
    // Where nothing is there now, nothing is before the folder changes again.
    this.#without.delete(kind);
    let isWithout = isSettled;
    for (const path of this.paths(kind)) {
      const info = infoOf(path);
      if (info === undefined) {
        this.#said.forget(path);
        continue;
      }
      isWithout = false;
      const why = this.#whyIgnored(info);
      if (why === undefined) present.push(path);
      else this.#report(path, why);
    }
    if (isWithout && changedAt !== undefined) this.#without.set(kind, changedAt);
    return present;
  }

  /** A second name may be one that another user has given to a file of root's or of ours. */
  #whyIgnored(info: { isFile: boolean; uid: number | null; nlink: number | null }) {
    if (!info.isFile) return "is not a regular file";
    if (info.uid !== 0 && info.uid !== this.#uid) return `belongs to user ${info.uid}`;
    return (info.nlink ?? 1) > 1 ? "has more than one name" : undefined;
  }

  #report(path: string, why: string): void {
    if (!this.#said.isNew(path)) return;
    this.#options.log.warning(
      `The marker ${path} is ignored: it ${why}; it must be a regular file of root or of the agent's user`,
    );
  }

  /**
   * Makes a marker, in place of one that is there.
   *
   * @throws what the file system says.
   */
  async make(kind: MarkerKind, comment: string): Promise<void> {
    const [path = ""] = this.paths(kind);
    const line = comment.split("\n")[0]?.trim() ?? "";
    // Whole from the first moment on, and never through another user's link.
    const fresh = join(this.#folder, `.testflinger-${crypto.randomUUID()}`);
    await Deno.writeTextFile(fresh, line === "" ? "" : `${line}\n`, {
      createNew: true,
      mode: 0o644,
    });
    try {
      await Deno.rename(fresh, path);
    } catch (error) {
      await Deno.remove(fresh).catch(() => {});
      throw error;
    }
  }

  /** Removes the markers of a kind; says which one stays, and why. */
  async remove(kind: MarkerKind): Promise<string | undefined> {
    for (const path of this.#present(kind)) {
      try {
        await Deno.remove(path);
      } catch (error) {
        return `The marker ${path} stays: ${messageOf(error)}. Remove it as its owner or as root.`;
      }
    }
    return undefined;
  }

  /** Whether a restart is asked for. */
  wantsRestart(): boolean {
    return this.#present("RESTART").length > 0;
  }

  /** The comment of an offline marker, perhaps empty; undefined when there is none. */
  offlineComment(): string | undefined {
    const path = this.#present("OFFLINE")[0];
    if (path === undefined) return undefined;
    try {
      using file = openForReading(path, { oneName: true });
      // It may have been replaced since it was looked at.
      if (file.uid !== 0 && file.uid !== this.#uid) return undefined;
      const bytes = new Uint8Array(LONGEST_COMMENT_BYTES);
      const read = file.read(bytes, 0);
      return new TextDecoder().decode(bytes.subarray(0, read)).split("\n")[0]?.trim() ?? "";
    } catch (error) {
      return error instanceof NotRegular ? undefined : "";
    }
  }

  /**
   * Whether an agent that has gone offline by itself is asked to come back. Its marker goes: one that
   * cannot be removed does not count, since it would undo each later time, too.
   */
  async takeOnline(): Promise<boolean> {
    let isAsked = false;
    for (const path of this.#present("ONLINE")) {
      try {
        await Deno.remove(path);
        isAsked = true;
      } catch (error) {
        this.#report(path, `cannot be removed (${messageOf(error)})`);
      }
    }
    return isAsked;
  }

  /**
   * Removes the restart markers, before the restart is carried out.
   *
   * @returns false when one of them stays: restarting would then go on for ever.
   */
  async removeRestart(): Promise<boolean> {
    for (const path of this.#present("RESTART")) {
      try {
        await Deno.remove(path);
      } catch (error) {
        const reason = messageOf(error);
        if (this.#said.isNew(`${path} stays`)) {
          this.#options.log.error(
            `Cannot remove the marker ${path}, so the agent does not restart (it would do so for ever): ` +
              `${reason}. Remove the file by hand.`,
          );
        }
        return false;
      }
    }
    return true;
  }
}

/** Changes that are closer to one another than this may have the same time. */
const TICK_MS = 1_000;

/**
 * When a folder was last changed, in milliseconds since 1970, and whether that is so long ago that the next change
 * has another time. Every agent asks in every round, and nearly always there is nothing: one look at the folder
 * takes a tenth of looking for all that may be in it. The time is that of the kernel, which writes it there.
 */
function lookAtFolder(folder: string): { changedAt: number | undefined; isSettled: boolean } {
  try {
    const changedAt = Deno.statSync(folder).mtime?.getTime();
    const isSettled = changedAt !== undefined && systemClock.now() - changedAt > TICK_MS;
    return { changedAt, isSettled };
  } catch {
    return { changedAt: undefined, isSettled: false };
  }
}

/** Every agent asks in every round, and mostly there is nothing: not worth waiting for. */
function infoOf(path: string): Deno.FileInfo | undefined {
  try {
    return Deno.lstatSync(path);
  } catch {
    return undefined;
  }
}
