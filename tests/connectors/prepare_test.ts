/** What is wrong with a job or a configuration is told before anything happens, and told by `setup`. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { CONNECTOR_NAMES, loadConnector } from "../../connectors/registry.ts";
import { Lab } from "./support/lab.ts";
import { answerAll, SCENES } from "./support/scenes.ts";
import { httpStub } from "./support/stubs.ts";

/** A configuration and a `provision_data` that cannot be used, and what is said of them. */
interface Refused {
  readonly config?: Record<string, unknown>;
  readonly data?: Record<string, unknown>;
  readonly says: string;
}

const DEVICE = { agent_name: "a1", device_ip: "10.1.1.1" };
const MAAS = { ...DEVICE, maas_user: "prof", node_id: "n0de" };
const MUXPI = { ...DEVICE, test_device: "/dev/sda" };
const NETBOOT = { ...DEVICE, test_device: "/dev/sda", reboot_script: ["pdu"] };
const MULTI = { agent_name: "a1", testflinger_server: "http://127.0.0.1:9" };

const OEM: readonly Refused[] = [
  { data: { a: 1 }, says: "there is no ISO to install" },
  { data: { url: "http://127.0.0.1:9/a b.iso" }, says: "expected the name of an ISO" },
  {
    config: { ...DEVICE, ssh_public_key: "/nowhere/id.pub" },
    data: { url: "http://127.0.0.1:9/a.iso" },
    says: "looked for /nowhere/id.pub",
  },
  {
    config: { ...DEVICE, oem_preset_dir: "/nowhere" },
    data: { url: "http://127.0.0.1:9/a.iso" },
    says: "no copy of the preset",
  },
];

const REFUSED: Readonly<Record<string, readonly Refused[]>> = {
  cm3: [{ data: { url: "http://127.0.0.1:9/i" }, says: "missing in the device configuration" }],
  control_host_iot: [
    {
      config: { ...DEVICE, reboot_script: ["pdu"] },
      data: { a: 1 },
      says: "neither 'preset' nor 'provision_plan'",
    },
    {
      config: { agent_name: "a1" },
      data: { a: 1 },
      says: "'device_ip', 'reboot_script' are missing",
    },
  ],
  control_host_kvm: [
    { config: { agent_name: "a1" }, data: { a: 1 }, says: "'device_ip' is missing" },
  ],
  dragonboard: [
    { data: { url: "http://127.0.0.1:9/i" }, says: "missing in the device configuration" },
  ],
  oem_autoinstall: [{ data: { a: 1 }, says: "neither 'url' nor 'control_host_iso_url'" }],
  dell_oemscript: OEM,
  hp_oemscript: OEM,
  lenovo_oemscript: OEM,
  oemscript: OEM,
  fake_connector: [{ data: { fake_exit: 300 }, says: "fake_exit" }],
  maas2: [
    { config: DEVICE, data: { distro: "noble" }, says: "'maas_user', 'node_id' are missing" },
    { config: MAAS, data: { disks: [{ id: "a", type: "floppy" }] }, says: "disks[0]: type" },
  ],
  multi: [
    { config: MULTI, data: { jobs: ["junk"] }, says: "jobs[0] is not a job" },
    { config: { agent_name: "a1" }, data: { jobs: [{}] }, says: "'testflinger_server' is missing" },
  ],
  muxpi: [
    { config: MUXPI, data: { create_user: false }, says: "there is no image to write" },
    { config: MUXPI, data: { use_attachment: "none.img" }, says: "there is no such file" },
    { config: MUXPI, data: { url: "images/pi.img" }, says: "'images/pi.img' is not a URL" },
    {
      config: MUXPI,
      data: { url: "ftp://host/pi.img" },
      says: "only http, https URLs are allowed",
    },
    { config: MUXPI, data: { url: "http://127.0.0.1:9/i#sha256=12" }, says: "64 hex digits" },
    { config: MUXPI, data: { media: "sd" }, says: "'control_switch_local_cmd'" },
    { config: DEVICE, data: { url: "http://127.0.0.1:9/i" }, says: "'test_device' is missing" },
    {
      config: MUXPI,
      data: { url: "http://127.0.0.1:9/i", boot_check_url: "$DEVICE_IP/ready" },
      says: "'boot_check_url'",
    },
  ],
  netboot: [
    { config: NETBOOT, data: { a: 1 }, says: "there is no image to write" },
    { config: NETBOOT, data: { url: "pi.img" }, says: "'pi.img' is not a URL" },
    {
      config: DEVICE,
      data: { url: "http://127.0.0.1:9/i" },
      says: "'test_device', 'reboot_script' are",
    },
  ],
  noprovision: [{ config: { agent_name: "a1" }, data: { a: 1 }, says: "'device_ip' is missing" }],
  oemrecovery: [{ config: DEVICE, data: { a: 1 }, says: "'recovery_cmds' is missing" }],
};

