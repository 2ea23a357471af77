import { assertEquals } from "@std/assert";
import { AgentConfig, environmentOf, loadAgentConfig } from "../../lib/config/agent_config.ts";
import { accepted, complaints, fileWith, refusal } from "./file_with.ts";

const NEEDED = `\
agent_id: rpi4-001
server_address: https://testflinger.example.com
job_queues: [rpi4]
`;
/** The line that follows `NEEDED`, where the tests below write. */
const LINE = 4;

function load(content: string) {
  return fileWith(content, loadAgentConfig);
}

/** The configuration with these lines after the ones that every file needs. */
async function configWith(lines: string) {
  return accepted(await load(NEEDED + lines));
}

async function refusalOf(lines: string) {
  return refusal(await load(NEEDED + lines));
}

/** The configuration with one of the needed lines replaced. */
function withNeeded(key: string, line: string): string {
  return NEEDED.split("\n").map((old) => old.startsWith(`${key}:`) ? line : old).join("\n");
}

Deno.test("the keys that the established agent has on its way are taken", async () => {
  const config = await configWith("output_polling_interval: 10\n");
  assertEquals(config.output_polling_interval, 10);
});

Deno.test("a configuration of three lines has every default of the contract", async () => {
  assertEquals(await configWith(""), {
    agent_id: "rpi4-001",
    server_address: "https://testflinger.example.com",
    job_queues: ["rpi4"],
    location: "",
    provision_type: "",
    polling_interval: 10,
    execution_basedir: "/tmp/testflinger/run",
    logging_basedir: "/tmp/testflinger/logs",
    results_basedir: "/tmp/testflinger/results",
    logging_level: "INFO",
    logging_quiet: false,
    setup_command: "",
    provision_command: "",
    firmware_update_command: "",
    test_command: "",
    allocate_command: "",
    reserve_command: "",
    cleanup_command: "",
    global_timeout: 14400,
    output_timeout: 900,
    output_bytes: 10485760,
    cancel_grace: 10,
    min_free_space: 1073741824,
    max_spool: 10737418240,
    attachments_max_members: 10000,
    attachments_max_size: 8589934592,
    attachments_max_ratio: 200,
    attachments_max_name: 255,
    attachments_max_download: 4294967296,
    metrics_host: "127.0.0.1",
    page_actions: false,
    log_format: "text",
    secret_names_allowed: [],
  });
});

Deno.test("a configuration from the field is read as it is", async () => {
  const result = await load(`\
# Raspberry Pi 4 in rack 7, behind the control host
agent_id: rpi4-007
identifier: '202301-31090'
server_address: testflinger.lab.example:8000/
global_timeout: 43200
output_timeout: 1_800
output_bytes: 10485760
execution_basedir: /srv/testflinger/rpi4-007/run
logging_basedir: /srv/testflinger/rpi4-007/logs
results_basedir: /srv/testflinger/rpi4-007/results
polling_interval: 2.5
logging_level: DEBUG
logging_quiet: yes
location: rack 7
job_queues: [
  rpi4,
  rpi4-007,
  '202301-31090'
]
setup_command: echo Nothing needed for setup
provision_command: |
  set -e
  testflinger-device-connector muxpi provision -c /etc/device.yaml testflinger.json
test_command: >-
  testflinger-device-connector muxpi runtest
  -c /etc/device.yaml testflinger.json
cleanup_command:
provision_type: muxpi
advertised_queues:
  rpi4: any Raspberry Pi 4
advertised_images:
  rpi4: &images
    core22: 'url: http://images.example/core22.img.xz'
    jammy-server: "url: http://images.example/jammy.img.xz"
  rpi4-007:
    <<: *images
    bare: distro=none
`);
  assertEquals(complaints(result), []);
  const config = accepted(result);
  const images = {
    core22: "url: http://images.example/core22.img.xz",
    "jammy-server": "url: http://images.example/jammy.img.xz",
  };
  assertEquals(config, {
    ...await configWith(""),
    agent_id: "rpi4-007",
    identifier: "202301-31090",
    server_address: "http://testflinger.lab.example:8000",
    global_timeout: 43200,
    output_timeout: 1800,
    execution_basedir: "/srv/testflinger/rpi4-007/run",
    logging_basedir: "/srv/testflinger/rpi4-007/logs",
    results_basedir: "/srv/testflinger/rpi4-007/results",
    polling_interval: 2.5,
    logging_level: "DEBUG",
    logging_quiet: true,
    location: "rack 7",
    job_queues: ["rpi4", "rpi4-007", "202301-31090"],
    setup_command: "echo Nothing needed for setup",
    provision_command: "set -e\n" +
      "testflinger-device-connector muxpi provision -c /etc/device.yaml testflinger.json\n",
    test_command: "testflinger-device-connector muxpi runtest -c /etc/device.yaml testflinger.json",
    provision_type: "muxpi",
    advertised_queues: { rpi4: "any Raspberry Pi 4" },
    advertised_images: { rpi4: images, "rpi4-007": { ...images, bare: "distro=none" } },
  });
});

