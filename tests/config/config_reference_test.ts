import { assert, assertEquals } from "@std/assert";
import { AgentConfig } from "../../lib/config/agent_config.ts";
import { configReference } from "../../lib/config/config_reference.ts";

function keyNamed(name: string) {
  return configReference().find(({ key }) => key === name);
}

Deno.test("the reference explains every key of the schema", () => {
  const reference = configReference();
  assertEquals(reference.map(({ key }) => key), Object.keys(AgentConfig.shape));
  for (const { key, meaning, type } of reference) {
    assert(meaning.endsWith("."), `${key} has no meaning`);
    assert(type !== "", `${key} has no type`);
  }
});

Deno.test("the reference says what is required", () => {
  assertEquals(
    configReference().filter(({ required }) => required).map(({ key }) => key),
    ["agent_id", "server_address", "job_queues"],
  );
});

Deno.test("the reference gives types and defaults as the file would have them", () => {
  const shown = [
    "agent_id",
    "job_queues",
    "location",
    "polling_interval",
    "logging_quiet",
    "global_timeout",
    "advertised_images",
    "min_free_space",
    "metrics_port",
    "log_format",
  ].map((name) => {
    const found = keyNamed(name);
    return [name, found?.type, found?.default];
  });
  assertEquals(shown, [
    ["agent_id", "text", undefined],
    ["job_queues", "list of text", undefined],
    ["location", "text", '""'],
    ["polling_interval", "number, seconds", "10"],
    ["logging_quiet", "boolean", "false"],
    ["global_timeout", "integer, seconds", "14400"],
    ["advertised_images", "mapping of name to mapping of name to text", undefined],
    ["min_free_space", "size", "1 GiB"],
    ["metrics_port", "integer", undefined],
    ["log_format", "text or json", "text"],
  ]);
});
