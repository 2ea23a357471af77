import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import * as z from "zod";
import { formatMistake, sourceLines } from "../../lib/config/mistake.ts";
import { readYaml, readYamlFile, type YamlOptions } from "../../lib/config/yaml_file.ts";
import { accepted, complaints, fileWith, refusal } from "./file_with.ts";

/** Raise to search harder; this many keep the tests quick. */
const NUM_RUNS = 300;

const Anything = z.record(z.string(), z.unknown());

function read(content: string | Uint8Array, schema: z.ZodType = Anything, options?: YamlOptions) {
  return fileWith(content, (file) => readYamlFile(file, schema, options));
}

async function valueOf(content: string, schema?: z.ZodType, options?: YamlOptions) {
  const result = await read(content, schema, options);
  assertEquals(complaints(result), []);
  return accepted(result);
}

async function complaintsAbout(content: string | Uint8Array, schema?: z.ZodType) {
  return refusal(await read(content, schema));
}

async function warningsAbout(content: string, schema?: z.ZodType) {
  const result = await read(content, schema);
  accepted(result);
  return complaints(result);
}

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

Deno.test("a file with a byte order mark and carriage returns is read", async () => {
  assertEquals(await valueOf("\ufeffa: 1\r\nb: x\r\n"), { a: 1, b: "x" });
});

Deno.test("columns count characters, not bytes", async () => {
  assertEquals(await complaintsAbout("\ufeff{é🙂: x, b: *no}"), [
    "agent.conf:1:12: b: the alias *no has no anchor, there must be an &no above it",
  ]);
});

for (
  const [what, content, expected] of [
    ["an empty file", "", ["agent.conf:1:1: is empty, must be a mapping (lines of 'key: value')"]],
    ["a file with comments alone", "# a\n", [
      "agent.conf:1:1: is empty, must be a mapping (lines of 'key: value')",
    ]],
    ["an empty document", "---\n", [
      "agent.conf:1:1: is empty, must be a mapping (lines of 'key: value')",
    ]],
    ["a list at the top", "# a\n- 1\n", [
      "agent.conf:2:1: is a list, must be a mapping (lines of 'key: value')",
    ]],
    ["a word at the top", "hello\n", [
      "agent.conf:1:1: is a single value, must be a mapping (lines of 'key: value')",
    ]],
    ["several documents", "a: 1\n---\nb: 2\n", [
      "agent.conf:2:1: a second document begins here, there must be only one: " +
      "remove it, and the '---'",
    ]],
    ["a tab for indentation", "a:\n\tb: 2\n", [
      "agent.conf:2:1: a tab is used for indentation, must be spaces",
    ]],
    ["a colon in an unquoted value", "a: b: c\n", [
      "agent.conf:1:4: ': ' inside of a value, or a wrong indentation: " +
      "put the value in quotes or indent it",
    ]],
    ["a value that begins with a reserved character", "a: 1\nb: @x\n", [
      "agent.conf:2:4: plain value cannot start with reserved character @: put it in quotes",
    ]],
    ["a quote that is not closed", "a: 'x\n", [
      "agent.conf:1:4: this ' is never closed: add another one",
    ]],
    ["an unknown escape", 'a: "\\q"\n', [
      "agent.conf:1:5: not valid YAML: invalid escape sequence \\q",
    ]],
    ["text where none can be, which is not repeated,", "a: |secret\n b\n", [
      "agent.conf:1:5: not valid YAML: block scalar header includes extra characters",
    ]],
    ["an alias without an anchor", "a: *b\n", [
      "agent.conf:1:4: a: the alias *b has no anchor, there must be an &b above it",
    ]],
    ["an alias inside of its own anchor", "a: &b [1, *b]\n", [
      "agent.conf:1:11: a[1]: the alias *b stands inside of what it stands for, " +
      "must not hold itself",
    ]],
    [
      "tags that make objects",
      "a: !!python/object/apply:os.system [x]\nb: !own c\nc: !!set {d}\n",
      [
        "agent.conf:1:36: a: the tag '!!python/object/apply:os.system' cannot be used here: remove it",
        "agent.conf:2:9: b: 'c' cannot have the tag '!own': remove the tag",
        "agent.conf:3:10: c: the tag '!!set' cannot be used here: remove it",
      ],
    ],
    ["a control character", "a: 1\nb: \u0007\n", [
      "agent.conf:2:4: the character U+0007 is not allowed: remove it, or write it as an escape",
    ]],
    ["a NUL", "a: 1\0", [
      "agent.conf:1:5: the character U+0000 is not allowed: remove it, or write it as an escape",
    ]],
  ] satisfies [string, string, string[]][]
) {
  Deno.test(`${what} is refused with its place`, async () => {
    assertEquals(await complaintsAbout(content), expected);
  });
}

