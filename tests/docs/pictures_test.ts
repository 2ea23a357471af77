/** The pictures of the documents. */
import { assert, assertEquals } from "@std/assert";

const ROOT = new URL("../../", import.meta.url).pathname;

/** They are downloaded with every checkout; bytes. */
const MOST_BYTES = 150_000;

Deno.test("every picture of a document is there, small and described, and there is no other one", async () => {
  const pages = ["README.md"];
  for await (const { name } of Deno.readDir(`${ROOT}docs`)) {
    if (name.endsWith(".md")) pages.push(`docs/${name}`);
  }
  const shown: string[] = [];
  for (const page of pages) {
    const text = await Deno.readTextFile(ROOT + page);
    for (const [, words = "", path = ""] of text.matchAll(/!\[([^\]]*)\]\(([^)]+)\)/g)) {
      const file = new URL(path, `file://${ROOT}${page}`).pathname;
      const bytes = await Deno.readFile(file);
      assert(words.length > 20, `${page}: ${path} needs a description for those who cannot see it`);
      assert(bytes.length < MOST_BYTES, `${path} has ${bytes.length} bytes`);
      assertEquals([...bytes.slice(1, 4)], [..."PNG"].map((letter) => letter.charCodeAt(0)), path);
      shown.push(file);
    }
  }
  const kept = (await Array.fromAsync(Deno.readDir(`${ROOT}docs/images`)))
    .map(({ name }) => `${ROOT}docs/images/${name}`);
  assertEquals(shown.toSorted(), kept.toSorted());
});