Deno.test("the new keys are read", async () => {
  const config = await configWith(`\
connector: muxpi
connector_config: /etc/device.yaml
cancel_grace: 0.5
min_free_space: 500 MB
max_spool: 0
attachments_max_members: 5
attachments_max_size: 1.5GiB
attachments_max_ratio: 20
attachments_max_name: 100
attachments_max_download: 1048576
metrics_port: 8000
metrics_host: 0.0.0.0
log_format: json
`);
  assertEquals(config, {
    ...await configWith(""),
    connector: "muxpi",
    connector_config: "/etc/device.yaml",
    cancel_grace: 0.5,
    min_free_space: 500_000_000,
    max_spool: 0,
    attachments_max_members: 5,
    attachments_max_size: 1_610_612_736,
    attachments_max_ratio: 20,
    attachments_max_name: 100,
    attachments_max_download: 1_048_576,
    metrics_port: 8000,
    metrics_host: "0.0.0.0",
    log_format: "json",
  });
});

Deno.test("an optional key without a value is as good as absent", async () => {
  const needed = ["agent_id", "server_address", "job_queues"];
  const optional = Object.keys(AgentConfig.shape).filter((key) => !needed.includes(key));
  const lines = optional.map((key) => `${key}:\n`).join("");
  assertEquals(await configWith(lines), await configWith(""));
});

for (
  const [address, expected] of [
    ["testflinger.example.com", "http://testflinger.example.com"],
    ["localhost:8000", "http://localhost:8000"],
    ["10.0.0.1:5000/", "http://10.0.0.1:5000"],
    ["http://testflinger/", "http://testflinger"],
    ["https://example.com/testflinger//", "https://example.com/testflinger"],
    ["'[::1]:8000'", "http://[::1]:8000"],
  ] as const
) {
  Deno.test(`server_address ${address} means ${expected}`, async () => {
    const config = accepted(
      await load(withNeeded("server_address", `server_address: ${address}`)),
    );
    assertEquals(config.server_address, expected);
  });
}

Deno.test("a level that Python does not know means INFO, with a warning", async () => {
  for (
    const [level, expected] of [
      ["debug", "is 'debug', which is no level and means INFO, did you mean 'DEBUG'?"],
      [
        "chatty",
        "is 'chatty', which is no level and means INFO, must be one of " +
        "CRITICAL, FATAL, ERROR, WARN, WARNING, INFO, DEBUG, NOTSET",
      ],
    ] as const
  ) {
    const result = await load(`${NEEDED}logging_level: ${level}\n`);
    assertEquals(accepted(result).logging_level, "INFO");
    assertEquals(complaints(result), [`agent.conf:4:16: logging_level: ${expected}`]);
  }
  for (const level of ["CRITICAL", "FATAL", "ERROR", "WARN", "WARNING", "NOTSET"]) {
    const result = await load(`${NEEDED}logging_level: ${level}\n`);
    assertEquals(String(accepted(result).logging_level), level);
    assertEquals(complaints(result), []);
  }
});

