/** What may wait on disk has a limit; what is given up for it is what helps. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { spaceOf } from "../../lib/job/space_cap.ts";
import { Lab } from "../support/lab.ts";
import { TempFolder } from "../support/temp_folder.ts";

const MB = 1_000_000;

/** The server takes neither logs nor artifacts until the returned function is called. */
function refuseTransfers(lab: Lab): () => void {
  return lab.sandbox.intercept((request) =>
    /\/(log\/output|artifact)$/.test(request.url)
      ? new Response("busy", { status: 503 })
      : undefined
  );
}

Deno.test("holes take up no room, and a file with two names takes it once", async () => {
  await using folder = new TempFolder();
  await Deno.writeFile(folder.at("file"), new Uint8Array(MB).fill(1));
  const before = await spaceOf(folder.path);
  assertEquals(before >= MB && before < 1.1 * MB, true, `${before}`);
  await Deno.link(folder.at("file"), folder.at("again"));
  using sparse = await Deno.create(folder.at("sparse"));
  await sparse.truncate(11_000 * MB);
  const more = await spaceOf(folder.path) - before;
  assertEquals(more < 0.1 * MB, true, `${more}`);
});

Deno.test("a sparse artifact costs no job its log", async () => {
  await using lab = await Lab.open({
    config: {
      max_spool: 5 * MB,
      test_command: 'echo "$KIND"; mkdir artifacts; truncate -s 20M artifacts/sparse; touch ../ran',
    },
  });
  const undo = refuseTransfers(lab);
  const jobIds = [lab.submit({ test_data: { a: 1 } }), lab.submit({ test_data: { a: 1 } })];
  lab.start();
  await lab.eventually(
    () => lab.logged("info").filter((line) => / ended$/.test(line)).length >= 2,
    "both jobs have run",
  );
  await lab.eventually(
    () => lab.log.lines.filter((line) => line.message.startsWith("Will be tried")).length > 20,
    "the server has refused them again and again",
  );
  undo();
  for (const jobId of jobIds) {
    await lab.complete(jobId);
    assert(lab.sandbox.artifact(jobId) !== undefined);
  }
  assertEquals(lab.logged("error"), []);
});

Deno.test("what is given up is the largest, and of no other job", async () => {
  await using lab = await Lab.open({
    config: {
      max_spool: 3 * MB,
      test_command: "echo kept; mkdir artifacts; echo small > artifacts/small; " +
        "[ ! -e ../large ] || head -c 8000000 /dev/urandom > artifacts/large; touch ../large",
    },
  });
  const undo = refuseTransfers(lab);
  const small = lab.submit({ test_data: { a: 1 } });
  const large = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(
    () => lab.logged("error").some((line) => line.includes("given up")),
    "something is given up",
  );
  undo();
  await lab.complete(small);
  await lab.complete(large);
  assertStringIncludes(lab.logged("error").join("\n"), `the artifacts of job ${large}, `);
  assertEquals(lab.logged("error").length, 1);
  assert(lab.sandbox.artifact(small) !== undefined);
  assertEquals(lab.sandbox.artifact(large), undefined);
  assertEquals(lab.output(small, "test"), "kept\n");
  assertEquals(lab.output(large, "test"), "kept\n");
});

Deno.test("what a server is taking is not given up, however large it is", async () => {
  await using lab = await Lab.open({
    config: {
      max_spool: 1000,
      test_command: "mkdir artifacts; head -c 4000000 /dev/urandom > artifacts/large",
    },
  });
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals((lab.sandbox.artifact(jobId)?.length ?? 0) > 4 * MB * 0.9, true);
  assertEquals(lab.logged("error"), []);
  await lab.eventually(
    () =>
      [...Deno.readDirSync(join(lab.config.results_basedir, "agent-agent-1", "jobs"))].length === 0,
    "all of it is delivered",
  );
});
