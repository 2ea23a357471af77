import { assertEquals } from "@std/assert";
import { fillTemplate } from "../../connectors/support/templates.ts";

const VALUES = {
  device_ip: "10.1.1.1",
  port: 7001,
  flag: true,
  nothing: null,
  list: ["a", "it's", 'say "x"'],
  env: { FOO: "bar", N: 5 },
};

Deno.test("a template's names and keys are filled in, everything unknown stays", () => {
  for (
    const [text, filled] of [
      ["{{}}{device_ip}", "{}10.1.1.1"],
      ["{{{device_ip}}}", "{10.1.1.1}"],
      ["{{ {env[FOO]} {env[N]} {port}", "{ bar 5 7001"],
      ["{{ ${HOME} {nope} {nope[x]} {nope.x} {}", "{ ${HOME} {nope} {nope[x]} {nope.x} {}"],
      ["{{ {list[0]} {list[1]}", "{ a it's"],
      ["no braces", "no braces"],
      ["{device_ip} alone", "{device_ip} alone"],
    ] as const
  ) assertEquals(fillTemplate(text, VALUES).text, filled);
});

Deno.test("values that are not text are written as Python writes them", () => {
  for (
    const [text, filled] of [
      ["{{{flag}", "{True"],
      ["{{{nothing}", "{None"],
      ["{{{list}", `{['a', "it's", 'say "x"']`],
      ["{{{env}", "{{'FOO': 'bar', 'N': 5}"],
    ] as const
  ) assertEquals(fillTemplate(text, VALUES).text, filled);
});

Deno.test("what Python would refuse is left as it is, and named", () => {
  for (
    const [text, filled, refused] of [
      ["{{ {env.FOO}", "{ {env.FOO}", ["{env.FOO}"]],
      ["{{ {device_ip!r}", "{ {device_ip!r}", ["{device_ip!r}"]],
      ["{{ {device_ip:>20}", "{ {device_ip:>20}", ["{device_ip:>20}"]],
      ["{{ {env[NOPE]}", "{ {env[NOPE]}", ["{env[NOPE]}"]],
      ["{{ {list[9]}", "{ {list[9]}", ["{list[9]}"]],
      ["{{ lone }", "{ lone }", ["}"]],
      ["{{ f() { echo {device_ip}; }", "{ f() { echo 10.1.1.1; }", ["{", "}"]],
    ] as const
  ) {
    const result = fillTemplate(text, VALUES);
    assertEquals(result.text, filled);
    assertEquals(result.refused, [...refused]);
  }
});

Deno.test("names of every object, such as 'constructor', are no variables", () => {
  assertEquals(
    fillTemplate("{{ {constructor} {env[toString]}", VALUES).text,
    "{ {constructor} {env[toString]}",
  );
});
