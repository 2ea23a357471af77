import { assertEquals } from "@std/assert";
import { loadConnectors } from "../../connectors/registry.ts";
import { mergePrograms, type ProgramNeed } from "../../connectors/support/process/programs.ts";
import { SCENES } from "./support/scenes.ts";

/** What the scenes' configurations and jobs name themselves. */
const NAMED_BY_CONFIGURATION = ["cycle", "pdu", "power", "tool"];

const SOURCES = new URL("../../connectors", import.meta.url).pathname;

function sources(folder: string): string {
  return [...Deno.readDirSync(folder)].map(({ name, isDirectory }) =>
    isDirectory
      ? sources(`${folder}/${name}`)
      : name === "programs.ts"
      ? ""
      : Deno.readTextFileSync(`${folder}/${name}`)
  ).join("\n");
}

Deno.test("each connector declares every program that a stage of it calls", async () => {
  const needs = new Map(
    (await loadConnectors()).map(({ name, programs }) => [name, programs.map(({ name }) => name)]),
  );
  const undeclared = SCENES.flatMap(({ connector, stage, programs }) => {
    const declared = needs.get(connector) ?? [];
    return programs
      .filter((name) => !declared.includes(name) && !NAMED_BY_CONFIGURATION.includes(name))
      .map((name) => `${connector} ${stage} calls ${name}`);
  });
  assertEquals(undeclared, []);
});

Deno.test("each connector calls the programs that it cannot do without, and each is called by the code", async () => {
  const text = sources(SOURCES);
  for (const { name: connector, programs } of await loadConnectors()) {
    const called = SCENES.filter((scene) => scene.connector === connector)
      .flatMap((scene) => scene.programs);
    for (const { name, onlyFor } of programs) {
      assertEquals(text.includes(`"${name}"`), true, name);
      if (onlyFor === undefined) assertEquals(called.includes(name), true, `${connector} ${name}`);
    }
  }
});

Deno.test("of two needs for one program the one that is always there counts, else both are named", () => {
  const need = (onlyFor?: string): ProgramNeed => ({
    name: "x",
    install: "i",
    ...(onlyFor !== undefined && { onlyFor }),
  });
  assertEquals(mergePrograms([need("a"), need()]), [need()]);
  assertEquals(mergePrograms([need(), need("a")]), [need()]);
  assertEquals(mergePrograms([need("a"), need("b"), need("b")]), [need("a, b")]);
  assertEquals(mergePrograms([need("a"), need("a")]), [need("a")]);
});