Deno.test("a file that lacks what is required names all of it", async () => {
  assertEquals(refusal(await load("location: lab\n")), [
    "agent.conf:1:1: agent_id: is missing, must be text",
    "agent.conf:1:1: server_address: is missing, must be text",
    "agent.conf:1:1: job_queues: is missing, must be a list of queue names",
  ]);
  assertEquals(refusal(await load("agent_id:\nserver_address:\njob_queues:\n")), [
    "agent.conf:1:1: agent_id: is empty, must be text",
    "agent.conf:2:1: server_address: is empty, must be text",
    "agent.conf:3:1: job_queues: is empty, must be a list of queue names",
  ]);
});

for (
  const [line, expected] of [
    ["agent_id: 123", [
      "1:11: agent_id: is the number '123', must be text: put it in quotes, '123'",
    ]],
    ["agent_id: ''", ["1:11: agent_id: is the text '', must not be empty"]],
    ["agent_id: a/b", [
      "1:11: agent_id: is the text 'a/b', must not contain '/' or control characters",
    ]],
    ['agent_id: "a\\tb"', [
      "1:11: agent_id: is the text 'a\\tb', must not contain '/' or control characters",
    ]],
    ['agent_id: "a\\0b"', [
      "1:11: agent_id: is the text 'a\\u{0}b', must not contain NUL",
      "1:11: agent_id: is the text 'a\\u{0}b', must not contain '/' or control characters",
    ]],
    ["agent_id: .hidden", ["1:11: agent_id: is the text '.hidden', must not begin with '.'"]],
    [`agent_id: ${"a".repeat(201)}`, [
      `1:11: agent_id: is the text '${"a".repeat(60)}...', must have at most 200 characters`,
    ]],
    ["server_address: ftp://example.com", [
      "2:17: server_address: is the text 'ftp://example.com', " +
      "must be an http or https URL, such as 'https://testflinger.example.com'",
    ]],
    ["server_address: 'http://'", [
      "2:17: server_address: is the text 'http://', " +
      "must be the URL of a server, such as 'https://testflinger.example.com'",
    ]],
    ["server_address: test flinger", [
      "2:17: server_address: is the text 'test flinger', " +
      "must be the URL of a server, such as 'https://testflinger.example.com'",
    ]],
    ["server_address: http://me:secret@example.com", [
      "2:17: server_address: is the text 'http://***@example.com', " +
      "must not contain a user or a password",
    ]],
    ["server_address: http://example.com/?a=b", [
      "2:17: server_address: is the text 'http://example.com/?a=b', must not contain '?' or '#'",
    ]],
    ["server_address: 8000", [
      "2:17: server_address: is the number '8000', must be text: put it in quotes, '8000'",
    ]],
    ["job_queues: rpi4", [
      "3:13: job_queues: is the text 'rpi4', must be a list: write ['rpi4']",
    ]],
    ["job_queues: []", [
      "3:13: job_queues: is an empty list, must name at least one queue",
    ]],
    ["job_queues: {rpi4: x}", [
      "3:13: job_queues: is a mapping, must be a list of queue names",
    ]],
    ["job_queues: [rpi4, 202301, '', ]", [
      "3:20: job_queues[1]: is the number '202301', must be text: put it in quotes, '202301'",
      "3:28: job_queues[2]: is the text '', must not be empty",
    ]],
  ] satisfies [string, string[]][]
) {
  Deno.test(`the line ${JSON.stringify(line.slice(0, 40))} is refused`, async () => {
    const content = withNeeded(line.split(":")[0] ?? "", line);
    assertEquals(refusal(await load(content)), expected.map((rest) => `agent.conf:${rest}`));
  });
}

