import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { formatMistake } from "../../lib/config/mistake.ts";
import { readYaml } from "../../lib/config/yaml_file.ts";
import { accepted, Anything, Device } from "./file_with.ts";

/** Raise to search harder; this many keep the tests quick. */
const NUM_RUNS = 300;

/** Reads as the agent does and checks what holds for every input. */
function readsOrComplains(text: string | Uint8Array): void {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  for (const schema of [Device, Anything]) {
    const result = readYaml(bytes, schema, { file: "f" });
    const mistakes = result.ok ? result.warnings : result.mistakes;
    assert(result.ok || mistakes.length > 0, "refused without a reason");
    for (const mistake of mistakes) {
      const line = formatMistake(mistake);
      assert(/^f(:\d+:\d+)?: ./.test(line), line);
      assert(!/[\p{Cc}\u2028\u2029]/u.test(line), "not one line: " + JSON.stringify(line));
    }
  }
}

Deno.test("any bytes are read or complained about", () => {
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), readsOrComplains), {
    numRuns: NUM_RUNS,
  });
});

Deno.test("any text is read or complained about", () => {
  fc.assert(fc.property(fc.string({ unit: "binary", maxLength: 200 }), readsOrComplains), {
    numRuns: NUM_RUNS,
  });
});

Deno.test("any mixture of YAML's signs is read or complained about", () => {
  const pieces = [
    ..."\n\t :-?#&*!|>'\"%@`[]{},~<",
    "  ",
    ": ",
    "- ",
    "---\n",
    "...\n",
    "<<: ",
    "!!str ",
  ]
    .concat(
      "&a ",
      "*a",
      "name: ",
      "port: ",
      "disk: ",
      "type: ",
      "lvm",
      "yes",
      "1",
      "\\",
      "é",
      "\r\n",
    );
  const text = fc.array(fc.constantFrom(...pieces), { maxLength: 60 }).map((all) => all.join(""));
  fc.assert(fc.property(text, readsOrComplains), { numRuns: NUM_RUNS * 5 });
});

Deno.test("any tree comes back as it was written", () => {
  const key = fc.string({ unit: "grapheme-ascii", maxLength: 8 })
    .filter((name) => name !== "__proto__");
  const tree = fc.letrec((tie) => ({
    node: fc.oneof(
      { maxDepth: 5 },
      fc.integer(),
      fc.boolean(),
      fc.string({ unit: "grapheme-ascii" }),
      fc.array(tie("node"), { maxLength: 4 }),
      tie("mapping"),
    ),
    mapping: fc.dictionary(key, tie("node"), { maxKeys: 5, noNullPrototype: true }),
  })).mapping;
  fc.assert(
    fc.property(tree, fc.constantFrom(0, 2), (written, indent) => {
      // JSON is YAML; a space after each colon makes sure of it.
      const text = JSON.stringify(written, null, indent === 0 ? 1 : indent);
      const result = readYaml(new TextEncoder().encode(text), Anything, { file: "f" });
      assertEquals(accepted(result), written);
    }),
    { numRuns: NUM_RUNS },
  );
});

Deno.test("any tree is judged by a schema without an accident", () => {
  const key = fc.oneof(
    fc.constantFrom(...Object.keys(Device.shape), "type", "address", "nmae", "constructor"),
    fc.string({ maxLength: 5 }),
  );
  const tree = fc.letrec((tie) => ({
    node: fc.oneof(
      { maxDepth: 4 },
      fc.anything({ maxDepth: 1 }),
      fc.constantFrom("lvm", "flat", "fast", 1, 1.5, null, true),
      fc.array(tie("node"), { maxLength: 4 }),
      tie("mapping"),
    ),
    mapping: fc.dictionary(key, tie("node"), { maxKeys: 6 }),
  })).mapping;
  fc.assert(
    fc.property(tree, (written) => readsOrComplains(toJson(written))),
    { numRuns: NUM_RUNS },
  );
});

/** JSON for anything that fast-check makes up; what JSON has no form for is left out. */
function toJson(value: unknown): string {
  return JSON.stringify(
    value,
    (_key, entry: unknown) => typeof entry === "bigint" ? Number(entry) : entry,
    1,
  );
}
