/** A job from its submission to its artifacts, on a board behind a multiplexer. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { FORCE_TREE, prepareTree } from "../connectors/support/tree_control_host.ts";
import { closedPort } from "../connectors/support/stubs.ts";
import { startProgram } from "./built_program.ts";
import { incompressible, xz } from "../support/disk_images.ts";
import { Lab } from "../support/lab.ts";
import { output, SSH_TOOLS, SshServer, testWithTools } from "../support/sshd.ts";

const TOOLS = [...SSH_TOOLS, "sshpass", "ssh-copy-id", "xz", "tar"];

const MIB = 1024 * 1024;

/** Runs on the agent's host, as test commands do, and goes to the device. */
const TEST_COMMANDS = (server: SshServer) =>
  [
    `ssh="ssh -p ${server.port} -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null ` +
    `-o LogLevel=ERROR ${server.user}@$DEVICE_IP"`,
    `mkdir -p artifacts`,
    `$ssh 'echo "on the device"; wc -c < "$HOME/../medium"' | tee artifacts/device.txt`,
    `cat attachments/test/expected.txt`,
    `echo "the token is $TOKEN"`,
  ].join("\n");

interface World extends AsyncDisposable {
  readonly lab: Lab;
  readonly server: SshServer;
  readonly medium: string;
  /** Path of the agent's configuration. */
  readonly agentFile: string;
  /** The image, unpacked. */
  readonly image: string;
  /** Archive of the job's attachments. */
  readonly attachments: Uint8Array;
}

