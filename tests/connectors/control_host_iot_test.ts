/** 07-control-host-iot. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import {
  assertRefused,
  ControlHostService,
  type Outcome,
  provisionOnce,
  type ProvisionOptions,
  provisionWith,
} from "./support/control_host_service.ts";
import { Lab } from "./support/lab.ts";
import { tcpStub, until } from "./support/stubs.ts";

/** A plan of the job's own. */
const PLAN = {
  config: { username: "admin", password: "admin", hostname: "board" },
  run_stage: [{ initial_login: { method: "system-user" } }, "wait_until_ready"],
};

const CONSOLE_CONF = { ...PLAN, run_stage: [{ initial_login: { method: "console-conf" } }] };

function provision(
  data: Record<string, unknown>,
  more: ProvisionOptions = {},
): Promise<Outcome> {
  return provisionOnce("control_host_iot", data, more);
}

Deno.test("07-control-host-iot 1: a preset goes to the control host with its arguments and images", async () => {
  const { run, kwargs } = await provision({
    preset: "P",
    preset_kwargs: { a: 1 },
    urls: ["http://test.tar.gz"],
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(kwargs, {
    username: "ubuntu",
    password: "ubuntu",
    preset: "P",
    preset_kwargs: { a: 1 },
    urls: ["http://test.tar.gz"],
    agent_name: "a1",
    cid: null,
    device_ip: "10.1.1.1",
    reboot_script: ["pdu cycle"],
    poweron_script: null,
    poweroff_script: null,
  });
});

Deno.test("07-control-host-iot 2: one url becomes a list of one, and wins over urls", async () => {
  const { kwargs } = await provision({
    preset: "P",
    url: "http://test.tar.gz",
    urls: ["http://x"],
  });
  assertEquals(kwargs?.urls, ["http://test.tar.gz"]);
  assertEquals(kwargs?.preset_kwargs, null);
});

Deno.test("07-control-host-iot 3: a plan's user is created where the job names none", async () => {
  const { run, kwargs, calls } = await provision({ provision_plan: PLAN });
  assertEquals(run.code, 0, run.stderr);
  assertEquals([kwargs?.username, kwargs?.password], ["admin", "admin"]);
  assertEquals(kwargs?.custom_provision_plan, PLAN);
  assertEquals([kwargs?.urls, kwargs?.preset, kwargs?.preset_kwargs], [[], null, null]);
  // The tests would log in as ubuntu.
  assertStringIncludes(run.stderr, "gets the user of the provision_plan, admin");
  // The key is copied with what there is on the device.
  const copy = calls.find(({ program }) => program === "ssh-copy-id");
  assertEquals(copy?.args.at(-1), "admin@10.1.1.1");
});

Deno.test("07-control-host-iot 4: the job's user and password stand above the plan's", async () => {
  const { kwargs } = await provision({ provision_plan: PLAN }, {
    test: { test_username: "ubuntu", test_password: "ubuntu" },
  });
  assertEquals([kwargs?.username, kwargs?.password], ["ubuntu", "ubuntu"]);
  assertEquals(kwargs?.custom_provision_plan, {
    ...PLAN,
    config: { ...PLAN.config, username: "ubuntu", password: "ubuntu" },
  });
});

Deno.test("07-control-host-iot 5: with an account of single sign-on no key is copied", async () => {
  const { run, kwargs, calls } = await provision({
    preset: "P",
    ubuntu_sso_email: "test@example.com",
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(kwargs?.username, "test@example.com");
  assertEquals(calls.filter(({ program }) => program === "ssh-copy-id"), []);
  const planned = await provision({
    provision_plan: CONSOLE_CONF,
    ubuntu_sso_email: "test@example.com",
  });
  assertEquals(planned.kwargs?.custom_provision_plan, {
    ...CONSOLE_CONF,
    config: { ...CONSOLE_CONF.config, username: "test@example.com" },
  });
});

Deno.test("07-control-host-iot 6: console-conf without an account is refused before anything is asked", async () => {
  assertRefused(await provision({ provision_plan: CONSOLE_CONF }), "'ubuntu_sso_email'");
});

Deno.test("07-control-host-iot 7: a plan that is none is refused, with what is wrong in it", async () => {
  assertRefused(await provision({ provision_plan: { key1: 1 } }), "provision_plan.config");
  assertRefused(await provision({ provision_plan: { config: {}, run_stage: "x" } }), "run_stage");
  assertRefused(await provision({ provision_plan: "x" }), "provision_plan");
  assertRefused(
    await provision({ provision_plan: { config: [], run_stage: [] } }),
    "provision_plan.config",
  );
});

Deno.test("07-control-host-iot 8: an image that is no URL is refused, with its text", async () => {
  assertRefused(await provision({ preset: "P", urls: ["not-a-url"] }), "'not-a-url'");
  assertRefused(
    await provision({ preset: "P", url: "file:///etc/passwd" }),
    "'file:///etc/passwd'",
  );
  assertRefused(await provision({ preset: "P", urls: "http://x" }), "urls: must be a list of URLs");
});

Deno.test("07-control-host-iot 9: with agent_ssh_access: false no key is copied", async () => {
  const { run, calls } = await provision({ preset: "P", agent_ssh_access: false });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(calls, []);
});

Deno.test("07-control-host-iot 10: the key is copied once, with the password in no argument", async () => {
  const { run, calls } = await provision({ preset: "P" }, {
    test: { test_password: "s3cret pass" },
  });
  assertEquals(run.code, 0, run.stderr);
  const [sshpass, copy] = calls;
  assertEquals(calls.map(({ program }) => program), ["sshpass", "ssh-copy-id"]);
  assertEquals(sshpass?.args.slice(0, 3), ["-e", "ssh-copy-id", "-f"]);
  assertEquals(sshpass?.password, "s3cret pass");
  assertEquals(copy?.args.slice(0, 5), [
    "-f",
    "-o",
    "StrictHostKeyChecking=no",
    "-o",
    "UserKnownHostsFile=/dev/null",
  ]);
  assertEquals(copy?.args.at(-1), "ubuntu@10.1.1.1");
  for (const { args } of calls) assert(!args.join(" ").includes("s3cret"));
  assert(!run.stderr.includes("s3cret") && !run.stdout.includes("s3cret"));
});

Deno.test("07-control-host-iot 11: power cycle, setup and provisioning come in this order", async () => {
  await using lab = await Lab.open();
  const order = join(lab.cwd, "order");
  await using service = await ControlHostService.open({
    onCall: (line) => Deno.writeTextFile(order, `${line}\n`, { append: true }),
  });
  await lab.fake("ping", "exit 1");
  const run = await provisionWith(lab, service, {
    connector: "control_host_iot",
    data: { preset: "P", agent_ssh_access: false },
    config: {
      poweroff_script: "echo poweroff script >> order",
      poweron_script: "echo poweron script >> order",
      control_host_reboot_script: "echo reboot script >> order",
    },
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals((await lab.read("order")).trim().split("\n"), [
    "poweroff script",
    "POST /api/v1/system/poweroff",
    "reboot script",
    "GET /health",
    "poweron script",
    "POST /api/v1/system/setup/provisioning",
    "POST /api/v1/provision",
    "GET /api/v1/provision/j1/logs",
    "GET /api/v1/provision/j1",
  ]);
});

Deno.test("07-control-host-iot 12: a failure leaves no serial logger behind, and the power on", async () => {
  await using lab = await Lab.open();
  let open = 0;
  await using serial = tcpStub(async (client) => {
    open++;
    await client.write(new TextEncoder().encode("U-Boot 2026\n"));
    (async () => {
      while (await client.read(new Uint8Array(100)).catch(() => null) !== null);
      open--;
    })();
  });
  await using service = await ControlHostService.open({
    statuses: [{ status: "failed", error: "no board" }],
    // The serial line has been heard before the control host is asked.
    onCall: () => until(async () => (await lab.read("provision-serial.log")).includes("U-Boot")),
  });
  await lab.fake("ping", "exit 1");
  const run = await provisionWith(lab, service, {
    connector: "control_host_iot",
    data: { preset: "P" },
    config: {
      poweroff_script: "echo off >> order",
      poweron_script: "echo on >> order",
      control_host_reboot_script: "echo reboot >> order",
      serial_host: "127.0.0.1",
      serial_port: serial.port,
    },
  });
  assertEquals(run.code, 1);
  assertEquals((await lab.failure("provision")).exception_message, "no board");
  assertEquals(await lab.read("order"), "off\nreboot\non\n");
  assertEquals(await lab.read("provision-serial.log"), "U-Boot 2026\n");
  await until(() => open === 0);
});

Deno.test("07-control-host-iot 13: images on a host of the lab are taken", async () => {
  for (const url of ["http://control-host/x.img", "http://localhost/x", "ftp://h_1:99/x"]) {
    const { run, kwargs } = await provision({ preset: "P", url });
    assertEquals(run.code, 0, run.stderr);
    assertEquals(kwargs?.urls, [url]);
  }
});

Deno.test("a job with neither preset nor plan is refused", async () => {
  assertRefused(await provision({ url: "http://x" }), "neither 'preset' nor 'provision_plan'");
  assertRefused(await provision({ url: "http://x", provision_plan: {} }), "neither 'preset' nor");
});

Deno.test("a device that does not take the key fails provisioning, and says how to do without", async () => {
  const { run, failure, pauses } = await provision({ preset: "P" }, {
    before: (lab) => lab.fake("ssh-copy-id", 'echo "Permission denied" >&2; exit 1'),
  });
  assertEquals(run.code, 1);
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "Permission denied");
  assertStringIncludes(failure.exception_message ?? "", "agent_ssh_access: false");
  assertEquals(pauses.filter((seconds) => seconds === 60).length, 9);
});

Deno.test("an attachment stands above a URL, which is said", async () => {
  const { run, lines } = await provision(
    { preset: "P", url: "http://x", agent_ssh_access: false },
    {
      async before(lab) {
        const folder = join(lab.cwd, "attachments/provision");
        await Deno.mkdir(folder, { recursive: true });
        await Deno.writeTextFile(join(folder, "boot.img"), "image");
      },
    },
  );
  assertEquals(run.code, 0, run.stderr);
  assert(lines.includes("POST /api/v1/provision/multipart"));
  assertStringIncludes(run.stderr, "gets the attachment");
});
