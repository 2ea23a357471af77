import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { mayMount, onOwnDisk } from "../support/small_disk.ts";
import { HostLab } from "./support/host_lab.ts";

/** The neighbour takes jobs, and ends them. */
async function assertNeighbourWorks(lab: HostLab): Promise<void> {
  await lab.go("b");
  const job = lab.submit("b");
  await lab.complete(job);
  assertEquals(lab.sandbox.result(job)?.test_status, 0);
}

Deno.test("an agent whose folder cannot be made is told and tried again; its neighbour works", async () => {
  await using lab = await HostLab.open();
  const obstacle = join(lab.folder, "obstacle");
  await Deno.writeTextFile(obstacle, "a file");
  await lab.configure("a", { results_basedir: join(obstacle, "results") });
  await lab.configure("b");
  lab.start();
  await lab.waiting("b");
  await lab.until(async () => (await lab.get("/healthz")).status === 503, "health says so");
  assertStringIncludes((await lab.get("/healthz")).text, `${lab.id("a")}: Cannot make the folder`);
  await assertNeighbourWorks(lab);
  await Deno.remove(obstacle);
  await lab.waiting("a");
  await lab.until(async () => (await lab.get("/healthz")).status === 200, "all is well again");
});

Deno.test("an agent that meets an unexpected error starts again; its neighbour works", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a");
  await lab.configure("b");
  const results = join(lab.folder, "a", "results", `agent-${lab.id("a")}`);
  // A folder in place of the file in which it takes its lock.
  await Deno.mkdir(join(results, "lock"), { recursive: true });
  lab.start();
  await lab.waiting("b");
  await lab.until(
    () => lab.process.output().includes(`[${lab.id("a")}] The agent cannot run: `),
    "it is told",
  );
  await assertNeighbourWorks(lab);
  await Deno.remove(join(results, "lock"));
  await lab.waiting("a");
});

Deno.test("an agent that another process holds already is told; its neighbour works", async () => {
  await using lab = await HostLab.open();
  const file = await lab.configure("a");
  await lab.configure("b");
  const other = lab.start("-c", file);
  await using _other = other;
  await lab.waiting("a");
  lab.start();
  await lab.waiting("b");
  await lab.until(
    () => lab.process.output().includes(`Another agent '${lab.id("a")}' runs on this host`),
    "it is told",
  );
  await assertNeighbourWorks(lab);
  other.kill("SIGTERM");
  await other.exited;
  await lab.waiting("a");
});

Deno.test("a job that prints as fast as it can does not hold up the neighbour's", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a", { test_command: "yes 'a line of output'" });
  await lab.configure("b", { polling_interval: 0.2 });
  lab.start();
  await lab.waiting("a", "b");
  const flood = lab.submit("a");
  await lab.until(() => lab.sandbox.log(flood, "output").length > 10_000_000, "it floods");
  await assertNeighbourWorks(lab);
  // It goes on all the while; to deliver all of it would take longer than it is worth.
  assertEquals(lab.sandbox.state(flood), "test");
});

Deno.test("an agent whose server never answers does not hold up the neighbour, nor the end", async () => {
  await using lab = await HostLab.open();
  const silent = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const taken: Deno.Conn[] = [];
  const taking = (async () => {
    for await (const connection of silent) taken.push(connection);
  })();
  try {
    await lab.configure("a", { server_address: `http://127.0.0.1:${silent.addr.port}` });
    await lab.configure("b");
    lab.start();
    await lab.waiting("b");
    await assertNeighbourWorks(lab);
    lab.process.kill("SIGTERM");
    assertEquals(await lab.process.exited, 0, lab.process.output());
  } finally {
    silent.close();
    for (const connection of taken) connection.close();
    await taking;
  }
});

Deno.test({
  name: "an agent whose disk a job fills says so and loses that phase; its neighbour works",
  // Mounting needs root and a container that allows it.
  ignore: !mayMount,
  async fn() {
    await using lab = await HostLab.open();
    const disk = join(lab.folder, "disk");
    await Deno.mkdir(disk);
    const folders = Object.fromEntries(
      ["execution", "logging", "results"].map((name) => [`${name}_basedir`, join(disk, name)]),
    );
    await lab.configure("a", {
      ...folders,
      test_command: `if [ -e ${join(lab.folder, "fine")} ]; then echo fine; else ` +
        `dd if=/dev/zero of=fill bs=64k; yes 'a line of output' | head -c 9000000; sleep 1000; fi`,
    });
    await lab.configure("b");
    lab.through = [...onOwnDisk("size=3m"), disk];
    lab.start();
    await lab.waiting("a", "b");
    const full = lab.submit("a");
    await assertNeighbourWorks(lab);
    await lab.complete(full);
    assertStringIncludes(lab.sandbox.log(full, "output"), "The agent cannot store the output");
    assertEquals(lab.sandbox.result(full)?.test_status, 100);
    await assertNeighbourWorks(lab);
    await Deno.writeTextFile(join(lab.folder, "fine"), "");
    const next = lab.submit("a");
    await lab.complete(next);
    assertEquals(lab.sandbox.result(next)?.test_status, 0);
  },
});

Deno.test("a device that hangs, and a command that ignores every request to end, hold up only their agent", async () => {
  await using lab = await HostLab.open();
  await lab.configure("a", {
    test_command: "trap '' TERM INT HUP; echo begun; while :; do sleep 1000; done",
    cancel_grace: 3,
  });
  await lab.configure("b", { polling_interval: 0.2 });
  lab.start();
  await lab.waiting("a", "b");
  const hung = lab.submit("a");
  await lab.until(() => lab.sandbox.log(hung, "output").includes("begun"), "it hangs");
  await assertNeighbourWorks(lab);
  lab.sandbox.cancel(hung);
  await assertNeighbourWorks(lab);
  await lab.until(() => lab.sandbox.result(hung)?.job_state === "complete", "the hung job ends");
  await lab.waiting("a");
});
