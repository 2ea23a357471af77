/** Making and removing the files in /tmp by which an administrator asks something of an agent. */
import { sharedLockPath } from "../../agent/lock.ts";
import { type MarkerKind, markerPaths } from "../../agent/markers.ts";
import { join } from "../../path.ts";
import { type AgentRef, SHARED_FOLDER } from "./agent_ref.ts";

/** Whose files an agent takes for requests. */
interface Owner {
  uid: number;
  gid: number;
}

/** The path of a marker; the other spelling, without dashes, is only looked for. */
function pathsOf({ id }: AgentRef, kind: MarkerKind): string[] {
  return markerPaths(kind, { agentId: id, folder: SHARED_FOLDER });
}

/** As whom the agent runs, or would; undefined when that cannot be told. */
async function ownerOf({ folder, id }: AgentRef): Promise<Owner | undefined> {
  // Where its own folder may not be looked at, there is still its lock that everybody sees.
  const lock = sharedLockPath(SHARED_FOLDER, id);
  for (const path of [folder, lock]) {
    const info = await Deno.lstat(path).catch(() => undefined);
    if (info === undefined || info.uid === null || info.gid === null) continue;
    return { uid: info.uid, gid: info.gid };
  }
  return undefined;
}

/** Why a marker that this process makes would not count for the agent. */
export async function whyMarkerIgnored(agent: AgentRef): Promise<string | undefined> {
  const us = Deno.uid();
  if (us === 0) return undefined;
  const owner = await ownerOf(agent);
  if (owner === undefined || owner.uid === us) return undefined;
  return owner.uid === 0
    ? "the agent runs as root: try as root"
    : `the agent runs as user ${owner.uid}, and ignores requests of others than that user and root: try as root`;
}

/** The markers of that kind which are there. */
export async function presentMarkers(agent: AgentRef, kind: MarkerKind): Promise<string[]> {
  const present: string[] = [];
  for (const path of pathsOf(agent, kind)) {
    if (await Deno.lstat(path).then(() => true, () => false)) present.push(path);
  }
  return present;
}

/**
 * Makes a marker, in place of one that is there.
 *
 * @throws what the file system says.
 */
export async function makeMarker(
  agent: AgentRef,
  kind: MarkerKind,
  content: string,
): Promise<string> {
  const [path = ""] = pathsOf(agent, kind);
  // Whole from the first moment on, and never through another user's link.
  const fresh = join(SHARED_FOLDER, `.testflinger-${crypto.randomUUID()}`);
  await Deno.writeTextFile(fresh, content, { createNew: true, mode: 0o644 });
  try {
    const owner = await ownerOf(agent);
    // /tmp lets an agent that is not root remove only what is its own.
    if (owner !== undefined && Deno.uid() === 0) await Deno.chown(fresh, owner.uid, owner.gid);
    await Deno.rename(fresh, path);
  } catch (error) {
    await Deno.remove(fresh).catch(() => {});
    throw await inWords(error, path);
  }
  return path;
}

/**
 * Removes the markers of that kind.
 *
 * @returns those that were there.
 * @throws what the file system says.
 */
export async function removeMarkers(agent: AgentRef, kind: MarkerKind): Promise<string[]> {
  const present = await presentMarkers(agent, kind);
  for (const path of present) {
    await Deno.remove(path).catch(async (error) => {
      if (!(error instanceof Deno.errors.NotFound)) throw await inWords(error, path);
    });
  }
  return present;
}

/** /tmp is sticky: what lies there, only its owner and root may replace or remove. */
async function inWords(error: unknown, path: string): Promise<unknown> {
  const isDenied = error instanceof Deno.errors.PermissionDenied ||
    error instanceof Deno.errors.NotCapable;
  const uid = await Deno.lstat(path).then((info) => info.uid, () => null);
  if (!isDenied || uid === null) return error;
  const whose = uid === 0 ? "root" : `user ${uid}`;
  return new Error(`${path} is ${whose}'s, and only ${whose} may remove it: try as root`, {
    cause: error,
  });
}
