import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { markOfFolders, prepareFolders } from "../../lib/agent/folders.ts";
import { AgentConfig } from "../../lib/config/agent_config.ts";
import { Lab } from "../support/lab.ts";
import { after, moduleAt, runScript } from "../support/script.ts";
import { IS_ROOT, NOBODY, TempFolder } from "../support/temp_folder.ts";

/** A configuration with its folders at the established places below one that is as `/tmp` is. */
function configIn(folder: TempFolder): AgentConfig {
  Deno.chmodSync(folder.path, 0o1777);
  return AgentConfig.parse({
    agent_id: "agent-1",
    server_address: "http://127.0.0.1",
    job_queues: ["queue-1"],
    execution_basedir: folder.at("testflinger", "run"),
    logging_basedir: folder.at("testflinger", "logs"),
    results_basedir: folder.at("testflinger", "results"),
  });
}

function modeOf(path: string): number {
  return (Deno.statSync(path).mode ?? 0) & 0o7777;
}

Deno.test("only the agent's own folder is closed to others, however it was made", async () => {
  await using folder = new TempFolder();
  const config = configIn(folder);
  const own = join(config.results_basedir, "agent-agent-1");
  const said = await runScript(
    `import { prepareFolders } from ${moduleAt("lib/agent/folders.ts")};
     console.log(JSON.stringify(prepareFolders(JSON.parse(Deno.args[0]))));`,
    { through: after("umask 000"), args: [JSON.stringify(config)], permissions: ["--allow-all"] },
  );
  assertEquals(JSON.parse(said), { ok: true, folder: own });
  assertEquals(modeOf(own), 0o700);
  assertEquals(modeOf(config.execution_basedir), 0o755);
  await Deno.chmod(own, 0o777);
  assertEquals(prepareFolders(config).ok, true);
  assertEquals(modeOf(own), 0o700);
});

for (const name of ["", "run", "logs", "results"]) {
  const shown = join("testflinger", name);
  Deno.test(
    `an agent does not start when ${shown} below /tmp belongs to another user, and names it`,
    {
      ignore: !IS_ROOT,
    },
    async () => {
      await using folder = new TempFolder();
      const config = configIn(folder);
      const path = folder.at("testflinger", name);
      await Deno.mkdir(path, { recursive: true });
      await Deno.chown(path, NOBODY, NOBODY);
      const prepared = prepareFolders(config);
      const message = prepared.ok ? "" : prepared.message;
      assertStringIncludes(message, `${path} belongs to user ${NOBODY}`);
      assertStringIncludes(message, "_basedir)");
      // Nothing was put into it before it was refused.
      assertEquals([...Deno.readDirSync(path)], []);
    },
  );
}

Deno.test("an agent does not start when its own folder belongs to another user", {
  ignore: !IS_ROOT,
}, async () => {
  await using folder = new TempFolder();
  const config = configIn(folder);
  prepareFolders(config);
  // Elsewhere, too, where folders are not looked at otherwise.
  await Deno.chmod(folder.path, 0o755);
  const own = join(config.results_basedir, "agent-agent-1");
  await Deno.chown(own, NOBODY, NOBODY);
  const prepared = prepareFolders(config);
  assertStringIncludes(prepared.ok ? "" : prepared.message, `${own} (results_basedir)`);
});

Deno.test("a folder that every account may write to is a warning when the agent starts", async () => {
  await using lab = await Lab.open();
  await Deno.mkdir(lab.config.execution_basedir);
  await Deno.chmod(lab.config.execution_basedir, 0o777);
  lab.start();
  await lab.until(() => lab.sandbox.agent("agent-1")?.state === "waiting", "waiting");
  assertStringIncludes(
    lab.logged("warning").join("\n"),
    `chmod o-w ${lab.config.execution_basedir}`,
  );
});

Deno.test(
  "a job fails, and runs no command, when its folder's place was taken by another user meanwhile",
  {
    ignore: !IS_ROOT,
  },
  async () => {
    await using folder = new TempFolder();
    const config = configIn(folder);
    const { execution_basedir, results_basedir, logging_basedir } = config;
    await using lab = await Lab.open({
      config: {
        execution_basedir,
        results_basedir,
        logging_basedir,
        test_command: `touch ${folder.at("ran")}`,
        cleanup_command: `touch ${folder.at("ran")}`,
      },
    });
    lab.sandbox.intercept(async (request, proceed) => {
      const answer = await proceed();
      if (!request.url.includes("/v1/job?") || answer.status !== 200) return answer;
      // As when /tmp is tidied, and another user is quicker than the job that is on its way.
      await Deno.remove(execution_basedir, { recursive: true });
      await Deno.mkdir(execution_basedir);
      await Deno.chown(execution_basedir, NOBODY, NOBODY);
      return answer;
    });
    const jobId = await lab.run({ test_data: { secrets: { KEY: "sesame-open" } } });
    assertEquals(lab.statuses(jobId), { setup: 1, cleanup: 100 });
    assertStringIncludes(
      lab.sandbox.log(jobId, "output", "setup"),
      `ERROR: Cannot trust execution_basedir: ${execution_basedir} belongs to user ${NOBODY}`,
    );
    assertEquals(await Deno.stat(folder.at("ran")).catch(() => "no"), "no");
    assertEquals(lab.inExecutionBasedir(), [], "nothing was put into another user's folder");
  },
);

Deno.test("folders are known to be others when one is replaced, opened to others, or gone", async () => {
  await using folder = new TempFolder();
  const config = configIn(folder);
  assertEquals(markOfFolders(config), undefined);
  prepareFolders(config);
  const own = join(config.results_basedir, "agent-agent-1");
  await Deno.mkdir(join(own, "jobs"));
  const before = markOfFolders(config);
  assert(before !== undefined);
  assertEquals(markOfFolders(config), before);
  await Deno.rename(config.execution_basedir, `${config.execution_basedir}-away`);
  assertEquals(markOfFolders(config), undefined);
  await Deno.mkdir(config.execution_basedir);
  const replaced = markOfFolders(config);
  assert(replaced !== before);
  await Deno.chmod(config.results_basedir, 0o777);
  assert(markOfFolders(config) !== replaced);
});
