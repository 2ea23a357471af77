import { assertEquals } from "@std/assert";

/** How many acceptance cases the specification of each connector has, by its name there. */
const ROWS: Readonly<Record<string, number>> = {
  "00-common": 15,
  "01-fake-connector": 7,
  "02-noprovision": 8,
  "03-maas2": 14,
  "04-maas-storage": 12,
  "05-multi": 12,
  "10-oemrecovery": 10,
  "12-muxpi": 15,
};

Deno.test("every acceptance case of the connectors has a test that carries its name", async () => {
  let names = "";
  for await (const text of testFiles(new URL("./", import.meta.url))) {
    names += [...text.matchAll(/Deno\.test\(\s*["`]([^"`]*)/g)].map(([, name]) => `${name}\n`)
      .join("");
  }
  const missing = Object.entries(ROWS).flatMap(([file, rows]) =>
    Array.from({ length: rows }, (_, i) => `${file} ${i + 1}`)
      .filter((row) => !new RegExp(`^${row}:`, "m").test(names))
  );
  assertEquals(missing, []);
});

async function* testFiles(folder: URL): AsyncGenerator<string> {
  for await (const entry of Deno.readDir(folder)) {
    const url = new URL(entry.isDirectory ? `${entry.name}/` : entry.name, folder);
    if (entry.isDirectory) yield* testFiles(url);
    else if (entry.name.endsWith("_test.ts")) yield await Deno.readTextFile(url);
  }
}
