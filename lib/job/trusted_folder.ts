/**
 * Whether a folder can be trusted to hold what the agent puts into it. The folders of the established
 * defaults are below `/tmp`, where any account can have made them first: whoever owns a folder can
 * put something else in the place of whatever is in it.
 */
import { dirname, join, resolve } from "../path.ts";

const STICKY = 0o1000;
const OTHERS_WRITE = 0o002;

/** Where the kernel gives up, too. */
const MOST_LINKS = 40;

/** What there is to say of a folder. */
export interface FolderTrust {
  /** Why it must not be used, as a sentence without its end; undefined when it may be. */
  refusal?: string;
  /** Folders on the way to it in which every account may replace what is there. */
  open: string[];
}

/**
 * Follows the way to a folder, links included. Below a folder that everybody may write to, `/tmp` for
 * one, each step must belong to root or to the agent's user. Elsewhere whoever made the folders has
 * decided who may write to them.
 *
 * @param path exists.
 * @param uid the agent's user.
 * @throws {Error} what the file system says.
 */
export function examineFolder(path: string, uid: number): FolderTrust {
  const open: string[] = [];
  const ahead = partsOf(resolve(path));
  let at = "/";
  let exposed = false;
  let links = 0;
  for (let step; (step = ahead.shift()) !== undefined;) {
    if (step === "..") {
      at = dirname(at);
      continue;
    }
    const place = join(at, step);
    const info = Deno.lstatSync(place);
    if (exposed && info.uid !== 0 && info.uid !== uid) {
      return {
        refusal: `${place} belongs to user ${info.uid}, who could replace whatever is put into it`,
        open,
      };
    }
    if (info.isSymlink) {
      if (++links > MOST_LINKS) return { refusal: `${path} leads through too many links`, open };
      const target = Deno.readLinkSync(place);
      if (target.startsWith("/")) {
        at = "/";
        exposed = false;
      }
      ahead.unshift(...partsOf(target));
      continue;
    }
    const mode = info.mode ?? 0;
    if ((mode & OTHERS_WRITE) !== 0) {
      exposed = true;
      if ((mode & STICKY) === 0) open.push(place);
    }
    at = place;
  }
  return { open };
}

function partsOf(path: string): string[] {
  return path.split("/").filter((part) => part !== "" && part !== ".");
}
