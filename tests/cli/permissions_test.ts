import { assert, assertEquals } from "@std/assert";
import { PERMISSIONS } from "../../lib/cli/command.ts";

const ROOT = new URL("../..", import.meta.url);

async function read(path: string): Promise<string> {
  return await Deno.readTextFile(new URL(path, ROOT));
}

async function tasks(): Promise<Record<string, string>> {
  return JSON.parse(await read("deno.json")).tasks;
}

/** `--allow-x` of each flag, without what it is narrowed to. */
function granted(command: string): string[] {
  return [...command.matchAll(/--allow-[a-z]+/g)].map(([flag]) => flag);
}

Deno.test("every permission that a task or the program asks for has its reason in docs/security.md", async () => {
  const page = await read("docs/security.md");
  const reasons = new Set(
    [...page.matchAll(/^\| `(--allow-[a-z]+)` +\|/gm)].map(([, flag]) => flag),
  );
  const asked = new Set(granted([...Object.values(await tasks()), ...PERMISSIONS].join(" ")));
  assertEquals([...asked].sort(), [...reasons].sort());
  for (const kind of PERMISSIONS.at(-1)?.split("=")[1]?.split(",") ?? []) {
    assert(page.includes(`\`${kind}\` (`), `no reason for ${kind}`);
  }
});

Deno.test("nothing asks for all permissions, or for what is unstable", async () => {
  const commands = { ...await tasks(), program: PERMISSIONS.join(" ") };
  for (const [name, command] of Object.entries(commands)) {
    assert(!/--allow-all|--unstable|(^|\s)-[a-zA-Z]*A/.test(command), `${name}: ${command}`);
  }
});

Deno.test("every file that docs/security.md names is there", async () => {
  const page = await read("docs/security.md");
  const named = new Set(
    [...page.matchAll(/`((?:lib|tests)\/[\w./]+?)`/g)].map(([, path]) => path ?? ""),
  );
  assert(named.size > 40, `only ${named.size} files`);
  const missing = [];
  for (const path of named) {
    if (await Deno.lstat(new URL(path, ROOT)).catch(() => undefined) === undefined) {
      missing.push(path);
    }
  }
  assertEquals(missing, []);
});
