/** 08-control-host-kvm. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parse } from "yaml";
import {
  assertRefused,
  type Outcome,
  provisionOnce,
  type ProvisionOptions,
} from "./support/control_host_service.ts";

const ISO = "http://images/hp-jammy-oem.iso";

async function provision(
  data: Record<string, unknown>,
  more: ProvisionOptions = {},
): Promise<Outcome & { passwords: string }> {
  let passwords = "";
  const outcome = await provisionOnce("control_host_kvm", data, {
    ...more,
    config: { oem_recovery_script: "recover", ...more.config },
    async before(lab) {
      await lab.fake("ssh", 'case "$*" in *chpasswd) cat >> passwords;; esac');
      await lab.fake("recover", 'printf "%s\\n" "$@" > recover.args');
      await more.before?.(lab);
    },
    async after(lab) {
      // What chpasswd was given.
      passwords = await lab.read("passwords").catch(() => "");
    },
  });
  return { ...outcome, passwords };
}

/** What every request has. */
const COMMON = {
  agent_name: "a1",
  cid: null,
  device_ip: "10.1.1.1",
  reboot_script: ["pdu cycle"],
  poweron_script: null,
  poweroff_script: null,
  authorized_keys: ["ssh-rsa AAAA agent\n"],
};

Deno.test("08-control-host-kvm 1: an ISO and Robot tasks", async () => {
  const { run, kwargs, calls } = await provision({ url: "http://t", robot_tasks: ["a.robot"] });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(kwargs, {
    ...COMMON,
    url: "http://t",
    username: "ubuntu",
    password: "ubuntu",
    autoinstall_conf: null,
    robot_tasks: ["a.robot"],
  });
  // The service installed the key.
  assertEquals(calls, []);
});

Deno.test("08-control-host-kvm 2: autoinstall keys go along without their beginning", async () => {
  const { kwargs } = await provision({
    url: "http://t",
    robot_tasks: [],
    autoinstall_storage_layout: "lvm",
    my_autoinstall_x: "not this one",
    autoinstall_y: 1,
  });
  assertEquals(kwargs?.autoinstall_conf, { storage_layout: "lvm", y: 1 });
});

Deno.test("08-control-host-kvm 3: autoinstall_oem brings user data that YAML can read", async () => {
  const { run, kwargs } = await provision({
    url: "http://t",
    robot_tasks: [],
    autoinstall_oem: true,
    autoinstall_storage_layout: "lvm",
  });
  assertStringIncludes(run.stderr, "do not count");
  const conf = kwargs?.autoinstall_conf as { storage_layout: string; base_user_data: string };
  assertEquals(conf.storage_layout, "direct");
  const text = new TextDecoder().decode(Uint8Array.fromBase64(conf.base_user_data));
  assert(text.startsWith("#cloud-config\n"));
  const { autoinstall } = parse(text);
  assertEquals(autoinstall.version, 1);
  assertEquals(autoinstall.source, { id: "ubuntu-desktop" });
  const { layout } = autoinstall.storage;
  assertEquals([layout.name, layout["reset-partition"]], ["direct", "12G"]);
  assertEquals(layout.match.map(({ path }: { path: string }) => path), [
    "/dev/mapper/*",
    "/dev/md*",
    "/dev/nvme0n1",
    "/dev/pmem*",
    "/dev/mmcblk0",
    "/dev/sda",
    "/dev/sdb",
    "/dev/vda",
  ]);
  assertEquals(layout.match[5], { path: "/dev/sda", size: "largest" });
  // Each command is one that a shell can read.
  for (const command of autoinstall["late-commands"]) {
    const { success } = await new Deno.Command("sh", { args: ["-n", "-c", command] }).output();
    assert(success, command);
  }
  assertEquals(autoinstall["user-data"].bootcmd, ["/sp-bootstrap/hook.sh early-welcome"]);
  assertEquals(autoinstall["user-data"].power_state, { mode: "reboot", timeout: 30 });
});

