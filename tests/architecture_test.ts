import { exists } from "../lib/path.ts";
import { assertEquals } from "@std/assert";
import { dirname, join, relative, resolve } from "node:path";

const ROOT = resolve(import.meta.dirname ?? "", "..");

/** What each room may import from, besides itself and the leaves: the table of docs/architecture.md says it. */
const ALLOWED = allowedImports();

function allowedImports(): Map<string, string[]> {
  const text = Deno.readTextFileSync(join(ROOT, "docs/architecture.md"));
  const modules = text.slice(text.indexOf("## Modules"), text.indexOf("## How a job"));
  const rows = [...modules.matchAll(/^\| `(lib\/\w+|connectors)` *\|.*\|([^|]*)\|$/gm)];
  const rooms = rows.map(([, room = ""]) => room);
  return new Map(rows.map(([, room = "", knows = ""]) => {
    if (knows.trim() === "everything") return [room, rooms];
    const named = [...knows.matchAll(/`([^`]+)`/g)].map(([, name = ""]) => name);
    return [room, named.map((name) => name.includes("/") ? name : `lib/${name}`)];
  }));
}

/** Open to every room. */
const LEAVES = [
  "lib/backoff.ts",
  "lib/bytes.ts",
  "lib/clock.ts",
  "lib/log.ts",
  "lib/message.ts",
  "lib/once.ts",
  "lib/own_session.ts",
  "lib/path.ts",
  "lib/phases.ts",
  "lib/progress.ts",
  "lib/remove_tree.ts",
  "lib/shell.ts",
  "lib/version.ts",
  "lib/wait.ts",
];

function* sourceFiles(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* sourceFiles(path);
    else if (entry.name.endsWith(".ts")) yield path;
  }
}

/** The project's own files that a file imports, by paths from the root. */
function importsOf(file: string): string[] {
  const text = Deno.readTextFileSync(file);
  return [...text.matchAll(/(?:from|import)\s*\(?\s*"(\.[^"]+)"/g)]
    .map(([, path = ""]) => relative(ROOT, resolve(dirname(file), path)));
}

/** The first way from a file back to itself that is found, type imports included. */
function circleAmong(files: readonly string[]): string[] | undefined {
  const done = new Set<string>();
  const way: string[] = [];
  const visit = (file: string): string[] | undefined => {
    if (way.includes(file)) return [...way.slice(way.indexOf(file)), file];
    if (done.has(file)) return undefined;
    way.push(file);
    for (const imported of importsOf(join(ROOT, file))) {
      const circle = files.includes(imported) ? visit(imported) : undefined;
      if (circle !== undefined) return circle;
    }
    way.pop();
    done.add(file);
    return undefined;
  };
  for (const file of files) {
    const circle = visit(file);
    if (circle !== undefined) return circle;
  }
  return undefined;
}

/** All files of a folder, by paths from the root. */
function filesOf(...folders: string[]): string[] {
  return folders.flatMap((folder) => [...sourceFiles(join(ROOT, folder))])
    .map((file) => relative(ROOT, file));
}

Deno.test("no two files need each other", () => {
  const files = filesOf("lib", "connectors");
  assertEquals(circleAmong(files), undefined);
});

Deno.test("docs/architecture.md says of every room what it may import", () => {
  const rooms = [...Deno.readDirSync(join(ROOT, "lib"))].flatMap(({ name, isDirectory }) =>
    isDirectory ? [`lib/${name}`] : []
  );
  assertEquals([...ALLOWED.keys()].sort(), [...rooms, "connectors"].sort());
});

Deno.test("the files that docs/architecture.md names are there", () => {
  const text = Deno.readTextFileSync(join(ROOT, "docs/architecture.md"));
  const files = new Set(filesOf("lib", "connectors").map((file) => file.split("/").at(-1)));
  const named = [...text.matchAll(/`([\w/]*?\w+\.ts)`/g)].map(([, file = ""]) => file);
  const missing = named.filter((file) =>
    file.includes("/") ? !exists(join(ROOT, file)) : !files.has(file)
  );
  assertEquals(missing, []);
});

for (const [room, allowed] of ALLOWED) {
  Deno.test(`imports of ${room} point the right way`, () => {
    const wrong: string[] = [];
    for (const file of sourceFiles(join(ROOT, room))) {
      for (const imported of importsOf(file)) {
        const isAllowed = [room, ...allowed].some((place) =>
          imported === place || imported.startsWith(`${place}/`)
        );
        if (!isAllowed && !LEAVES.includes(imported)) {
          wrong.push(`${relative(ROOT, file)} imports ${imported}`);
        }
      }
    }
    assertEquals(wrong, []);
  });
}

/** The script of the pages is text in its module, and its state is the page's. */
const PAGE_SCRIPT = "lib/observe/page/script.ts";

/** Counts what one thread of the runtime does for the whole process, which is no one agent's. */
const OF_THE_PROCESS = ["lib/process/folder_watch.ts"];

/** A field of a class itself. */
const STATIC = /^\s+static (?:#\w+|(?!readonly)\w+)(?:: [^=\n]+)? = /m;

/** At the beginning of a line: a variable, or a constant that begins empty and so is to be filled. */
const CHANGES =
  /^(?:export )?(?:let |var |const \w+(?:: [^=\n]+)? = (?:\[\]|\{\}|new (?:Map|Set|WeakMap|WeakSet)(?:<.*>)?\(\));)/m;

Deno.test("no module keeps anything that changes: what does is handed down", () => {
  const keeping = filesOf("lib", "connectors").filter((file) =>
    file !== PAGE_SCRIPT && CHANGES.test(Deno.readTextFileSync(join(ROOT, file))) ||
    !OF_THE_PROCESS.includes(file) && STATIC.test(Deno.readTextFileSync(join(ROOT, file)))
  );
  assertEquals(keeping, []);
});

const EXPORTED =
  /^export (?:async )?(?:abstract )?(?:function\*?|const|class|type|interface) (\w+)/gm;

Deno.test("no name that files of lib or connectors export means two things", () => {
  const places = new Map<string, Set<string>>();
  for (const file of filesOf("lib", "connectors")) {
    for (const [, name = ""] of Deno.readTextFileSync(join(ROOT, file)).matchAll(EXPORTED)) {
      places.set(name, (places.get(name) ?? new Set()).add(file));
    }
  }
  const doubled = [...places].filter(([, files]) => files.size > 1)
    .map(([name, files]) => `${name}: ${[...files].join(", ")}`);
  assertEquals(doubled, []);
});

/** Functions, classes and constants; a type may be exported since a function's options are of it. */
const VALUES = /^export (?:async )?(?:abstract )?(?:function\*?|const|class) (\w+)/gm;

Deno.test("nothing is exported that nothing imports", () => {
  const all = ["main.ts", ...filesOf("lib", "connectors", "tests", "bench", "tools")];
  const words = all.map((file) =>
    [file, new Set(Deno.readTextFileSync(join(ROOT, file)).match(/\w+/g))] as const
  );
  const unused: string[] = [];
  for (const file of filesOf("lib", "connectors")) {
    for (const [, name = ""] of Deno.readTextFileSync(join(ROOT, file)).matchAll(VALUES)) {
      const isUsed = words.some(([other, names]) => other !== file && names.has(name));
      if (!isUsed) unused.push(`${name}: ${file}`);
    }
  }
  assertEquals(unused, []);
});

/** A loop that writes what is left, and a wait for one thing or a time, made by hand. */
const SAID_ONCE = {
  "lib/bytes.ts": /\.write(?:Sync)?\(\w+\.subarray\(/,
  "lib/wait.ts": /Promise\.race\(\[[^\]]*\.sleep\(/,
};

Deno.test("writing all bytes, and waiting for one thing or a time, are written once", () => {
  for (const [place, idea] of Object.entries(SAID_ONCE)) {
    const again = filesOf("lib", "connectors").filter((file) =>
      file !== place && idea.test(Deno.readTextFileSync(join(ROOT, file)))
    );
    assertEquals(again, [], `it is in ${place}`);
  }
});

/** A browser's driver reads this one when it is loaded, and every test that sets it sets the same. */
const BROWSER = "tests/browser/browser.ts";

/** All files of tests run at the same time in one process. */
const SHARED = /\bDeno\.(?:env\.(?:set|delete)|umask|chdir)\(/;

Deno.test("no test changes what its process has only once: see support/script.ts", () => {
  const changing = filesOf("tests").filter((file) =>
    file !== BROWSER && SHARED.test(Deno.readTextFileSync(join(ROOT, file)))
  );
  assertEquals(changing, []);
});
