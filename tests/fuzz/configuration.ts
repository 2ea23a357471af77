import { assert } from "@std/assert";
import fc from "fast-check";
import { AgentConfig, environmentOf, loadAgentConfig } from "../../lib/config/agent_config.ts";
import { formatMistake } from "../../lib/config/mistake.ts";
import { TempFolder } from "../support/temp_folder.ts";
import { anyBytes, mutated, replaceIn } from "./inputs.ts";
import type { FuzzTarget, OpenTarget } from "./target.ts";

const KEYS = Object.keys(AgentConfig.shape);

const VALID = `agent_id: rpi4-01
server_address: https://testflinger.example.com
job_queues: [rpi4, "rpi4-01"]
polling_interval: 5
logging_level: DEBUG
logging_quiet: no
test_command: "true"
min_free_space: 500 MB
advertised_queues:
  rpi4: any of them
advertised_images:
  rpi4: {core22: "url: http://example.com/x"}
`;

const SIGNS = [
  ..."\n\t :-?#&*!|>'\"%@`[]{},~<",
  ...["  ", ": ", "- ", "---\n", "...\n", "<<: ", "!!str ", "!!binary ", "&a ", "*a", "\\", "é"],
  ...["yes", "1", "0o7", "1e999", ".nan", "2020-01-01", "__proto__", "toString", "\r\n", "\ufeff"],
  ...KEYS.map((key) => `${key}: `),
  VALID,
];

const value = fc.letrec((tie) => ({
  any: fc.oneof(
    { maxDepth: 3 },
    fc.jsonValue({ maxDepth: 1 }),
    fc.constantFrom("10 GiB", "-1 MB", "http://", "\0", "x".repeat(300), "/", ".", 1e99, -1),
    fc.array(tie("any"), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom(...KEYS, "a", "$b", ""), tie("any"), { maxKeys: 3 }),
  ),
})).any;
const tree = fc.tuple(
  fc.boolean(),
  fc.dictionary(fc.constantFrom(...KEYS, "agentid", "constructor"), value, { maxKeys: 6 }),
).map(([complete, some]) =>
  JSON.stringify({
    ...(complete && { agent_id: "a", server_address: "b", job_queues: ["c"] }),
    ...some,
  })
);

const file = fc.oneof(
  { weight: 1, arbitrary: anyBytes },
  {
    weight: 4,
    arbitrary: fc.array(fc.constantFrom(...SIGNS), { maxLength: 25 }).map((all) => all.join("")),
  },
  { weight: 4, arbitrary: tree },
  { weight: 3, arbitrary: mutated(VALID) },
);

/** Any file is a configuration, or mistakes of one line each. */
export const configuration: FuzzTarget = { name: "configuration", open };

function open(): OpenTarget {
  const folder = new TempFolder();
  const path = folder.at("agent.conf");
  const target = Deno.openSync(path, { write: true, create: true });
  let tried = 0;
  let good = 0;
  return {
    property: fc.asyncProperty(file, async (content) => {
      tried++;
      const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
      replaceIn(target, bytes);
      const result = await loadAgentConfig(path);
      const mistakes = result.ok ? result.warnings : result.mistakes;
      for (const mistake of mistakes) {
        const line = formatMistake(mistake);
        assert(!/[\p{Cc}\u2028\u2029]/u.test(line), `not one line: ${JSON.stringify(line)}`);
      }
      if (!result.ok) {
        assert(mistakes.length > 0, "refused without a reason");
        return;
      }
      good++;
      for (const text of Object.values(environmentOf(result.value))) assert(!text.includes("\0"));
    }),
    checkVariety() {
      assert(good > tried / 50, `only ${good} of ${tried} files were accepted`);
    },
    [Symbol.asyncDispose]: () => {
      target.close();
      return folder[Symbol.asyncDispose]();
    },
  };
}