/** Slips of syntax that people make, and the one thing that is said of each, with what is shown. */
const SLIPS: [string, string, string][] = [
  [
    "a quote that is never closed",
    'agent_id: "rpi4\nserver_address: x\n',
    `1:11: this " is never closed: add another one
   1 | agent_id: "rpi4
     |           ^
`,
  ],
  [
    "a bracket that is never closed",
    "agent_id: rpi4\njob_queues: [a, b\nlocation: x\ntest_command: y\n",
    `2:13: this [ is never closed: add ]
   2 | job_queues: [a, b
     |             ^
`,
  ],
  [
    "a brace that is never closed",
    "advertised_images: {a: {b: c}\nlocation: x\n",
    `1:20: this { is never closed: add }
   1 | advertised_images: {a: {b: c}
     |                    ^
`,
  ],
  [
    "a key that is indented below another one",
    "agent_id: rpi4\n  server_address: x\njob_queues: [q]\n",
    `2:3: is indented as if it belonged to the line above, must begin where the other keys do
   2 |   server_address: x
     |   ^
`,
  ],
  [
    "a colon that is missing",
    "agent_id: rpi4\nserver_address x\njob_queues: [q]\n",
    `2:1: there is no ': ' in this line, must be 'key: value'
   2 | server_address x
     | ^
`,
  ],
  [
    "a colon inside of a value",
    "agent_id: rpi4\ntest_command: echo foo: bar\n",
    `2:15: ': ' inside of a value, or a wrong indentation: put the value in quotes or indent it
   2 | test_command: echo foo: bar
     |               ^
`,
  ],
  [
    "a list whose lines begin in different columns",
    "job_queues:\n  - a\n - b\nlocation: x\n",
    `3:2: wrong indentation: lines of one list must begin in the same column
   3 |  - b
     |  ^
`,
  ],
  [
    "a tab",
    "agent_id: rpi4\n\tserver_address: x\n",
    `2:1: a tab is used for indentation, must be spaces
   2 |  server_address: x
     | ^
`,
  ],
  [
    "a value that goes on behind its quote",
    "agent_id: 'rpi4's'\n",
    `1:17: there is more behind the end of the value: put all of it in quotes
   1 | agent_id: 'rpi4's'
     |                 ^
`,
  ],
  [
    "very many commas",
    `a: [${",".repeat(151)}]`,
    `1:6: not valid YAML: unexpected , in flow sequence
   1 | a: [${",".repeat(86)}...
     |      ^
`,
  ],
];

for (const [what, content, expected] of SLIPS) {
  Deno.test(`one mistake of syntax is told, with its line and a caret: ${what}`, () => {
    const result = readYaml(new TextEncoder().encode(content), Anything, { file: "f" });
    if (result.ok) throw new Error("the file was accepted");
    assertEquals(
      result.mistakes.map((one) => `${formatMistake(one)}\n${sourceLines(one)}`),
      [`f:${expected}`],
    );
  });
}

Deno.test("a line that may hold a secret is not shown, nor one of a URL with a password", () => {
  const shown = (content: string) => {
    const schema = z.strictObject({ known: z.string().optional() });
    const result = readYaml(new TextEncoder().encode(content), schema, { file: "f" });
    if (result.ok) throw new Error("the file was accepted");
    return result.mistakes.map(sourceLines).join("");
  };
  for (
    const secret of [
      "known: {password: hunter2}\n",
      "api_key: hunter2\n",
      "known: [http://me:hunter2@host]\n",
      "known: sshpass -p hunter2: x\n",
      "the_token:\n  deep:\n  - 'hunter2\n",
      "password: |\n  some\n  hunter2\n bad: x\n",
    ]
  ) {
    assertEquals(shown(secret), "", secret);
  }
  assertStringIncludes(shown("knwon: hunter2\n"), "1 | knwon: hunter2\n");
});

Deno.test("of a long line the part around the place is shown, and control characters not at all", () => {
  const content = `known: {a: ${"x".repeat(200)}, b: \u2028${"y".repeat(200)}}\n`;
  const schema = z.strictObject({ known: z.strictObject({ a: z.string() }) });
  const result = readYaml(new TextEncoder().encode(content), schema, { file: "f" });
  if (result.ok) throw new Error("the file was accepted");
  const [line = "", caret = ""] = result.mistakes.map(sourceLines).join("").split("\n");
  assertEquals(line, `   1 | ...${"x".repeat(58)}, b:  ${"y".repeat(26)}...`);
  assertEquals(line.at(caret.indexOf("^")), "b");
});

