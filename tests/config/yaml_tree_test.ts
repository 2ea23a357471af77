import { assert, assertEquals } from "@std/assert";
import * as z from "zod";
import {
  accepted,
  complaints,
  complaintsAbout,
  read,
  valueOf,
  warningsAbout,
} from "./file_with.ts";

Deno.test("words mean what PyYAML makes of them", async () => {
  assertEquals(
    await valueOf(`
boolean: [yes, Yes, on, TRUE, no, Off, false]
text: [y, n, N, 1e3, 0o10, '09', 0b, =, 1_000a, 'yes', "1", "~", 1:60]
octal: [010, -017, 0_7]
decimal: [0, +1, -12, 1_000]
hexadecimal: [0x1F, -0x_a]
binary: [0b101]
sexagesimal: [1:30, 190:20:30, -1:30, 1:30.5]
float: [1.5, .5, 1., -1.5e+3, 685_230.15]
nothing: [~, null, NULL, ]
`),
    {
      boolean: [true, true, true, true, false, false, false],
      text: ["y", "n", "N", "1e3", "0o10", "09", "0b", "=", "1_000a", "yes", "1", "~", "1:60"],
      octal: [8, -15, 7],
      decimal: [0, 1, -12, 1000],
      hexadecimal: [31, -10],
      binary: [5],
      sexagesimal: [90, 685230, -90, 90.5],
      float: [1.5, 0.5, 1, -1500, 685230.15],
      nothing: [null, null, null],
    },
  );
});

Deno.test("infinity and not-a-number are numbers", async () => {
  assertEquals(await valueOf("a: [.inf, -.INF, .nan]"), { a: [Infinity, -Infinity, NaN] });
});

Deno.test("a YAML directive does not change what words mean", async () => {
  assertEquals(await valueOf("%YAML 1.2\n---\na: yes\n"), { a: true });
});

Deno.test("explicit tags of the standard types are honoured", async () => {
  assertEquals(
    await valueOf(`a: !!str 1\nb: !!int "5"\nc: !!float 1\nd: !!bool "yes"\ne: ! 12\nf: !!null ""`),
    { a: "1", b: 5, c: 1, d: true, e: 12, f: null },
  );
});

Deno.test("anchors and aliases give copies", async () => {
  const value = await valueOf("a: &x [1, 2]\nb: *x\n");
  assertEquals(value, { a: [1, 2], b: [1, 2] });
});

Deno.test("merge keys give way to the mapping's own keys and to earlier sources", async () => {
  assertEquals(
    await valueOf(`
a: &a {x: 1, y: 1}
b: &b {x: 2, z: 2}
c: {x: own, <<: *a}
d: {<<: [*a, *b]}
e: {"<<": text}
`),
    {
      a: { x: 1, y: 1 },
      b: { x: 2, z: 2 },
      c: { x: "own", y: 1 },
      d: { x: 1, y: 1, z: 2 },
      e: { "<<": "text" },
    },
  );
});

Deno.test("merging something that is no mapping is a mistake", async () => {
  assertEquals(await complaintsAbout("a: 1\n<<: [1]\n"), [
    "agent.conf:2:6: ['<<']: is the number '1', must be a mapping or a list of mappings",
  ]);
});

Deno.test("keys that are no text become what Python's json module makes of them", async () => {
  const result = await read("1: a\n010: b\nyes: c\n1.10: d\n2.0: e\n~: f\n");
  assertEquals(accepted(result), {
    "1": "a",
    "8": "b",
    true: "c",
    "1.1": "d",
    "2.0": "e",
    null: "f",
  });
  assertEquals(complaints(result), [
    "agent.conf:2:1: the key '010' is read as '8': put it in quotes",
    "agent.conf:3:1: the key 'yes' is read as 'true': put it in quotes",
    "agent.conf:4:1: the key '1.10' is read as '1.1': put it in quotes",
    "agent.conf:6:1: the key '~' is read as 'null': put it in quotes",
  ]);
});

Deno.test("keys that cannot be keys are mistakes", async () => {
  assertEquals(await complaintsAbout("? [1, 2]\n: a\n2020-01-01: b\n__proto__: c\n"), [
    "agent.conf:1:3: a list is used as a key, a key must be text",
    "agent.conf:3:1: the date '2020-01-01' is used as a key, a key must be text: put it in quotes",
    "agent.conf:4:1: the key '__proto__' is not possible: give it another name",
  ]);
});

Deno.test("keys named like members of JavaScript objects are ordinary keys", async () => {
  assertEquals(await valueOf("constructor: 1\ntoString: 2\n"), { constructor: 1, toString: 2 });
  assertEquals(await complaintsAbout("constructor:\n", z.strictObject({ a: z.int().optional() })), [
    "agent.conf:1:1: constructor: is not a known key, must be 'a'",
  ]);
});

Deno.test("of a key that is there twice the last one counts, with a warning", async () => {
  const result = await read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n");
  assertEquals(accepted(result), { a: 3, b: { c: 2 } });
  assertEquals(complaints(result), [
    "agent.conf:4:3: b.c: is there twice, this one counts: remove it or the one in line 3",
    "agent.conf:5:1: a: is there twice, this one counts: remove it or the one in line 1",
  ]);
});

Deno.test("merged keys are no repeated keys", async () => {
  assertEquals(await warningsAbout("a: &a {x: 1}\nb: {<<: *a, x: 2}\n"), []);
});

Deno.test("aliases that multiply are refused before they are expanded", async () => {
  const levels = ["a: &a [x, x, x, x, x, x, x, x, x, x]"];
  for (let level = 0; level < 20; level++) {
    const [from, to] = [String.fromCharCode(97 + level), String.fromCharCode(98 + level)];
    levels.push(`${to}: &${to} [${Array(10).fill(`*${from}`).join(", ")}]`);
  }
  assertEquals(await complaintsAbout(levels.join("\n")), [
    "agent.conf:5:36: more than 100000 values, counting what aliases stand for",
  ]);
});

Deno.test("merges that multiply are refused too", async () => {
  const keys = Array.from({ length: 1000 }, (_, index) => `k${index}: 1`).join(", ");
  const merges = Array.from({ length: 1000 }, (_, index) => `m${index}: {<<: *base}`);
  const [complaint] = await complaintsAbout([`base: &base {${keys}}`, ...merges].join("\n"));
  assertEquals(
    complaint,
    "agent.conf:99:11: more than 100000 values, counting what aliases stand for",
  );
});

Deno.test("lists in lists without end are refused", async () => {
  assertEquals(await complaintsAbout(`a: ${"[".repeat(300)}${"]".repeat(300)}`), [
    "agent.conf:1:204: more than 200 levels deep",
  ]);
  const far = await complaintsAbout(`a: ${"[".repeat(100_000)}`);
  assert(far.length > 0);
});
