import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import type { Browser, Page } from "playwright-core";
import { type ServedSandbox, serveSandbox } from "../../lib/sandbox/serve.ts";
import { startProgram } from "../e2e/built_program.ts";
import type { AgentProcess } from "../support/agent_process.ts";
import { startBrowser } from "./browser.ts";
import { look, open, PATIENCE_MS, shows } from "./look.ts";
import { freePort } from "../support/free_port.ts";

/** What a test has: a real agent that serves its page, a real browser, and a server in memory. */
interface Scene {
  agent: AgentProcess;
  browser: Browser;
  page: Page;
  served: ServedSandbox;
  /** Submits a job whose test runs these shell lines. */
  submit(lines: string): Promise<string>;
  folder: string;
  url: string;
}

async function withScene(test: (scene: Scene) => Promise<void>): Promise<void> {
  const browser = await startBrowser();
  if (browser === undefined) return;
  const folder = await Deno.makeTempDir({ prefix: "page-" });
  const served = serveSandbox();
  const agentId = `page-${crypto.randomUUID().slice(0, 8)}`;
  const port = freePort();
  await Deno.writeTextFile(
    `${folder}/a.conf`,
    `agent_id: ${agentId}\nserver_address: ${served.url}\njob_queues: [q]\n` +
      `polling_interval: 0.2\nmin_free_space: 0\nexecution_basedir: ${folder}/run\n` +
      `logging_basedir: ${folder}/logs\nresults_basedir: ${folder}/results\n` +
      `setup_command: echo setting up\ntest_command: sh ${folder}/test.sh\n` +
      `cleanup_command: echo cleaning up\n`,
  );
  const agent = startProgram([
    ...["-c", `${folder}/a.conf`, "--metrics-port", String(port)],
    ...["--token-file", `${folder}/none`],
  ]);
  try {
    const url = `http://127.0.0.1:${port}/`;
    const limit = AbortSignal.timeout(PATIENCE_MS);
    while (!await fetch(url).then((answer) => answer.text().then(() => true), () => false)) {
      if (limit.aborted) throw new Error(agent.output());
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    const page = await open(browser, url);
    const submit = async (lines: string) => {
      await Deno.writeTextFile(`${folder}/test.sh`, lines);
      return served.sandbox.submit({ job_queue: "q", test_data: { test_cmds: "x" } });
    };
    await test({ agent, browser, page, served, submit, folder, url });
  } finally {
    await browser.close();
    await agent[Symbol.asyncDispose]();
    await served.close();
    await Deno.remove(`/tmp/testflinger-agent-${agentId}.lock`).catch(() => {});
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("the page follows a real job: the timeline moves and the live log grows", () =>
  withScene(async (scene) => {
    const { agent, browser, page, served, submit, folder, url } = scene;
    await shows(page, '[data-part="state"]', "waiting");
    await shows(page, '[data-part="job"]', "No job is running.");
    await shows(page, "#live", /^Live$/);

    const jobId = await submit(
      `echo first line; until [ -e ${folder}/go ]; do sleep 0.05; done; echo second line
       until [ -e ${folder}/end -o ! -e ${folder} ]; do sleep 0.05; done; exit 3`,
    );
    await shows(page, ".timeline li.good", "setup");
    await shows(page, ".timeline li.busy", "test");
    await shows(page, '.timeline li[aria-current="step"]', "running for");
    await shows(page, "#log", "first line");
    assertEquals((await page.locator("#log").textContent())?.includes("second line"), false);
    await look(browser, url, { name: "agent-running" });
    await Deno.writeTextFile(`${folder}/go`, "");
    await shows(page, "#log", "second line");
    assertEquals(await page.title(), `${served.sandbox.agent(agentOf(served))?.name}: test`);

    await Deno.writeTextFile(`${folder}/end`, "");
    await shows(page, '[data-part="recent"] td', "test failed after");
    assertStringIncludes(await page.locator('[data-part="recent"]').textContent() ?? "", jobId);

    served.sandbox.setAgent(agentOf(served), { state: "offline", comment: "new <b>card</b>" });
    await shows(page, '[data-part="state"]', "offline");
    await shows(page, '[data-part="state"]', "new <b>card</b>");
    served.sandbox.setAgent(agentOf(served), { state: "waiting", comment: "" });
    await shows(page, '[data-part="state"]', "waiting");

    await Deno.remove(`${folder}/end`);
    await submit(`echo unheard; until [ -e ${folder}/end -o ! -e ${folder} ]; do sleep 0.05; done`);
    const undo = served.sandbox.intercept((request) =>
      new URL(request.url).pathname.includes("/result/")
        ? new Response("busy", { status: 503 })
        : undefined
    );
    await shows(page, '[data-part="notices"]', "Not delivered yet:");
    undo();
    await Deno.writeTextFile(`${folder}/end`, "");
    await shows(page, '[data-part="recent"]', "passed");
    agent.kill("SIGKILL");
    await page.getByRole("alert").getByText("the agent's process does not answer").waitFor();
    assertMatch(await page.title(), /^No contact: /);
  }));

function agentOf({ sandbox }: ServedSandbox): string {
  const path = sandbox.requests.find(({ path }) => path.startsWith("/v1/agents/data/"))?.path ?? "";
  return path.split("/").at(-1) ?? "";
}

Deno.test("hostile output is shown as text, and the page stays responsive", () =>
  withScene(async ({ browser, page, submit, folder }) => {
    const complaints: string[] = [];
    page.on(
      "console",
      (message) => void (message.type() === "error" && complaints.push(message.text())),
    );
    page.on("pageerror", (error) => void complaints.push(String(error)));
    page.on("dialog", (dialog) => void (complaints.push(dialog.message()), dialog.dismiss()));
    await Deno.writeTextFile(
      `${folder}/hostile`,
      "<script>window.pwned = 1; alert(1)</script><img src=x onerror='window.pwned=2'>\n" +
        "</pre><h1 id=pwned>gone</h1>\x1b[2J\x1b]0;title\x07\u202egnp.exe\u2066 \0 \r over \b\n",
    );
    await submit(
      `head -c 10485760 /dev/zero | tr '\\0' x; echo; cat ${folder}/hostile
       until [ -e ${folder}/end -o ! -e ${folder} ]; do sleep 0.05; done`,
    );
    await shows(page, "#log", "<script>window.pwned = 1; alert(1)</script>");
    await shows(
      page,
      "#log",
      "</pre><h1 id=pwned>gone</h1>\u241b[2J\u241b]0;title\u2407\\u202egnp.exe",
    );
    const loaded = await browser.newPage();
    await loaded.goto(page.url());
    await shows(loaded, "#log", "onerror='window.pwned=2'");
    for (const one of [page, loaded]) {
      assertEquals(await one.evaluate("String(window.pwned)"), "undefined");
      assertEquals(await one.locator("#pwned").count(), 0);
      assertEquals(((await one.locator("#log").textContent()) ?? "").length <= 600_000, true);
      // Whoever cannot click or get a frame has a page that hangs.
      assert(await one.locator("#log > *").count() <= 5000);
      await one.locator("#log").click();
      await one.evaluate("new Promise((resolve) => requestAnimationFrame(resolve))");
      await one.keyboard.press("Tab");
      assertMatch(String(await one.evaluate("document.activeElement.tagName")), /^[A-Z]+$/);
    }
    assertEquals(complaints, []);
    await Deno.writeTextFile(`${folder}/end`, "");
  }));

Deno.test("without a script the page says everything and is loaded again by itself", () =>
  withScene(async ({ browser, url, submit, folder }) => {
    await submit(`echo hello; until [ -e ${folder}/end -o ! -e ${folder} ]; do sleep 0.05; done`);
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    while (true) {
      await page.goto(url);
      if ((await page.locator("#log").textContent())?.includes("hello")) break;
    }
    assertStringIncludes(await page.locator(".timeline li.busy").textContent() ?? "", "test");
    assertEquals(await page.locator('meta[http-equiv="refresh"]').getAttribute("content"), "10");
    await Deno.writeTextFile(`${folder}/end`, "");
  }));
