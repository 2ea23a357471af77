import { refuseMember } from "./refusal.ts";
import type { Member } from "./tar_reader.ts";

/** The phases that may have attachments; each has them in a folder of its name. */
const PHASE_FOLDERS = ["provision", "firmware_update", "test"];

/** Limits on what an archive may lay out. */
export interface LayoutLimits {
  /** Members, the folders that their names imply included. */
  maxMembers: number;
  /** Bytes in one part of a name, between two slashes. */
  maxName: number;
}

/** Where a member goes: paths relative to the folder, made of plain names only. */
export interface Placement {
  path: string;
  /** Folders above it that have to be made first, the outermost first. */
  newFolders: string[];
  /** Whether a folder is already there (implied by an earlier member or listed before). */
  exists: boolean;
  /** For a hard link: the file that it links to. */
  linkTo?: string;
}

/**
 * Decides where members go, from names alone. It knows every path that has been laid out in the
 * fresh folder and of what kind it is; only a path whose parents are all real folders made here
 * is given out, so that nothing is ever created through a link.
 */
export class FolderLayout {
  readonly #entries = new Map<string, "file" | "directory" | "symlink">();
  readonly #limits: LayoutLimits;

  constructor(limits: LayoutLimits) {
    this.#limits = limits;
  }

  /**
   * @returns undefined for a member that stands for the folder itself (`./`).
   * @throws {Refusal} naming the member.
   */
  place(member: Member): Placement | undefined {
    const parts = this.#parts(member.name, member.name);
    if (parts.length === 0 && member.type === "directory") return undefined;
    const top = parts[0];
    if (
      top === undefined || !PHASE_FOLDERS.includes(top) ||
      (parts.length === 1 && member.type !== "directory")
    ) {
      throw refuseMember(member.name, "is not in provision/, firmware_update/ or test/");
    }

    const newFolders: string[] = [];
    for (let depth = 1; depth < parts.length; depth++) {
      const parent = parts.slice(0, depth).join("/");
      switch (this.#entries.get(parent)) {
        case undefined:
          this.#add(parent, "directory", member.name);
          newFolders.push(parent);
          break;
        case "symlink":
          throw refuseMember(member.name, "leads through a link of the archive");
        case "file":
          throw refuseMember(member.name, "has a file of the archive as its folder");
        case "directory":
      }
    }

    const path = parts.join("/");
    const there = this.#entries.get(path);
    if (there !== undefined && !(there === "directory" && member.type === "directory")) {
      throw refuseMember(member.name, `would overwrite a ${there} of the archive`);
    }
    const placement: Placement = { path, newFolders, exists: there !== undefined };
    if (member.type === "symlink") checkSymlink(member, parts.length - 1);
    if (member.type === "hardlink") placement.linkTo = this.#linkedFile(member);
    this.#add(path, member.type === "hardlink" ? "file" : member.type, member.name);
    return placement;
  }

  #add(path: string, kind: "file" | "directory" | "symlink", name: string): void {
    this.#entries.set(path, kind);
    if (this.#entries.size > this.#limits.maxMembers) {
      throw refuseMember(name, `is one member too many (at most ${this.#limits.maxMembers})`);
    }
  }

  #linkedFile(member: Member): string {
    const path = this.#parts(member.target, member.name).join("/");
    if (this.#entries.get(path) !== "file") {
      throw refuseMember(member.name, "is a hard link to something that is no earlier file");
    }
    return path;
  }

  #parts(path: string, memberName: string): string[] {
    if (path.startsWith("/")) {
      const what = path === memberName ? "is an absolute name" : "is a link to an absolute name";
      throw refuseMember(memberName, what);
    }
    const parts = path.split("/").filter((part) => part !== "" && part !== ".");
    for (const part of parts) {
      if (part === "..") throw refuseMember(memberName, `climbs out with ".."`);
      if (byteLength(part) > this.#limits.maxName) {
        throw refuseMember(
          memberName,
          `has a part of ${byteLength(part)} bytes in its name (at most ${this.#limits.maxName})`,
        );
      }
    }
    return parts;
  }
}

/**
 * A link may climb only at the beginning of its target, and no higher than the folder. The place
 * where it stands has only real folders above it, so that those steps lead where they say; what
 * follows only goes down, and where it meets another link this holds for that one. A `..` further
 * on could climb from wherever a link before it has led.
 */
function checkSymlink(member: Member, depth: number): void {
  if (member.target.startsWith("/")) {
    throw refuseMember(member.name, "is a link to an absolute name");
  }
  const parts = member.target.split("/").filter((part) => part !== "" && part !== ".");
  const down = parts.findIndex((part) => part !== "..");
  const climbs = down === -1 ? parts.length : down;
  if (climbs > depth) throw refuseMember(member.name, "is a link that leads out");
  if (parts.slice(climbs).includes("..")) {
    throw refuseMember(member.name, `is a link with ".." after a name in its target`);
  }
}

function byteLength(text: string): number {
  return new TextEncoder().encode(text).length;
}