/** For each key that is not required: a value that it cannot have, and what is said about it. */
const WRONG: Record<string, [value: string, message: string][]> = {
  secret_names_allowed: [["PATH", "is the text, must be a list of names of variables"]],
  identifier: [["12", "is the number '12', must be text: put it in quotes, '12'"]],
  location: [["[a]", "is a list, must be text"]],
  provision_type: [["no", "is the boolean 'no', must be text: put it in quotes, 'no'"]],
  polling_interval: [
    ["0", "is the number '0', must be more than 0"],
    ["-1", "is the number '-1', must be more than 0"],
    ["'10'", "is the text '10', must be a number: remove the quotes"],
    [".inf", "is the number '.inf', must be a finite number"],
  ],
  output_polling_interval: [["0", "is the number '0', must be more than 0"]],
  execution_basedir: [["''", "is the text '', must not be empty"]],
  logging_basedir: [["''", "is the text '', must not be empty"]],
  results_basedir: [["''", "is the text '', must not be empty"]],
  logging_level: [["10", "is the number '10', must be text: put it in quotes, '10'"]],
  logging_quiet: [
    ["'yes'", "is the text 'yes', must be true or false: remove the quotes"],
    ["1", "is the number '1', must be true or false"],
  ],
  setup_command: [["yes", "is the boolean 'yes', must be text: put it in quotes, 'yes'"]],
  provision_command: [["[a]", "is a list, must be text"]],
  firmware_update_command: [["{}", "is an empty mapping, must be text"]],
  test_command: [['"a\\0b"', "is the text 'a\\u{0}b', must not contain NUL"]],
  allocate_command: [["1", "is the number '1', must be text: put it in quotes, '1'"]],
  reserve_command: [["1", "is the number '1', must be text: put it in quotes, '1'"]],
  cleanup_command: [["1", "is the number '1', must be text: put it in quotes, '1'"]],
  global_timeout: [
    ["1.5", "is the number '1.5', must be a whole number"],
    ["0", "is the number '0', must be at least 1"],
    ["4h", "is the text '4h', must be a whole number"],
  ],
  output_timeout: [["-5", "is the number '-5', must be at least 1"]],
  output_bytes: [["1 MB", "is the text '1 MB', must be a whole number"]],
  advertised_queues: [["[rpi4]", "is a list, must be a mapping"]],
  advertised_images: [["rpi4", "is the text 'rpi4', must be a mapping"]],
  connector: [["''", "is the text '', must not be empty"]],
  connector_config: [["1", "is the number '1', must be text: put it in quotes, '1'"]],
  cancel_grace: [["-1", "is the number '-1', must be at least 0"]],
  job_memory_max: [
    ["4G", "is the text '4G', must be a number of bytes, or a size such as '500 MB' or '1 GiB'"],
    ["4", "is the number '4', must be at least 1 MiB"],
  ],
  job_pids_max: [["0", "is the number '0', must be at least 1"]],
  min_free_space: [
    ["1 G", "is the text '1 G', must be a number of bytes, or a size such as '500 MB' or '1 GiB'"],
    ["-1", "is the number '-1', must be at least 0"],
    ["[]", "is an empty list, must be a number of bytes, or a size such as '500 MB' or '1 GiB'"],
  ],
  max_spool: [
    [
      "1.5",
      "is the number '1.5', must be a number of bytes, or a size such as '500 MB' or '1 GiB'",
    ],
  ],
  hooks_dir: [["hooks", "is the text 'hooks', must be an absolute path"]],
  image_cache: [["images", "is the text 'images', must be an absolute path"]],
  image_cache_max: [
    [
      "lots",
      "is the text 'lots', must be a number of bytes, or a size such as '500 MB' or '1 GiB'",
    ],
  ],
  attachments_max_members: [["0", "is the number '0', must be at least 1"]],
  attachments_max_size: [
    [
      "yes",
      "is the boolean 'yes', must be a number of bytes, or a size such as '500 MB' or '1 GiB'",
    ],
  ],
  attachments_max_ratio: [["0.5", "is the number '0.5', must be at least 1"]],
  attachments_max_name: [["256", "is the number '256', must be at most 255"]],
  attachments_max_download: [
    [
      "much",
      "is the text 'much', must be a number of bytes, or a size such as '500 MB' or '1 GiB'",
    ],
  ],
  token_file: [["''", "is the text, must not be empty"]],
  metrics_port: [
    ["65536", "is the number '65536', must be at most 65535"],
    ["0", "is the number '0', must be at least 1"],
    ["'80'", "is the text '80', must be a whole number: remove the quotes"],
  ],
  page_actions: [["1", "is the number '1', must be true or false"]],
  page_token_file: [["''", "is the text, must not be empty"]],
  metrics_host: [["''", "is the text '', must not be empty"]],
  log_format: [["xml", "is the text 'xml', must be 'text' or 'json'"]],
};

