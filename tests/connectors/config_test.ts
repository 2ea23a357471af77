/** Device configurations as labs have them. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import type { CommonConfig } from "../../connectors/support/config.ts";
import { run } from "../cli/support.ts";
import { inStage } from "./support/context.ts";
import { Lab } from "./support/lab.ts";
import { fakeMaas, MAAS_CONFIG } from "./support/maas.ts";

/** The configuration as a connector sees it. */
async function configOf(lab: Lab, yaml: string): Promise<CommonConfig> {
  await lab.config(yaml);
  return await inStage(lab, (ctx) => Promise.resolve(ctx.config));
}

/** What `check` says of it. */
async function checkOf(lab: Lab, connector: string): Promise<string> {
  const file = join(lab.cwd, "c.yaml");
  const { stdout } = await run("check", "--connector", connector, file);
  return stdout.replaceAll(file, "c.yaml");
}

Deno.test("00-common 4: empty text and null count as absent for every key that is optional", async () => {
  await using lab = await Lab.open();
  for (const nothing of ['""', "", "null", "~"]) {
    const config = await configOf(
      lab,
      ["serial_host", "serial_port", "reboot_script", "control_host", "env", "ssh_public_key"]
        .map((key) => `${key}: ${nothing}\n`).join("") + `control_user: ${nothing}\n`,
    );
    assertEquals(config.control_user, "ubuntu");
    assertEquals(config.env, {});
    for (const key of ["serial_host", "serial_port", "reboot_script", "control_host"] as const) {
      assertEquals(config[key], undefined, `${key}: ${nothing}`);
    }
    assertStringIncludes(await checkOf(lab, "noprovision"), "device_ip: is missing");
  }
});

Deno.test("00-common 4: null in env is dropped, numbers and booleans become text", async () => {
  await using lab = await Lab.open();
  const config = await configOf(lab, "env: {A: , B: null, C: 1.10, D: true, E: ''}\n");
  assertEquals(config.env, { C: "1.10", D: "true", E: "" });
});

Deno.test("00-common 4: numbers may be quoted, and a serial port 0 is none", async () => {
  await using lab = await Lab.open();
  for (const port of ["0", '"0"']) {
    assertEquals((await configOf(lab, `serial_port: ${port}\n`)).serial_port, undefined);
  }
  assertEquals((await configOf(lab, 'serial_port: "7001"\nssh_port: "2222"\n')).serial_port, 7001);
  await lab.config({
    ...MAAS_CONFIG,
    timeout_min: "60",
    release_timeout_min: "5.5",
  });
  await lab.job({ provision_data: { distro: "jammy" } });
  await fakeMaas(lab);
  const { code, stderr } = await lab.stage("maas2", "provision");
  assertEquals(code, 0, stderr);
  await lab.config({ agent_name: "a1", control_host_reboot_timeout: "120" });
  await lab.job({});
  assertEquals((await lab.stage("muxpi", "setup")).code, 0);
});

Deno.test("00-common 4: a quoted GPIO is one, and what is no whole number is none", async () => {
  for (
    const [gpio, code] of [['"17"', 0], ["17", 0], ['"1.5"', 1], ["-1", 1], ['"a"', 1]] as const
  ) {
    await using lab = await Lab.open();
    await lab.config(`agent_name: a1\nusb_boot_gpio: ${gpio}\n`);
    await lab.job({});
    const run = await lab.stage("cm3", "allocate");
    assertEquals(run.code, code, gpio);
    if (code !== 0) assertStringIncludes(run.stderr, "usb_boot_gpio");
  }
});

for (
  const [what, connector, yaml] of [
    ["empty texts", "noprovision", 'device_ip: 10.1.1.1\nserial_host: ""\nserial_port: ""\n'],
    ["nulls", "noprovision", "device_ip: 10.1.1.1\nreboot_script:\nenv: {A: }\n"],
    ["a serial port 0", "noprovision", "device_ip: 10.1.1.1\nserial_host: c\nserial_port: 0\n"],
    [
      "quoted numbers",
      "maas2",
      'device_ip: 10.1.1.1\nmaas_user: p\nnode_id: n\ntimeout_min: "60"\n',
    ],
  ] as const
) {
  Deno.test(`00-common 4: check agrees with the connectors about ${what}`, async () => {
    await using lab = await Lab.open();
    await lab.config(yaml);
    await lab.job({ provision_data: { distro: "jammy" } });
    assertEquals((await lab.stage(connector, "setup")).code, 0);
    assertStringIncludes(await checkOf(lab, connector), "1 file: 0 mistakes, 0 warnings");
  });
}

Deno.test("00-common 17.3: user names may have capitals, and can be no option of ssh", async () => {
  await using lab = await Lab.open();
  await lab.config({ device_ip: "10.1.1.1" });
  for (
    const [user, code] of [
      ["Administrator", 0],
      ["Jane_Doe-2$", 0],
      ["jane@example.com", 0],
      ["-oProxyCommand=x", 1],
      ["a b", 1],
      ["1st", 1],
    ] as const
  ) {
    await lab.job({ provision_data: { a: 1 }, test_data: { test_username: user } });
    assertEquals((await lab.stage("noprovision", "provision")).code, code, user);
  }
});
