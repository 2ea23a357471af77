import { basename } from "../path.ts";

/** Where the kernel tells us nothing (or too late, on a network file system), we look as often. */
const LOOK_EVERY_MS = 1_000;
/** Where nothing can be watched: the host has given out all that it has for it. */
const LOOK_OFTEN_MS = 20;

interface Waiter {
  of: (name: string) => boolean;
  wake: () => void;
}

/** Says when the files of one folder may have changed. */
export class FolderWatch implements Disposable {
  #watcher: Deno.FsWatcher | undefined;
  readonly #timer: ReturnType<typeof setInterval>;
  #waiters: Waiter[] = [];

  /** @param folder exists. */
  constructor(folder: string) {
    try {
      this.#watcher = Deno.watchFs(folder, { recursive: false });
      this.#listen(this.#watcher).catch(() => {});
    } catch {
      // fs.inotify.max_user_watches, or something of that kind.
    }
    const pause = this.#watcher === undefined ? LOOK_OFTEN_MS : LOOK_EVERY_MS;
    this.#timer = setInterval(() => this.wake(), pause);
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

  async #listen(watcher: Deno.FsWatcher): Promise<void> {
    for await (const { paths } of watcher) this.wake(paths.map((path) => basename(path)));
  }

  /** Wakes everyone, for the last time. */
  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#watcher?.close();
    this.#watcher = undefined;
    this.wake();
  }
}
