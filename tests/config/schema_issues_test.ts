import { assertEquals } from "@std/assert";
import * as z from "zod";
import { complaintsAbout, Device, valueOf } from "./file_with.ts";

for (
  const [what, content, expected] of [
    ["a missing key: at the mapping", "# device\nport: 1\n", [
      "d.conf:2:1: name: is missing, must be text",
    ]],
    ["an empty required key: at the key", "port: 1\nname:\n", [
      "d.conf:2:1: name: is empty, must be text",
    ]],
    ["a number for text: says to quote it", "name: 0123\n", [
      "d.conf:1:7: name: is the number '0123', must be text: put it in quotes, '0123'",
    ]],
    ["a boolean for text: says to quote it", "name: on\n", [
      "d.conf:1:7: name: is the boolean 'on', must be text: put it in quotes, 'on'",
    ]],
    ["a date for text: says to quote it", "name: 2020-01-01\n", [
      "d.conf:1:7: name: is the date '2020-01-01', must be text: put it in quotes, '2020-01-01'",
    ]],
    ["text for a number: says to remove the quotes", "name: a\nport: '80'\nratio: x\n", [
      "d.conf:2:7: port: is the text '80', must be a whole number: remove the quotes",
      "d.conf:3:8: ratio: is the text 'x', must be a number",
    ]],
    ["a fraction for a whole number", "name: a\nport: 1.5\n", [
      "d.conf:2:7: port: is the number '1.5', must be a whole number",
    ]],
    ["numbers out of bounds", "name: a\nport: 0\nratio: 2.0\n", [
      "d.conf:2:7: port: is the number '0', must be at least 1",
      "d.conf:3:8: ratio: is the number '2.0', must be less than 2",
    ]],
    ["a number without end", "name: a\nratio: .inf\n", [
      "d.conf:2:8: ratio: is the number '.inf', must be a finite number",
    ]],
    ["a word for a boolean", "name: a\nquiet: 'yes'\n", [
      "d.conf:2:8: quiet: is the text 'yes', must be true or false: remove the quotes",
    ]],
    ["an empty list, and a wrong item in one", "name: a\ntags: []\nenv: []\n", [
      "d.conf:2:7: tags: is an empty list, must not be empty",
      "d.conf:3:6: env: is an empty list, must be a mapping",
    ]],
    ["a wrong item of a list", "name: a\ntags:\n- a\n- 1\n", [
      "d.conf:4:3: tags[1]: is the number '1', must be text: put it in quotes, '1'",
    ]],
    ["none of the possible words", "name: a\nmode: faster\n", [
      "d.conf:2:7: mode: is the text 'faster', must be 'fast' or 'slow'",
    ]],
    ["a misspelt key: at the key", "nmae: a\nname: b\n", [
      "d.conf:1:1: nmae: is not a known key, did you mean 'name'?",
    ]],
    ["an unknown key deep inside", "name: a\nhosts:\n  - address: b\n    user: c\n", [
      "d.conf:4:5: hosts[0].user: is not a known key, must be 'address' or 'port'",
    ]],
    ["a key missing deep inside", "name: a\nhosts:\n  - port: 1\n", [
      "d.conf:3:5: hosts[0].address: is missing, must be text",
    ]],
    ["none of a union's types", "name: a\nscript: {}\n", [
      "d.conf:2:9: script: is an empty mapping, must be text or a list",
    ]],
    ["a mistake inside of the union's type that was meant", "name: a\nscript: [a, 1]\n", [
      "d.conf:2:13: script[1]: is the number '1', must be text: put it in quotes, '1'",
    ]],
    ["an unknown kind", "name: a\ndisk: {type: zfs}\n", [
      "d.conf:2:14: disk.type: is the text 'zfs', must be 'lvm' or 'flat'",
    ]],
    ["no kind at all", "name: a\ndisk: {}\n", [
      "d.conf:2:7: disk.type: is missing, must be 'lvm' or 'flat'",
    ]],
    ["text of the wrong form", "name: a\nshort: bcde\n", [
      "d.conf:2:8: short: is the text 'bcde', must have at most 3 characters",
      "d.conf:2:8: short: is the text 'bcde', must match /^a/",
    ]],
    ["a wrong alias: where the alias is", "name: &n [a]\nmode: *n\n", [
      "d.conf:1:10: name: is a list, must be text",
      "d.conf:2:7: mode: is a list, must be 'fast' or 'slow'",
    ]],
    ["a key that is not a plain word", "name: a\nenv: {a b.c: [1]}\n", [
      "d.conf:2:14: env['a b.c']: is a list, must be text",
    ]],
    [
      "values that are long or strange: cut and escaped",
      `name: a\nmode: "x\\n${"y".repeat(90)}"\n`,
      [
        `d.conf:2:7: mode: is the text 'x\\n${"y".repeat(58)}...', must be 'fast' or 'slow'`,
      ],
    ],
  ] satisfies [string, string, string[]][]
) {
  Deno.test(`the schema's complaint about ${what}`, async () => {
    const found = await complaintsAbout(content, Device);
    assertEquals(found, expected.map((line) => line.replace("d.conf", "agent.conf")));
  });
}

Deno.test("every mistake comes at once, in the order of the file", async () => {
  assertEquals(await complaintsAbout("zzz: 1\nquiet: 3\nport: x\nqiet: no\n", Device), [
    "agent.conf:1:1: name: is missing, must be text",
    "agent.conf:1:1: zzz: is not a known key, remove it",
    "agent.conf:2:8: quiet: is the number '3', must be true or false",
    "agent.conf:3:7: port: is the text 'x', must be a whole number",
    "agent.conf:4:1: qiet: is not a known key, did you mean 'quiet'?",
  ]);
});

Deno.test("the value of a secret is not repeated", async () => {
  const Secret = z.object({ sudo_password: z.string(), api_token: z.int() });
  assertEquals(await complaintsAbout("sudo_password: 12345\napi_token: abc\n", Secret), [
    "agent.conf:1:16: sudo_password: is the number, must be text: put it in quotes",
    "agent.conf:2:12: api_token: is the text, must be a whole number",
  ]);
});

Deno.test("an optional key without a value is absent, an unknown one is kept", async () => {
  const Loose = z.looseObject({ port: z.int().default(22), name: z.string().optional() });
  assertEquals(await valueOf("port:\nname: ~\nother:\n", Loose), { port: 22, other: null });
});
