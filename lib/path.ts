/**
 * Paths of files, as `node:path` has them on POSIX systems, and whether something is there. That one takes
 * 8 ms to load, which each start of the program, and so each phase of a connector, would wait for.
 */

/** Without what says nothing: `.`, empty parts, and `..` behind a name. A slash at the end stays. */
export function normalize(path: string): string {
  const isFromRoot = isAbsolute(path);
  const parts: string[] = [];
  for (const part of path.split("/")) {
    if (part === "" || part === ".") continue;
    if (part !== "..") parts.push(part);
    else if (parts.length > 0 && parts.at(-1) !== "..") parts.pop();
    else if (!isFromRoot) parts.push("..");
  }
  const whole = parts.join("/");
  if (isFromRoot && whole === "") return "/";
  const end = path.endsWith("/") ? "/" : "";
  return `${isFromRoot ? "/" : ""}${whole || "."}${end}`;
}

/** Whether it begins at the root. */
export function isAbsolute(path: string): boolean {
  return path.startsWith("/");
}

/** One below the other, normalized. */
export function join(...paths: string[]): string {
  return normalize(paths.filter((path) => path !== "").join("/"));
}

/** From the root: each is seen from the one before it, and the first from the working directory. */
export function resolve(...paths: string[]): string {
  let whole = "";
  for (const path of paths.toReversed()) {
    if (path === "") continue;
    whole = `${path}/${whole}`;
    if (isAbsolute(path)) break;
  }
  if (!isAbsolute(whole)) whole = `${Deno.cwd()}/${whole}`;
  return withoutSlashes(normalize(whole)) || "/";
}

/** The folder that it is in. */
export function dirname(path: string): string {
  const bare = withoutSlashes(path);
  const slash = bare.lastIndexOf("/");
  if (slash < 0) return bare === "" && isAbsolute(path) ? "/" : ".";
  return withoutSlashes(bare.slice(0, slash)) || "/";
}

/** The last part of it, without this end where it has one. */
export function basename(path: string, end = ""): string {
  const bare = withoutSlashes(path);
  const name = bare.slice(bare.lastIndexOf("/") + 1);
  return name !== end && name.endsWith(end) ? name.slice(0, name.length - end.length) : name;
}

function withoutSlashes(path: string): string {
  let { length } = path;
  while (path[length - 1] === "/") length--;
  return path.slice(0, length);
}

/** Whether something has this name, be it a link to nowhere; false where nobody can tell. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch {
    return false;
  }
}