Deno.test("of every connector there is a job here that it cannot provision", () => {
  assertEquals(CONNECTOR_NAMES.filter((name) => !Object.hasOwn(REFUSED, name)), []);
});

for (const [connector, cases] of Object.entries(REFUSED)) {
  if (!CONNECTOR_NAMES.includes(connector)) continue;
  for (const { config = DEVICE, data = {}, says } of cases) {
    Deno.test(`${connector} refuses a job before it touches anything, and setup says so too: ${says}`, async () => {
      await using lab = await Lab.open();
      await using host = httpStub(() => new Response());
      await lab.fake("cycle", "");
      await lab.config({
        ...config,
        control_host: "127.0.0.1",
        control_host_port: host.port,
        control_host_reboot_script: ["cycle"],
      });
      await lab.job({ job_id: "j1", provision_data: data });
      for (const stage of ["setup", "provision"]) {
        assertEquals((await lab.stage(connector, stage)).code, 1, stage);
        assertStringIncludes((await lab.failure(stage)).exception_message ?? "", says);
      }
      assertEquals([host.requests, await lab.calls(), lab.clock.elapsed], [[], [], 0]);
    });
  }
}

for (const { connector, variant, prepare } of SCENES.filter(({ stage }) => stage === "provision")) {
  const title = variant === undefined ? connector : `${connector} ${variant}`;
  Deno.test(`setup says that ${title} can be used, and touches nothing`, async () => {
    await using lab = await Lab.open();
    await using server = httpStub(answerAll);
    await prepare(lab, server.port);
    const { code, stderr } = await lab.stage(connector, "setup");
    assertEquals(code, 0, stderr);
    assertStringIncludes(stderr, "can be used");
    assertEquals([server.requests, await lab.calls(), lab.clock.elapsed], [[], [], 0]);
  });
}

Deno.test("a misspelt key of provision_data is reported, an unrelated unknown key is not", async () => {
  for (const stage of ["setup", "provision"]) {
    await using lab = await Lab.open();
    await lab.config(MUXPI);
    await lab.job({ provision_data: { use_atachment: "i.img", note: "x", skip: false } });
    const { code, stderr } = await lab.stage("muxpi", stage);
    assertEquals(code, 1);
    assertStringIncludes(
      stderr,
      "WARNING: DEVICE CONNECTOR: The job's provision_data has the key 'use_atachment': did you " +
        "mean 'use_attachment'?\n",
    );
    assertEquals(stderr.split("did you mean").length, 2, stderr);
  }
});

for (const provision_data of [undefined, null, {}, { skip: true, url: "x" }]) {
  const title = JSON.stringify(provision_data) ?? "no provision_data";
  Deno.test(`setup of a job with ${title} names what provisioning would need, and passes`, async () => {
    for (const connector of CONNECTOR_NAMES) {
      await using lab = await Lab.open();
      await lab.config({});
      await lab.job({ job_id: "j1", ...(provision_data !== undefined && { provision_data }) });
      const { code, stderr } = await lab.stage(connector, "setup");
      assertEquals(code, 0, stderr);
      const { needs = [] } = await loadConnector(connector) ?? {};
      for (const key of needs) assertStringIncludes(stderr, `'${key}'`, connector);
      assertEquals(stderr.includes("missing in the device configuration"), needs.length > 0);
      assertEquals(stderr.includes("The device configuration and the job can be used"), false);
    }
  });
}