/** A sandbox, a device that is its own control host, and an agent's configuration for both. */
async function world(): Promise<World> {
  await using stack = new AsyncDisposableStack();
  const agentId = `e2e-${crypto.randomUUID().slice(0, 8)}`;
  const lab = stack.use(await Lab.open({ config: { agent_id: agentId } }));
  const server = stack.use(await SshServer.open({ forceCommand: FORCE_TREE }));
  const medium = await prepareTree(server);
  await server.program("stm", `echo "$*" >> "${server.root}/switched"`);
  await Deno.writeTextFile(
    join(lab.folder, "device.yaml"),
    JSON.stringify({
      agent_name: server.agentName,
      device_ip: "127.0.0.1",
      ssh_port: server.port,
      control_host: "127.0.0.1",
      control_host_port: closedPort(),
      control_host_ssh_port: server.port,
      control_user: server.user,
      test_device: medium,
      reboot_script: [`echo reset >> ${server.root}/switched`],
      env: { DEVICE_IP: "127.0.0.1" },
    }),
  );
  const agentFile = await lab.writeConfig({
    polling_interval: 0.2,
    cancel_grace: 5,
    connector: "muxpi",
    connector_config: "device.yaml",
  });
  const folder = join(lab.folder, "to-attach");
  for (const phase of ["provision", "test"]) {
    await Deno.mkdir(join(folder, phase), { recursive: true });
  }
  const image = join(lab.folder, "image");
  await Deno.writeFile(image, incompressible(4 * MIB));
  await Deno.rename(await xz(image), join(folder, "provision/image.xz"));
  await Deno.writeTextFile(join(folder, "test/expected.txt"), "from an attachment\n");
  const archive = join(lab.folder, "attachments.tar.gz");
  await output(["tar", "-czf", archive, "-C", folder, "provision", "test"]);
  const attachments = await Deno.readFile(archive);
  const all = stack.move();
  return {
    lab,
    server,
    medium,
    agentFile,
    image,
    attachments,
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

/** The environment of an agent whose pauses are short, and whose ssh knows the device. */
function environment({ server }: World): Record<string, string> {
  return {
    ...server.env,
    TFDC_TIME_SCALE: "0.001",
    DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
  };
}

function jobFor({ server }: World, more: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    attachments_status: "complete",
    // Events go only where a job wants them to be passed on to.
    job_status_webhook: "http://127.0.0.1:1/",
    provision_data: {
      use_attachment: "image.xz",
      attachments: [{ local: "image.xz" }],
      ...more,
    },
    test_data: {
      test_username: server.user,
      test_cmds: TEST_COMMANDS(server),
      attachments: [{ local: "expected.txt" }],
    },
  };
}

testWithTools(
  "a job is provisioned by muxpi over ssh, tests the device, and its artifacts arrive",
  TOOLS,
  async () => {
    await using all = await world();
    const { lab, server } = all;
    await using agent = startProgram(["-c", all.agentFile], { env: environment(all) });
    const jobId = lab.submit(jobFor(all), all.attachments);
    await lab.complete(jobId);

    const provisioning = lab.output(jobId, "provision");
    assertEquals(
      lab.statuses(jobId),
      { setup: 0, provision: 0, test: 0, cleanup: 0 },
      provisioning,
    );
    await output(["cmp", all.medium, all.image]);
    assertStringIncludes(provisioning, "The image is of the type ubuntu");
    assertEquals(
      await Deno.readTextFile(join(server.root, "switched")),
      "-ts\n-dut\nreset\n",
    );
    assertStringIncludes(
      lab.output(jobId, "test"),
      `on the device\n${4 * MIB}\nfrom an attachment\n`,
    );
    const artifacts = join(lab.folder, "artifacts.tar.gz");
    await Deno.writeFile(artifacts, lab.sandbox.artifact(jobId) ?? new Uint8Array());
    assertEquals(
      await output(["tar", "-xzOf", artifacts, "artifacts/device.txt"]),
      `on the device\n${4 * MIB}`,
    );
    assertEquals(lab.sandbox.result(jobId)?.device_info, {
      device_ip: "127.0.0.1",
      agent_name: server.agentName,
    });
    agent.kill("SIGTERM");
    assertEquals(await agent.exited, 0, agent.output());
  },
);

testWithTools(
  "a job that names another's file as its image fails in setup, says why, and leaves the device alone",
  TOOLS,
  async () => {
    await using all = await world();
    const { lab, server } = all;
    await using agent = startProgram(["-c", all.agentFile], { env: environment(all) });
    const jobId = lab.submit(
      jobFor(all, { use_attachment: "../test/expected.txt" }),
      all.attachments,
    );
    await lab.complete(jobId);
    assertEquals(lab.statuses(jobId), { setup: 1, cleanup: 0 });
    assertStringIncludes(lab.output(jobId, "setup"), "not inside of attachments/provision");
    const failed = lab.sandbox.events(jobId).find(({ event_name }) => event_name === "setup_fail");
    assertStringIncludes(failed?.detail ?? "", "ProvisioningError: Cannot use the attachment");
    assert(!await Deno.stat(join(server.root, "switched")).then(() => true, () => false));
    agent.kill("SIGTERM");
    assertEquals(await agent.exited, 0, agent.output());
  },
);

testWithTools(
  "an agent that is stopped while an image is written gives the storage back first",
  TOOLS,
  async () => {
    await using all = await world();
    const { lab, server } = all;
    const switched = join(server.root, "switched");
    const started = join(server.root, "started");
    // Nothing more is written after the first block, until the storage is switched away.
    await server.program(
      "dd",
      `head -c 65536 > "${all.medium}"; touch "${started}"; ` +
        `until grep -q dut "${switched}"; do sleep 0.05; done; cat > /dev/null`,
    );
    await using agent = startProgram(["-c", all.agentFile], { env: environment(all) });
    const jobId = lab.submit(jobFor(all), all.attachments);
    await lab.eventually(
      () => Deno.stat(started).then(() => true, () => false),
      "the image is being written",
    );
    agent.kill("SIGTERM");
    assertEquals(await agent.exited, 0, agent.output());
    assertEquals(await Deno.readTextFile(switched), "-ts\n-dut\n");
    assertEquals(lab.sandbox.state(jobId), "complete");
  },
);
