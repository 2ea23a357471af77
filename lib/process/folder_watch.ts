import { basename } from "../path.ts";

/** Where the kernel tells us nothing (or too late, on a network file system), we look as often. */
const LOOK_EVERY_MS = 1_000;
/** Where nothing is watched: much happens at first, or soon all is over. */
const LOOK_OFTEN_MS = 20;
const OFTEN = 50;
/** Later a hundred jobs are not to take a core only by being looked at. */
const LOOK_LATER_MS = 100;

/**
 * So many folders are watched at once, and more are looked at. One thread of the runtime watches all of them, and looks
 * through all for each change of a file. While many change quickly it does not come to opening another watch,
 * for which the whole process waits.
 */
const MOST_WATCHED = 4;

interface Waiter {
  of: (name: string) => boolean;
  wake: () => void;
}

/** Says when the files of one folder may have changed. */
export class FolderWatch implements Disposable {
  /** How many are watched: of the process, as the thread is. */
  static #watched = 0;
  #watcher: Deno.FsWatcher | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #looks = 0;
  #waiters: Waiter[] = [];

  /** @param folder exists. */
  constructor(folder: string) {
    try {
      if (FolderWatch.#watched < MOST_WATCHED) {
        this.#watcher = Deno.watchFs(folder, { recursive: false });
        FolderWatch.#watched++;
        this.#listen(this.#watcher).catch(() => {});
      }
    } catch {
      // fs.inotify.max_user_watches, or something of that kind.
    }
    this.#lookAgain();
  }

  /**
   * Resolves at the next change; also without one, now and then. To be called before one looks, so
   * that nothing is missed between looking and waiting.
   *
   * @param of which files matter. @default all
   */
  changed(of: (name: string) => boolean = () => true): Promise<void> {
    return new Promise((wake) => this.#waiters.push({ of, wake }));
  }

  /** Wakes those who wait for one of these files; everyone by default. */
  wake(names?: readonly string[]): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      if (names === undefined || names.some(waiter.of)) waiter.wake();
      else this.#waiters.push(waiter);
    }
  }

  #lookAgain(): void {
    const pause = this.#watcher !== undefined
      ? LOOK_EVERY_MS
      : this.#looks++ < OFTEN
      ? LOOK_OFTEN_MS
      : LOOK_LATER_MS;
    this.#timer = setTimeout(() => {
      this.#lookAgain();
      this.wake();
    }, pause);
  }

  async #listen(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { paths } of watcher) this.wake(paths.map((path) => basename(path)));
  }

  /** Wakes everyone, for the last time. */
  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    if (this.#watcher !== undefined) {
      this.#watcher.close();
      FolderWatch.#watched--;
    }
    this.#watcher = undefined;
    this.wake();
  }
}