for (const [key, cases] of Object.entries(WRONG)) {
  for (const [value, message] of cases) {
    Deno.test(`${key}: ${value} is refused`, async () => {
      assertEquals(await refusalOf(`${key}: ${value}\n`), [
        `agent.conf:${LINE}:${key.length + 3}: ${key}: ${message}`,
      ]);
    });
  }
}

Deno.test("every key has a value that these tests see refused", () => {
  const needed = ["agent_id", "server_address", "job_queues"];
  assertEquals([...needed, ...Object.keys(WRONG)].sort(), Object.keys(AgentConfig.shape).sort());
});

Deno.test("images that the server would refuse are refused here", async () => {
  assertEquals(
    await refusalOf(`\
advertised_images:
  rpi4:
    ubuntu-22.04: url
    $core: url
    '': url
    "a\\0b": url
    fine: 22
  pi5: url
`),
    [
      "agent.conf:6:5: advertised_images.rpi4['ubuntu-22.04']: " +
      "the key 'ubuntu-22.04' must not contain '.' or NUL",
      "agent.conf:7:5: advertised_images.rpi4['$core']: the key '$core' must not begin with '$'",
      "agent.conf:8:5: advertised_images.rpi4['']: the key '' must not be empty",
      "agent.conf:9:5: advertised_images.rpi4['a\\u{0}b']: " +
      "the key 'a\\u{0}b' must not contain '.' or NUL",
      "agent.conf:10:11: advertised_images.rpi4.fine: is the number '22', must be text: " +
      "put it in quotes, '22'",
      "agent.conf:11:8: advertised_images.pi5: is the text 'url', must be a mapping",
    ],
  );
});

Deno.test("advertised queues need a name and a description", async () => {
  assertEquals(await refusalOf("advertised_queues:\n  '': any\n  rpi4:\n  pi5: 5\n"), [
    "agent.conf:5:3: advertised_queues['']: the key '' must not be empty",
    "agent.conf:6:3: advertised_queues.rpi4: is empty, must be text",
    "agent.conf:7:8: advertised_queues.pi5: is the number '5', must be text: " +
    "put it in quotes, '5'",
  ]);
});

Deno.test("a misspelt key is met with the one that was meant", async () => {
  assertEquals(
    await refusalOf(
      "polling_intervall: 5\nagent-id: a\nProvision_Command: a\ntest_cmd: a\nfoo: a\n",
    ),
    [
      "agent.conf:4:1: polling_intervall: is not a known key, did you mean 'polling_interval'?",
      "agent.conf:5:1: agent-id: is not a known key, did you mean 'agent_id'?",
      "agent.conf:6:1: Provision_Command: is not a known key, did you mean 'provision_command'?",
      "agent.conf:7:1: test_cmd: is not a known key, remove it",
      "agent.conf:8:1: foo: is not a known key, remove it",
    ],
  );
});

Deno.test("phases find every key that is text in their environment, defaults included", async () => {
  const config = await configWith(`\
identifier: '12'
provision_type: muxpi
connector: muxpi
connector_config: device.yaml
min_free_space: 2 GiB
metrics_host: 0.0.0.0
log_format: json
advertised_queues: {rpi4: any}
`);
  assertEquals(environmentOf(config), {
    agent_id: "rpi4-001",
    server_address: "https://testflinger.example.com",
    identifier: "12",
    location: "",
    provision_type: "muxpi",
    execution_basedir: "/tmp/testflinger/run",
    logging_basedir: "/tmp/testflinger/logs",
    results_basedir: "/tmp/testflinger/results",
    logging_level: "INFO",
    setup_command: "",
    provision_command: "",
    firmware_update_command: "",
    test_command: "",
    allocate_command: "",
    reserve_command: "",
    cleanup_command: "",
    connector: "muxpi",
    connector_config: "device.yaml",
  });
});

Deno.test("phases find the server's address with its scheme", async () => {
  const content = withNeeded("server_address", "server_address: testflinger:8000");
  assertEquals(
    environmentOf(accepted(await load(content)))["server_address"],
    "http://testflinger:8000",
  );
});
