import { assertEquals, assertStringIncludes } from "@std/assert";
import { systemClock } from "../../lib/clock.ts";
import { readForHost } from "../../lib/cli/read_config.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { Configurations, type ConfigurationSource } from "../../lib/host/configurations.ts";

interface Ground {
  folder: string;
  write(name: string, text: string): Promise<void>;
  configurations: Configurations;
}

async function inFolder(
  test: (ground: Ground) => Promise<void>,
  source?: (folder: string) => ConfigurationSource,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const write = async (name: string, text: string) => {
    await Deno.mkdir(`${folder}/${name.split("/").slice(0, -1).join("/")}`, { recursive: true });
    await Deno.writeTextFile(`${folder}/${name}`, text);
  };
  const configurations = new Configurations(
    source?.(folder) ?? { folder },
    readForHost,
    systemClock,
  );
  try {
    await test({ folder, write, configurations });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function agent(id: string, more = ""): string {
  return `agent_id: ${id}\nserver_address: s\njob_queues: [q]\n${more}`;
}

Deno.test("each DIR/*.conf and each DIR/NAME/testflinger-agent.conf is an agent, and nothing else there", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("a.conf", agent("a"));
    await write("b/testflinger-agent.conf", agent("b"));
    await write("b/default.yaml", "device_ip: 10.0.0.1\n");
    await write("b/other.conf", agent("not"));
    await write("c.conf.bak", agent("not"));
    await write(".hidden.conf", agent("not"));
    const { wanted, broken } = await configurations.look();
    assertEquals([...wanted].map(([id, { file }]) => [id, file]), [
      ["a", `${folder}/a.conf`],
      ["b", `${folder}/b/testflinger-agent.conf`],
    ]);
    assertEquals(broken, []);
  }));

Deno.test("a connector finds its device's file, default.yaml, beside the agent's", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("b/testflinger-agent.conf", agent("b", "connector: muxpi\n"));
    await write("b/default.yaml", "device_ip: 10.0.0.1\n");
    const { wanted } = await configurations.look();
    const config = wanted.get("b")?.config;
    assertEquals(config?.connector_config, `${folder}/b/default.yaml`);
    assertStringIncludes(config?.provision_command ?? "", `-c ${folder}/b/default.yaml`);
    await Deno.remove(`${folder}/b/default.yaml`);
    await write("b/testflinger-agent.conf", agent("b", "connector: muxpi\nlocation: x\n"));
    const [broken] = (await configurations.look()).broken;
    assertStringIncludes(broken?.mistakes.join() ?? "", "must come with connector_config");
  }));

Deno.test("a file that cannot be used any more leaves its agent as it was before, and says what is wrong", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("a.conf", agent("a", "location: rack 1\n"));
    await configurations.look();
    await write("a.conf", agent("a", "locaton: rack 2\n"));
    const { wanted, broken } = await configurations.look();
    assertEquals(wanted.get("a")?.config.location, "rack 1");
    assertEquals(broken.map(({ file, agentId }) => [file, agentId]), [[`${folder}/a.conf`, "a"]]);
    assertStringIncludes(broken[0]?.mistakes.join() ?? "", `${folder}/a.conf:4:1: `);
    await write("a.conf", agent("a", "location: rack 2\n"));
    const mended = await configurations.look();
    assertEquals([mended.wanted.get("a")?.config.location, mended.broken], ["rack 2", []]);
  }));

Deno.test("of a file that cannot be used it is known since when, whatever is wrong with it meanwhile", async () => {
  const clock = new FakeClock();
  const folder = await Deno.makeTempDir();
  const write = (text: string) => Deno.writeTextFile(`${folder}/a.conf`, text);
  const configurations = new Configurations({ folder }, readForHost, clock);
  const since = async () => (await configurations.look()).broken.map((one) => one.since);
  try {
    await write(agent("a"));
    assertEquals(await since(), []);
    await write(agent("a", "locaton: x\n"));
    const first = clock.now();
    assertEquals(await since(), [first]);
    await clock.advance(60_000);
    await write(agent("a", "lction: x\n"));
    assertEquals(await since(), [first]);
    await write(agent("a"));
    assertEquals(await since(), []);
    await write(agent("a", "locaton: x\n"));
    assertEquals(await since(), [first + 60_000]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("an id that two files have at a start is neither's, both are named, and it is the one's that stays", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("a.conf", agent("twin"));
    await write("b.conf", agent("twin"));
    const { wanted, broken } = await configurations.look();
    assertEquals([...wanted], []);
    const words = (file: string, other: string) =>
      `${folder}/${file}: agent_id: 'twin' is the agent_id of ${folder}/${other} too: ` +
      "remove one of the files, or give it another agent_id";
    assertEquals(broken.map(({ mistakes }) => mistakes), [
      [words("a.conf", "b.conf")],
      [words("b.conf", "a.conf")],
    ]);
    await Deno.remove(`${folder}/a.conf`);
    const later = await configurations.look();
    assertEquals([later.wanted.get("twin")?.file, later.broken], [`${folder}/b.conf`, []]);
  }));

Deno.test("a copy with the id of an agent that runs takes nothing from it, whatever its name", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("b.conf", agent("board"));
    await configurations.look();
    await write("a.conf", agent("board", "location: elsewhere\n"));
    const { wanted, broken } = await configurations.look();
    assertEquals(wanted.get("board")?.file, `${folder}/b.conf`);
    assertEquals(broken.map(({ file }) => file), [`${folder}/a.conf`]);
  }));

Deno.test("a file that waits for another one beside it is used once that is there", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("b/testflinger-agent.conf", agent("b", "connector: muxpi\n"));
    assertEquals((await configurations.look()).broken.length, 1);
    await write("b/default.yaml", "device_ip: 10.0.0.1\n");
    const { wanted, broken } = await configurations.look();
    assertEquals(broken, []);
    assertEquals(wanted.get("b")?.config.connector_config, `${folder}/b/default.yaml`);
    // What is used already is read again when that is asked for.
    await Deno.remove(`${folder}/b/default.yaml`);
    assertEquals((await configurations.look()).broken, []);
    assertEquals((await configurations.look({ all: true })).broken.length, 1);
  }));

Deno.test("a folder that cannot be read for a moment takes no agent away", () =>
  inFolder(async ({ folder, write, configurations }) => {
    await write("etc/a.conf", agent("a"));
    const before = await configurations.look();
    assertEquals([...before.wanted.keys()], ["a"]);
    await Deno.rename(`${folder}/etc`, `${folder}/away`);
    const { wanted, warnings } = await configurations.look();
    assertEquals([...wanted.keys()], ["a"]);
    assertStringIncludes(warnings.join(), "nothing changes");
    // It is said once.
    assertEquals((await configurations.look()).warnings, []);
    await Deno.rename(`${folder}/away`, `${folder}/etc`);
    assertEquals((await configurations.look()).broken, []);
  }, (folder) => ({ folder: `${folder}/etc` })));