Deno.test("beside a wrong key the right ones can be had, with defaults and places", () => {
  const schema = z.strictObject({
    a: z.number(),
    b: z.string().default("otherwise"),
    c: z.string().optional(),
    d: z.string(),
  });
  const result = readYaml(new TextEncoder().encode("a: x\nc: y\nd:\n"), schema, { file: "f" });
  if (result.ok) throw new Error("the file was accepted");
  assertEquals(result.valid, { b: "otherwise", c: "y" });
  assertEquals(result.given, new Set(["a", "c"]));
  const place = result.placeOf(["c"]);
  assertEquals([place.line, place.column], [2, 4]);
});

Deno.test("bytes that are not UTF-8 are refused where they begin", async () => {
  const bytes = new Uint8Array([...new TextEncoder().encode("a: 1\nb: é"), 0xe9, 0x0a]);
  assertEquals(await complaintsAbout(bytes), ["agent.conf:2:5: is not UTF-8, must be"]);
  assertEquals(await complaintsAbout(new Uint8Array([0x61, 0xc3])), [
    "agent.conf:1:2: is not UTF-8, must be",
  ]);
});

Deno.test("UTF-16 is refused by name", async () => {
  const bytes = new Uint8Array([0xff, 0xfe, 0x61, 0x00, 0x3a, 0x00]);
  assertEquals(await complaintsAbout(bytes), ["agent.conf: is UTF-16, must be UTF-8"]);
});

Deno.test("a file that is not there, or is no file, is one mistake", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const missing = await readYamlFile(`${folder}/none.conf`, Anything);
    assertEquals(complaints(missing), ["none.conf: cannot be read: there is no such file"]);
    await Deno.mkdir(`${folder}/dir.conf`);
    const directory = await readYamlFile(`${folder}/dir.conf`, Anything);
    assertEquals(complaints(directory), [
      "dir.conf: cannot be read: it is a directory, must be a file",
    ]);
    const impossible = await readYamlFile(`${folder}/a\0b`, Anything);
    assertEquals(refusal(impossible).length, 1);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a file that cannot be opened is one mistake", async () => {
  const folder = await Deno.makeTempDir();
  try {
    using _socket = Deno.listen({ transport: "unix", path: `${folder}/socket` });
    assertEquals(complaints(await readYamlFile(`${folder}/socket`, Anything)), [
      "socket: cannot be read: No such device or address (os error 6)",
    ]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("a file that is too large, or has no end, is refused", async () => {
  const endless = await readYamlFile("/dev/zero", Anything);
  assertEquals(complaints(endless), [
    "zero: is larger than 1048576 bytes, must be a configuration file",
  ]);
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

const Device = z.strictObject({
  name: z.string(),
  port: z.int().min(1).max(65535).optional(),
  ratio: z.number().gt(0).lt(2).optional(),
  quiet: z.boolean().optional(),
  tags: z.array(z.string()).min(1).optional(),
  mode: z.enum(["fast", "slow"]).optional(),
  env: z.record(z.string(), z.string()).optional(),
  hosts: z.array(z.strictObject({ address: z.string(), port: z.int().optional() })).optional(),
  script: z.union([z.string(), z.array(z.string())]).optional(),
  disk: z.discriminatedUnion("type", [
    z.strictObject({ type: z.literal("lvm"), size: z.int() }),
    z.strictObject({ type: z.literal("flat") }),
  ]).optional(),
  short: z.string().max(3).regex(/^a/).optional(),
});

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

Deno.test("numbers become the text of the file where it is asked for", async () => {
  const Env = z.object({ env: z.record(z.string(), z.string()), port: z.int() });
  assertEquals(
    await valueOf("env: {A: 1.10, B: 010}\nport: 010\n", Env, {
      numbersAsText: (path) => path[0] === "env",
    }),
    { env: { A: "1.10", B: "010" }, port: 8 },
  );
});

Deno.test("a review warns at the place of a value", async () => {
  const result = await read("a: 1\nb: {c: 2}\n", Anything, {
    review: (_written, warn) => warn(["b", "c"], "is odd"),
  });
  accepted(result);
  assertEquals(complaints(result), ["agent.conf:2:8: b.c: is odd"]);
});

Deno.test("merged keys are no repeated keys", async () => {
  assertEquals(await warningsAbout("a: &a {x: 1}\nb: {<<: *a, x: 2}\n"), []);
});

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
