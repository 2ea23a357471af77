import { assertEquals } from "@std/assert";
import { formatMistake, sourceLines } from "../../lib/config/mistake.ts";
import { Anything, complaintsAbout, refusedText } from "./file_with.ts";

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
    const result = refusedText(content, Anything);
    assertEquals(
      result.mistakes.map((one) => `${formatMistake(one)}\n${sourceLines(one)}`),
      [`f:${expected}`],
    );
  });
}
