import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Lab } from "./support/lab.ts";

const FRAME = "*".repeat(40);

Deno.test("01-fake-connector 1: provision prints provision_data between two lines of stars", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1", device_ip: "10.1.1.1" });
  await lab.job({ provision_data: { url: "x", n: 1 } });
  const { code, stdout } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 0);
  assertStringIncludes(stdout, `{\n    "url": "x",\n    "n": 1\n}\n`);
  assertEquals(stdout.split("\n").filter((line) => line === FRAME).length, 2);
});

Deno.test("01-fake-connector 2: an empty job prints {}", async () => {
  await using lab = await Lab.open();
  await lab.config({ agent_name: "a1" });
  await lab.job({});
  const { code, stdout } = await lab.stage("fake_connector", "provision");
  assertEquals(code, 0);
  assertMatch(stdout, /^\{\}$/m);
});
