import { assertEquals } from "@std/assert";

/** How many acceptance cases the specification of each connector has, by its name there. */
const ROWS: Readonly<Record<string, number>> = {
  "00-common": 15,
  "01-fake-connector": 7,
  "02-noprovision": 8,
  "03-maas2": 14,
  "04-maas-storage": 12,
  "05-multi": 12,
  "06-control-host-rest": 14,
  "07-control-host-iot": 13,
  "08-control-host-kvm": 13,
  "09-oemscript": 12,
  "10-oemrecovery": 10,
  "11-oem-autoinstall": 14,
  "12-muxpi": 16,
  "13-cm3": 10,
  "14-dragonboard": 10,
  "15-netboot": 11,
  "16-firmware-update": 14,
};

Deno.test("every acceptance case of the connectors has a test that carries its name", async () => {
  const names: string[] = [];
  for await (const text of testFiles(new URL("./", import.meta.url))) {
    names.push(...testNames(text));
  }
  assertEquals(compare(names), { untested: [], unknown: [] });
});

Deno.test("an acceptance case whose test is gone, ignored, commented out or renamed is noticed", () => {
  const all = Object.entries(ROWS).flatMap(([file, rows]) =>
    Array.from({ length: rows }, (_, i) => `Deno.test("${file} ${i + 1}: something", () => {});`)
  );
  const untested = (change: (line: string) => string) =>
    compare(testNames(
      all.map((line) => line.includes("12-muxpi 15") ? change(line) : line)
        .join("\n"),
    )).untested;
  assertEquals(untested((line) => line), []);
  assertEquals(untested(() => ""), ["12-muxpi 15"]);
  assertEquals(untested((line) => `// ${line}`), ["12-muxpi 15"]);
  assertEquals(untested((line) => line.replace(".test(", ".test.ignore(")), ["12-muxpi 15"]);
  assertEquals(untested((line) => line.replace("15:", "150:")), ["12-muxpi 15"]);
  assertEquals(compare(["12-muxpi 17: one too many", "any other"]).unknown, ["12-muxpi 17"]);
});

/** The names of the tests in a file: those that run. */
function testNames(text: string): string[] {
  return [...text.matchAll(/^ *Deno\.test\(\s*["`]([^"`]*)/gm)].map(([, name = ""]) => name);
}

function compare(names: readonly string[]): { untested: string[]; unknown: string[] } {
  const rows = Object.entries(ROWS).flatMap(([file, count]) =>
    Array.from({ length: count }, (_, i) => `${file} ${i + 1}`)
  );
  const tested = names.flatMap((name) => /^(\d\d-[a-z0-9-]+ \d+):/.exec(name)?.[1] ?? []);
  return {
    untested: rows.filter((row) => !tested.includes(row)),
    unknown: tested.filter((row) => !rows.includes(row)),
  };
}

async function* testFiles(folder: URL): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const url = new URL(entry.isDirectory ? `${entry.name}/` : entry.name, folder);
    if (entry.isDirectory) yield* testFiles(url);
    else if (entry.name.endsWith("_test.ts")) yield await Deno.readTextFile(url);
  }
}
