import { writeAll } from "../../bytes.ts";
import { messageOf } from "../../message.ts";
import { ByteReader, type Member, TarReader } from "./tar_reader.ts";
import { gunzip, type GunzipLimits } from "./gunzip.ts";
import { FolderLayout, type LayoutLimits, type Placement } from "./layout.ts";
import { quoteName, Refusal, type RefusalKind, refuseMember } from "./refusal.ts";

/** What an archive may have at most; the configuration has a key for each. */
export type UnpackLimits = GunzipLimits & LayoutLimits;

/** What {@linkcode unpackAttachments} needs in addition to the archive and the folder. */
export interface UnpackOptions {
  limits: UnpackLimits;
  signal?: AbortSignal;
}

/** What became of an archive. */
export type UnpackResult =
  | {
    ok: true;
    /** Members of the archive. */
    members: number;
    /** Bytes in its files. */
    bytes: number;
  }
  | {
    ok: false;
    kind: RefusalKind;
    /** One line for the job's log: which member, and why. */
    reason: string;
  };

/** Permissions of a folder that is only implied by the name of a member. */
const IMPLIED_FOLDER_MODE = 0o755;

/** Of the archive's permission bits these are kept: no setuid, setgid, sticky, no write for others. */
const KEPT_MODE = 0o755;

/**
 * Unpacks a job's attachments, a gzip-compressed tar archive, as it comes in. Writes nothing
 * outside `folder` whatever the archive says, checks every limit before it writes, and on any
 * refusal leaves the folder as empty as it was. Owners are ignored, modification times kept.
 * Never throws.
 *
 * @param archive Read to its end, or cancelled.
 * @param folder A folder that exists, is empty, and that nobody else writes to meanwhile.
 */
export async function unpackAttachments(
  archive: ReadableStream<Uint8Array>,
  folder: string,
  { limits, signal }: UnpackOptions,
): Promise<UnpackResult> {
  const trouble = await folderTrouble(folder);
  if (trouble !== undefined) {
    await archive.cancel().catch(() => {});
    return { ok: false, kind: "disk", reason: trouble };
  }
  const stream = gunzip(archive, limits, signal);
  try {
    const unpacking = new Unpacking(folder, new ByteReader(stream), limits);
    return { ok: true, ...await unpacking.run(signal) };
  } catch (error) {
    const refusal = asRefusal(error);
    return { ok: false, kind: refusal.kind, reason: refusal.message + await emptyAgain(folder) };
  } finally {
    // Also after a refusal by the reader of the archive: the rest of the stream is let go of.
    await stream.return(undefined);
  }
}

/** One archive on its way into one folder. */
class Unpacking {
  readonly #folder: string;
  readonly #source: ByteReader;
  readonly #limits: UnpackLimits;
  readonly #layout: FolderLayout;

  constructor(folder: string, source: ByteReader, limits: UnpackLimits) {
    this.#folder = folder;
    this.#source = source;
    this.#limits = limits;
    this.#layout = new FolderLayout(limits);
  }

  async run(signal?: AbortSignal): Promise<{ members: number; bytes: number }> {
    const reader = new TarReader(this.#source);
    let members = 0;
    let bytes = 0;
    let last = "";
    try {
      for (let member; (member = await reader.next()) !== undefined;) {
        last = member.name;
        if (signal?.aborted) throw new Refusal("stopped", "unpacking was stopped");
        if (++members > this.#limits.maxMembers) {
          throw refuseMember(last, `is one member too many (at most ${this.#limits.maxMembers})`);
        }
        if (this.#source.position + member.size > this.#limits.maxSize) {
          throw refuseMember(
            last,
            `with its ${member.size} bytes the archive unpacks to more than ` +
              `${this.#limits.maxSize} bytes`,
          );
        }
        await this.#put(member, reader);
        bytes += member.size;
      }
    } catch (error) {
      const refusal = asRefusal(error);
      if (last === "" || refusal.member !== undefined) throw refusal;
      const reason = `${refusal.message} (last member: ${quoteName(last)})`;
      throw new Refusal(refusal.kind, reason, { cause: refusal });
    }
    return { members, bytes };
  }

  async #put(member: Member, reader: TarReader): Promise<void> {
    const placement = this.#layout.place(member);
    if (placement === undefined) return;
    for (const parent of placement.newFolders) {
      await onDisk(parent, () => this.#makeFolder(parent, IMPLIED_FOLDER_MODE));
    }
    const path = `${this.#folder}/${placement.path}`;
    switch (member.type) {
      case "directory": {
        const mode = (member.mode & KEPT_MODE) | 0o700;
        await onDisk(
          member.name,
          () => placement.exists ? Deno.chmod(path, mode) : this.#makeFolder(placement.path, mode),
        );
        break;
      }
      case "symlink":
        await onDisk(member.name, () => Deno.symlink(member.target, path));
        break;
      case "hardlink":
        await onDisk(member.name, () => Deno.link(`${this.#folder}/${placement.linkTo}`, path));
        break;
      case "file":
        await this.#writeFile(member, placement, reader);
    }
  }

  async #makeFolder(path: string, mode: number): Promise<void> {
    await Deno.mkdir(`${this.#folder}/${path}`, { mode });
    // Again, since the umask may have taken bits, and a setgid folder above may have added one.
    Deno.chmodSync(`${this.#folder}/${path}`, mode);
  }

  async #writeFile(member: Member, placement: Placement, reader: TarReader): Promise<void> {
    const path = `${this.#folder}/${placement.path}`;
    using file = await onDisk(
      member.name,
      // createNew is O_EXCL: it opens nothing that is there, and follows no link.
      () => Deno.open(path, { write: true, createNew: true, mode: 0o600 }),
    );
    for await (const piece of reader.body()) {
      await onDisk(member.name, () => writeAll(file, piece));
    }
    const { mtime } = member;
    await onDisk(member.name, () => {
      // What has just been written is at hand: going to another thread for this takes far longer.
      Deno.chmodSync(path, (member.mode & KEPT_MODE) | 0o600);
      if (mtime !== undefined) file.utimeSync(mtime, mtime);
    });
  }
}

/** Runs one step on the disk and says which member it was for if it fails. */
async function onDisk<T>(name: string, step: () => T | Promise<T>): Promise<T> {
  try {
    return await step();
  } catch (cause) {
    throw refuseMember(name, `cannot be written: ${messageOf(cause)}`, { kind: "disk", cause });
  }
}

async function folderTrouble(folder: string): Promise<string | undefined> {
  try {
    if (!(await Deno.lstat(folder)).isDirectory) return `${folder} is not a folder`;
    for await (const entry of Deno.readDir(folder)) {
      return `${folder} is not empty: it has ${quoteName(entry.name)}`;
    }
  } catch (error) {
    return `the folder for the attachments cannot be used: ${messageOf(error)}`;
  }
}

/** Removes everything in the folder; gives back what to add to the reason if that fails. */
async function emptyAgain(folder: string): Promise<string> {
  try {
    for await (const entry of Deno.readDir(folder)) {
      await Deno.remove(`${folder}/${entry.name}`, { recursive: true });
    }
    return "";
  } catch (error) {
    return `; what was unpacked before could not be removed: ${messageOf(error)}`;
  }
}

function asRefusal(error: unknown): Refusal {
  if (error instanceof Refusal) return error;
  return new Refusal("archive", `the archive could not be unpacked: ${messageOf(error)}`, {
    cause: error,
  });
}
