import { assertEquals } from "@std/assert";
import { viewConfiguration, withoutUserinfo } from "../../lib/observe/host_view.ts";

function view(configuration: Record<string, unknown>): Record<string, string> {
  return Object.fromEntries(viewConfiguration(configuration).map(({ key, value }) => [key, value]));
}

Deno.test("plain settings are shown, in order, without those that are not set", () => {
  assertEquals(
    viewConfiguration({
      agent_id: "a-1",
      job_queues: ["q1", "q2"],
      polling_interval: 10,
      logging_quiet: false,
      identifier: undefined,
      location: null,
    }),
    [
      { key: "agent_id", value: "a-1", isSet: true },
      { key: "job_queues", value: "q1, q2", isSet: true },
      { key: "polling_interval", value: "10", isSet: true },
      { key: "logging_quiet", value: "false", isSet: true },
    ],
  );
});

Deno.test("what differs from the default comes first, an agent's name and queues always", () => {
  const settings = viewConfiguration(
    { polling_interval: 10, agent_id: "agent", output_timeout: 60, job_queues: ["q"] },
    { polling_interval: 10, agent_id: "agent", output_timeout: 900, job_queues: ["q"] },
  );
  assertEquals(settings.map(({ key, isSet }) => [key, isSet]), [
    ["agent_id", true],
    ["output_timeout", true],
    ["job_queues", true],
    ["polling_interval", false],
  ]);
});

Deno.test("settings with a name like a secret's are removed", () => {
  const secrets = { api_key: "x", apikey: "x", client_secret: "x", password: "x", ssh_pw: "x" };
  assertEquals(
    new Set(Object.values(view({ ...secrets, refresh_token: { a: "x" } }))),
    new Set(["(removed)"]),
  );
});

Deno.test("addresses lose user and password", () => {
  assertEquals(
    view({ server_address: "https://lab:p@ss@host:8000/x" }),
    { server_address: "https://host:8000/x" },
  );
  assertEquals(withoutUserinfo("see http://u:p@h/a@b and ftp://x"), "see http://h/a@b and ftp://x");
});

Deno.test("a command shows its program and not its arguments", () => {
  assertEquals(
    view({
      a_command: "/usr/bin/flash --password hunter2",
      b_command: "PASSWORD=hunter2 flash",
      c_command: "cleanup.sh",
      d_command: "",
      e_command: "'quoted hunter2'",
    }),
    {
      a_command: "/usr/bin/flash ...",
      b_command: "(set)",
      c_command: "cleanup.sh",
      d_command: "",
      e_command: "(set)",
    },
  );
});

Deno.test("of nested settings only the names are shown", () => {
  assertEquals(
    view({
      advertised_images: { q: { "jammy": "url: http://u:hunter2@h" } },
      list: [{ x: "hunter2" }],
    }),
    { advertised_images: "q", list: "..." },
  );
});
