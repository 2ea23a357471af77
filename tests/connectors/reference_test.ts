import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { CONNECTOR_NAMES, loadConnectors } from "../../connectors/registry.ts";
import { Lab } from "./support/lab.ts";

Deno.test("list names every device type with what it does", async () => {
  await using lab = await Lab.open();
  const { code, stdout } = await lab.run(["list"]);
  assertEquals(code, 0);
  assertEquals(
    stdout.trimEnd().split("\n").map((line) => line.trim().split(/\s+/)[0]),
    CONNECTOR_NAMES,
  );
});

Deno.test("describe tells type, default and meaning of every key, each with words of its own", async () => {
  await using lab = await Lab.open();
  for (const connector of await loadConnectors()) {
    const { code, stdout } = await lab.run(["describe", connector.name]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, `${connector.name}: ${connector.summary}`);
    const lines = stdout.split("\n");
    for (const key of Object.keys({ ...connector.configShape, ...connector.provisionShape })) {
      const at = lines.findIndex((line) => line.startsWith(`  ${key} (`));
      assert(at >= 0, `${connector.name}: ${key} is not described`);
      assert((lines[at + 1] ?? "").trim() !== "", `${connector.name}: ${key} has no meaning`);
    }
  }
});

Deno.test("describe shows defaults as they would stand in the file", async () => {
  await using lab = await Lab.open();
  const { stdout } = await lab.run(["describe", "noprovision"]);
  assertStringIncludes(stdout, "  ssh_port (port, default 22)\n");
  assertStringIncludes(stdout, "  env (mapping of name to text, default {})\n");
  assertStringIncludes(stdout, "  device_ip (text, needed to provision)\n");
});

Deno.test("docs/connectors.md is what describe --markdown prints", async () => {
  await using lab = await Lab.open();
  const { stdout } = await lab.run(["describe", "--markdown"]);
  const written = await Deno.readTextFile(new URL("../../docs/connectors.md", import.meta.url));
  // When this fails: deno task docs
  assertEquals(written, stdout);
});
