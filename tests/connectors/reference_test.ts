import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { CONNECTOR_NAMES, loadConnectors } from "../../connectors/registry.ts";
import { Lab } from "./support/lab.ts";

Deno.test("list names every device type with what it does", async () => {
  await using lab = await Lab.open();
  const { code, stdout } = await lab.run(["list"]);
  assertEquals(code, 0);
  assertEquals(
    stdout.trimEnd().split("\n").map((line) => line.trim().split(/\s+/)[0]),
    CONNECTOR_NAMES,
  );
});

Deno.test("describe tells type, default and meaning of every key, each with words of its own", async () => {
  await using lab = await Lab.open();
  for (const connector of await loadConnectors()) {
    const { code, stdout } = await lab.run(["describe", connector.name]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, `${connector.name}: ${connector.summary}`);
    const lines = stdout.split("\n");
    for (const key of Object.keys({ ...connector.configShape, ...connector.provisionShape })) {
      const at = lines.findIndex((line) => line.startsWith(`  ${key} (`));
      assert(at >= 0, `${connector.name}: ${key} is not described`);
      assert((lines[at + 1] ?? "").trim() !== "", `${connector.name}: ${key} has no meaning`);
    }
  }
});

/** The keys of `provision_data` that the official server's schemas know, of all connectors. */
const OFFICIAL_KEYS = [
  ...["skip", "url", "urls", "use_attachment", "media", "create_user", "boot_check_url"],
  ...["distro", "kernel", "user_data", "disks", "ephemeral", "jobs"],
  ...["preset", "preset_kwargs", "provision_plan", "ubuntu_sso_email", "agent_ssh_access"],
  ...["alloem_url", "robot_tasks", "oem", "autoinstall_storage_layout"],
  ...["autoinstall_base_user_data", "autoinstall_oem", "cmdline_append", "wait_until_ssh"],
  ...["live_image", "robot_retries", "provisioning_timeout"],
  ...["control_host_iso_url", "control_host_iso_type", "update_user_data"],
  ...["token_file", "redeploy_cfg", "authorized_keys"],
];

Deno.test("docs/migrating.md has a chapter of changes for each connector", async () => {
  const text = await Deno.readTextFile(new URL("../../docs/migrating.md", import.meta.url));
  const chapters = [...text.matchAll(/^### (.+)$/gm)].flatMap(([, names]) => names?.split(", "));
  assertEquals(CONNECTOR_NAMES.filter((name) => !chapters.includes(name)), []);
});

Deno.test("00-common 15: each key of a job that the official server refuses says so, and no other does", async () => {
  for (const { name, provisionShape } of await loadConnectors()) {
    for (const [key, schema] of Object.entries(provisionShape)) {
      // Of this connector alone the server does not know the time limit.
      const isRefused = !OFFICIAL_KEYS.includes(key) ||
        (name === "oem_autoinstall" && key === "provisioning_timeout");
      const says = (schema.description ?? "").includes("The official server refuses");
      assertEquals(says, isRefused, `${name}: ${key}`);
    }
  }
});

Deno.test("describe shows defaults as they would stand in the file", async () => {
  await using lab = await Lab.open();
  const { stdout } = await lab.run(["describe", "noprovision"]);
  assertStringIncludes(stdout, "  ssh_port (port, default 22)\n");
  assertStringIncludes(stdout, "  env (mapping of name to text, default {})\n");
  assertStringIncludes(stdout, "  device_ip (text, needed to provision)\n");
});

Deno.test("docs/connectors.md is what describe --markdown prints", async () => {
  await using lab = await Lab.open();
  const { stdout } = await lab.run(["describe", "--markdown"]);
  const written = await Deno.readTextFile(new URL("../../docs/connectors.md", import.meta.url));
  // When this fails: deno task docs
  assertEquals(written, stdout);
});
