import { assertEquals, assertStringIncludes } from "@std/assert";
import { HostStatus } from "../../lib/observe/status_schema.ts";
import { HostLab } from "./support/host_lab.ts";

const TOKEN = "a-token-of-some-length";

Deno.test("from its page an agent is taken offline and online and restarted, and its process hands a job over", async () => {
  await using lab = await HostLab.open();
  await Deno.writeTextFile(`${lab.folder}/page-token`, `${TOKEN}\n`, { mode: 0o600 });
  const actions = { page_actions: true, page_token_file: `${lab.folder}/page-token` };
  await lab.configure("a", actions);
  await lab.configure("b");
  const process = lab.start();
  await lab.waiting("a", "b");
  const act = async (name: string, action: string, comment = "") => {
    const response = await fetch(
      `http://127.0.0.1:${lab.port}/agents/${lab.id(name)}/actions`,
      { method: "POST", body: new URLSearchParams({ token: TOKEN, action, comment }) },
    );
    return { status: response.status, text: await response.text() };
  };
  assertEquals((await act("b", "offline")).status, 405);

  assertEquals((await act("a", "offline", "new card\nand more")).status, 200);
  await lab.until(() => `${lab.shown("a")}` === "offline,new card", "a offline");
  assertEquals(lab.shown("b")[0], "waiting");
  const online = await act("a", "online");
  assertStringIncludes(online.text, "The agent takes jobs again.");
  await lab.waiting("a");

  const job = lab.submit("a");
  await lab.until(() => lab.sandbox.log(job, "output").includes("begun"), "the job runs");
  const handedOver = await act("a", "hand-over");
  assertStringIncludes(handedOver.text, "The process hands over to the next one");
  assertEquals(await process.exited, 1, process.output());
  lab.start();
  await lab.go("a");
  await lab.complete(job);

  const startedAt = async () =>
    JSON.parse((await lab.get(`/v1/agents/${lab.id("a")}`)).text).started_at;
  const before = await startedAt();
  assertEquals((await act("a", "restart")).status, 200);
  await lab.until(async () => await startedAt() !== before, "a has restarted");
  assertStringIncludes(process.output(), "Asked for on the page: offline");
});

Deno.test("an agent that went offline by itself needs a person, and comes back by its page", async () => {
  await using lab = await HostLab.open();
  await Deno.writeTextFile(`${lab.folder}/page-token`, `${TOKEN}\n`, { mode: 0o600 });
  await lab.configure("a", {
    page_actions: true,
    page_token_file: `${lab.folder}/page-token`,
    provision_command: "exit 46",
  });
  lab.start();
  await lab.waiting("a");
  lab.submit("a", { provision_data: { a: 1 } });
  await lab.until(() => lab.shown("a")[0] === "offline", "a offline");
  const attention = async () =>
    HostStatus.parse(JSON.parse((await lab.get("/v1/status")).text)).agents[0]?.attention;
  await lab.until(async () => await attention() !== undefined, "a needs a person");
  const response = await fetch(`http://127.0.0.1:${lab.port}/agents/${lab.id("a")}/actions`, {
    method: "POST",
    body: new URLSearchParams({ token: TOKEN, action: "online" }),
  });
  assertStringIncludes(await response.text(), "The agent takes jobs again.");
  await lab.waiting("a");
  await lab.until(async () => await attention() === undefined, "nobody is needed");
});