Deno.test("08-control-host-kvm 4: user data that are none are refused, with what is wrong", async () => {
  const job = (text: string) =>
    provision({ url: "http://t", robot_tasks: [], autoinstall_base_user_data: text });
  const encode = (text: string) => new TextEncoder().encode(text).toBase64();
  assertRefused(await job("notbase64"), "is not base64 of a text");
  assertRefused(await job(encode("a: b: c: d")), "is not base64 of YAML");
  assertRefused(await job(encode("only words")), "expected a mapping");
  assertRefused(await job(new Uint8Array([0xff, 0xfe]).toBase64()), "is not base64 of a text");
  assertEquals((await job(encode("autoinstall: {version: 1}"))).run.code, 0);
});

Deno.test("08-control-host-kvm 5: a preset gets all that the job says, but never the user", async () => {
  const { run, kwargs } = await provision({
    preset: "x",
    username: "evil",
    url: "http://t",
    attachments: [],
    provisioning_timeout: 60,
    extra: { a: 1 },
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(kwargs, {
    ...COMMON,
    preset: "x",
    url: "http://t",
    extra: { a: 1 },
    username: "ubuntu",
    password: "ubuntu",
  });
  const conf = await provision({ preset: "x", autoinstall_storage_layout: "lvm" });
  assertEquals(conf.kwargs?.autoinstall_conf, { storage_layout: "lvm" });
  assert(!("autoinstall_storage_layout" in (conf.kwargs ?? {})));
});

Deno.test("08-control-host-kvm 6: the OEM preset has its own user, and the ISO comes afterwards", async () => {
  const { run, kwargs, calls, passwords } = await provision({
    preset: "desktop-jammy-oem",
    url: ISO,
  });
  assertEquals(run.code, 0, run.stderr);
  assert(!("url" in (kwargs ?? {})));
  assertEquals([kwargs?.username, kwargs?.password], ["ubuntu", "u"]);
  assertEquals(passwords, "ubuntu:ubuntu\n");
  assert(calls.some(({ program }) => program === "ssh-copy-id"));
  const [script] = calls.filter(({ program }) => program === "recover");
  assert(script?.args.includes(ISO), JSON.stringify(script));
});

Deno.test("08-control-host-kvm 7: an OEM image stands in the preset's url", async () => {
  const { kwargs } = await provision({
    preset: "desktop-jammy-oem",
    url: ISO,
    alloem_url: "http://a",
  });
  assertEquals(kwargs?.url, "http://a");
  assert(!("alloem_url" in (kwargs ?? {})));
});

Deno.test("any other preset gets the job's password, though an OEM image goes along", async () => {
  const test = { test_password: "pw" };
  const { run, kwargs } = await provision({ preset: "x", alloem_url: "http://a" }, { test });
  assertEquals(run.code, 0, run.stderr);
  assertEquals([kwargs?.username, kwargs?.password], ["ubuntu", "pw"]);
  assertEquals(kwargs?.alloem_url, "http://a");
  const without = await provision({ alloem_url: "http://a", robot_tasks: [] }, { test });
  assertEquals(without.kwargs?.password, "u");
});

Deno.test("a second step that never happens is a failure", async () => {
  const { run, failure } = await provision({ preset: "desktop-jammy-oem", url: ISO }, {
    before: (lab) =>
      lab.fake(
        "ssh",
        `case "$*" in
        *"sudo reboot") touch rebooted ;;
        *boot_id) ls rebooted 2>/dev/null || echo up ;;
        esac`,
      ),
  });
  assertEquals(run.code, 1);
  assertStringIncludes(failure.exception_message ?? "", "the old system is still running");
});

Deno.test("08-control-host-kvm 8: an OEM image without a second step is said to stay", async () => {
  const { run, kwargs, calls } = await provision({ alloem_url: "http://a", robot_tasks: [] });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(kwargs?.url, "http://a");
  assertEquals(calls.map(({ program }) => program), ["sshpass", "ssh", "sshpass", "ssh-copy-id"]);
  assertEquals(calls[0]?.password, "u");
  assertEquals(calls[2]?.password, "ubuntu");
  assert(calls[3]?.args.includes("-f"));
  assertStringIncludes(run.stderr, "has no 'url': the device stays with the OEM image");
});

Deno.test("08-control-host-kvm 9: the second step works as the vendor's recovery does", async () => {
  for (const [oem, ubr] of [["hp", true], ["Lenovo", true], ["dell", false], ["acme", false]]) {
    const { run, calls } = await provision({
      alloem_url: "http://a",
      url: "http://images/jammy.iso",
      robot_tasks: [],
      oem,
    });
    assertEquals(run.code, 0, run.stderr);
    const [script] = calls.filter(({ program }) => program === "recover");
    assertEquals(script?.args.includes("--ubr"), ubr, JSON.stringify(script));
  }
});

Deno.test("08-control-host-kvm 10: options of the service are forwarded as they are", async () => {
  const { kwargs } = await provision({
    url: "http://t",
    robot_tasks: [],
    live_image: false,
    robot_retries: 1,
    wait_until_ssh: null,
  });
  assertEquals([kwargs?.live_image, kwargs?.robot_retries], [false, 1]);
  assert(!("wait_until_ssh" in (kwargs ?? {})));
});

Deno.test("08-control-host-kvm 11: what the control host cannot do without is named before it is asked", async () => {
  assertRefused(await provision({ url: "http://t" }), "'robot_tasks'");
  assertRefused(await provision({ alloem_url: "http://t" }), "'robot_tasks'");
  assertRefused(await provision({ robot_tasks: [] }), "'url'");
});

Deno.test("08-control-host-kvm 12: a password reaches the device by standard input, whatever is in it", async () => {
  const password = "p'w; x";
  const { run, calls, passwords } = await provision({ alloem_url: "http://a", robot_tasks: [] }, {
    test: { test_password: password },
  });
  assertEquals(run.code, 0, run.stderr);
  assertEquals(passwords, `ubuntu:${password}\n`);
  assertEquals(calls.find(({ program }) => program === "ssh")?.args.at(-1), "sudo chpasswd");
  for (const { args } of calls) assert(!args.join(" ").includes("p'w"), args.join(" "));
  assert(!run.stderr.includes("p'w") && !run.stdout.includes("p'w"));
});

Deno.test("08-control-host-kvm 13: a device on which the password cannot be set fails", async () => {
  const { run, failure, calls, pauses } = await provision(
    { alloem_url: "http://a", robot_tasks: [] },
    { before: (lab) => lab.fake("ssh", "hang") },
  );
  assertEquals(run.code, 1);
  assertEquals(failure.exception_name, "ProvisioningError");
  assertStringIncludes(failure.exception_message ?? "", "was ended after 60 s");
  assertEquals(calls.filter(({ program }) => program === "ssh").length, 10);
  assertEquals(pauses, Array(9).fill(30));
});

Deno.test("a user that an OEM image does not have is refused, and a password of several lines", async () => {
  const job = (test: Record<string, unknown>) =>
    provision({ alloem_url: "http://a", robot_tasks: [] }, { test });
  assertRefused(await job({ test_username: "me" }), "there is only 'ubuntu'", "JobError");
  assertRefused(await job({ test_password: "a\nroot:b" }), "control characters", "JobError");
});

Deno.test("a host without a public key says so before the control host is asked", async () => {
  assertRefused(
    await provision({ url: "http://t", robot_tasks: [] }, {
      before: (lab) => Deno.remove(`${lab.root}/home/.ssh/id_rsa.pub`),
    }),
    "There is no public key",
  );
});

Deno.test("an ISO of the second step that cannot be used is refused before the first", async () => {
  assertRefused(
    await provision({ alloem_url: "http://a", robot_tasks: [], url: "http://x/a b.iso" }),
    "name of an ISO",
  );
});
