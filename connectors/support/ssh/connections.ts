import type { CommandRunner } from "../process/runner.ts";

/** Whose connection it is. */
interface Login {
  readonly host: string;
  readonly user: string;
  readonly port?: number;
}

/** What ends a connection. */
interface Closer {
  readonly runner: CommandRunner;
}

/** How long a connection that nobody uses is kept; also where this process had no time to close it. */
const PERSIST_S = 60;

const CLOSE_TIMEOUT_MS = 5_000;

/**
 * Socket paths that ssh takes as they are. It has 108 bytes for them, of which it needs 17 for a
 * temporary name.
 */
const SOCKET_PATH = /^[A-Za-z0-9_./+,:@=-]{1,88}$/;

/**
 * The shared ssh connections of a stage, one for each target: the first call logs in, those after it
 * need no handshake. ssh itself falls back to a connection of its own where the shared one is gone.
 */
export class SshConnections {
  readonly #sockets = new Map<string, { readonly path: string; readonly target: Login }>();
  readonly #place: string | undefined;
  #folder: Promise<string | undefined> | undefined;
  #count = 0;

  /** @param place where temporary files are. @default the system's place for them */
  constructor(place?: string) {
    this.#place = place;
  }

  /** Options by which ssh and scp use the connection to a target, or make it. */
  async options(target: Login): Promise<readonly string[]> {
    this.#folder ??= privateFolder(this.#place);
    const folder = await this.#folder;
    if (folder === undefined) return [];
    const key = keyOf(target);
    const socket = this.#sockets.get(key) ?? { path: `${folder}/${++this.#count}`, target };
    this.#sockets.set(key, socket);
    return [
      "-o",
      "ControlMaster=auto",
      "-o",
      `ControlPath=${socket.path}`,
      "-o",
      `ControlPersist=${PERSIST_S}`,
    ];
  }

  /** Gives a connection up: it is lost, or the host is going to reboot. The next call makes another. */
  async drop({ runner }: Closer, target: Login): Promise<void> {
    const socket = this.#sockets.get(keyOf(target));
    if (socket === undefined) return;
    this.#sockets.delete(keyOf(target));
    // No socket: the connection has never come about, or has ended by itself.
    if (!await Deno.lstat(socket.path).then(() => true, () => false)) return;
    await runner.run(
      ["ssh", "-O", "exit", "-o", `ControlPath=${socket.path}`, `${target.user}@${target.host}`],
      { timeoutMs: CLOSE_TIMEOUT_MS },
    );
  }

  /** Ends all of them, and removes what they had on disk. */
  async close(ctx: Closer): Promise<void> {
    for (const { target } of [...this.#sockets.values()]) await this.drop(ctx, target);
    const folder = await this.#folder;
    this.#folder = undefined;
    if (folder !== undefined) await Deno.remove(folder, { recursive: true });
  }
}

function keyOf({ user, host, port = 22 }: Login): string {
  return `${user}@${host}:${port}`;
}

/** A folder that nobody else can look into; undefined where there is none that ssh could use. */
async function privateFolder(place: string | undefined): Promise<string | undefined> {
  try {
    const where = place ? { dir: place } : {};
    const folder = await Deno.makeTempDir({ prefix: "tf-ssh-", ...where });
    if (SOCKET_PATH.test(`${folder}/999`)) return folder;
    await Deno.remove(folder);
  } catch {
    // Without the folder every call has a connection of its own, and nothing else differs.
  }
  return undefined;
}
