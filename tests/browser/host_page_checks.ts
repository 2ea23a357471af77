import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Browser, Page } from "playwright-core";
import type { Emit } from "../../lib/observe/events.ts";
import type { PageAction } from "../../lib/observe/page_actions.ts";
import { startBrowser } from "./browser.ts";
import { type HostScene, Plan, running, serveHost, serveLab, waits } from "./host_scene.ts";
import { ALL_VIEWS, look, lookAt, open, shows } from "./look.ts";

async function withHost(
  serve: () => Promise<HostScene>,
  test: (scene: HostScene, browser: Browser) => Promise<void>,
): Promise<void> {
  const browser = await startBrowser();
  if (browser === undefined) return;
  try {
    await using scene = await serve();
    await test(scene, browser);
  } finally {
    await browser.close();
  }
}

/** The names of the agents that are shown, in order. */
function names(page: Page): Promise<string[]> {
  return page.locator("#agents tr:visible th").allTextContents();
}

Deno.test("thirty agents fit one screen, those that need a person first", () =>
  withHost(serveLab, async ({ url }, browser) => {
    const page = await open(browser, url);
    assertEquals((await names(page)).length, 30);
    assertEquals(
      await page.evaluate(
        "document.querySelector('#agents tr:last-child').getBoundingClientRect().bottom < innerHeight",
      ),
      true,
    );
    const first = await page.locator("#agents tr").first().textContent() ?? "";
    assertMatch(first, /the server turns the agent away: its token has expired/);
    const states = await page.locator("#agents .state").allTextContents();
    const busy = states.findIndex((state) => state.includes("test"));
    assert(states.slice(0, busy).some((state) => state.includes("not running")));
    assert(states.slice(busy).every((state) => !state.includes("offline")));
    assertEquals(await page.title(), "3 need a person · 9 busy · 30 agents");
    assertEquals(await page.locator("#icon").getAttribute("href"), "/icon-bad.svg");
    const job = page.locator("#agents tr", { hasText: "dell-xps-001" });
    assertMatch(await job.textContent() ?? "", /kernel-sru-6\.8.*3[67] min.*[45] min.*xps/s);
    assertEquals(await job.locator(".bar rect").count(), 2);
    // Of each agent that runs.
    const versions = await page.locator('#agents [data-label="version"]').allTextContents();
    assertEquals(versions.filter((version) => version === "1.4.0").length, 29);
    await look(browser, url, { name: "host", views: ALL_VIEWS });
  }));

Deno.test("the search finds agents by every word in what is shown of them, without a script too", () =>
  withHost(serveLab, async ({ url }, browser) => {
    const page = await open(browser, url);
    await page.getByRole("searchbox").fill("XPS waiting");
    assert((await names(page)).every((name) => name.startsWith("dell-xps")));
    await page.getByRole("searchbox").fill("new sd card");
    assertEquals(await names(page), ["rpi4-007"]);
    await page.getByRole("searchbox").fill("nothing has this");
    await page.getByText("No agent matches the search.").waitFor();
    const context = await browser.newContext({ javaScriptEnabled: false });
    const plain = await context.newPage();
    await plain.goto(url);
    await plain.getByRole("searchbox").fill("new sd card");
    await plain.getByRole("searchbox").press("Enter");
    await plain.waitForURL(/q=/);
    assertEquals(await names(plain), ["rpi4-007"]);
    assertEquals(await plain.getByRole("searchbox").inputValue(), "new sd card");
  }));

Deno.test("what changes is shown without a reload, in its place, and the focus stays", () =>
  withHost(serveHost, async (scene, browser) => {
    const plan = new Plan();
    const emits: Emit[] = [];
    for (const name of ["a", "b", "c"]) {
      const emit = await scene.add(name);
      plan.at(10, emit, ...waits());
      emits.push(emit);
    }
    plan.run(scene);
    const page = await open(browser, scene.url);
    assertEquals(await page.title(), "0 busy · 3 agents");
    assertEquals(await page.locator("#icon").getAttribute("href"), "/icon-good.svg");
    await page.evaluate("window.isSamePage = true");
    await page.getByRole("link", { name: "b", exact: true }).focus();
    const [, b = () => {}, c = () => {}] = emits;
    c({ type: "access", problem: "its token has expired" });
    const next = new Plan();
    running(next, b, { id: "job-1", name: "smoke" });
    next.run(scene);
    await shows(page, "#agents tr:first-child", "its token has expired");
    await shows(page, "#agents tr:nth-child(2)", "smoke");
    b({ type: "requests", offline: { comment: "new card", by: "on this host" } });
    await shows(page, "#agents tr:nth-child(2)", "then offline");
    assertMatch(
      await page.locator("#agents tr:nth-child(2) .job").getAttribute("title") ?? "",
      /job-1; then goes offline: new card \(asked on this host\)/,
    );
    assertEquals(await names(page), ["c", "b", "a"]);
    assertEquals(await page.title(), "1 needs a person · 1 busy · 3 agents");
    assertEquals(await page.locator("#icon").getAttribute("href"), "/icon-bad.svg");
    assertEquals(await page.evaluate("document.activeElement.textContent"), "b");
    await scene.add("d", { trouble: "no folder" });
    await shows(page, "#agents", "no folder");
    assertEquals(await page.evaluate("window.isSamePage"), true);
  }));

Deno.test("three hundred agents are searched and scrolled through", () =>
  withHost(serveHost, async (scene, browser) => {
    const plan = new Plan();
    for (let n = 0; n < 300; n++) {
      const emit = await scene.add(`agent-${n}`);
      plan.at(60, emit, ...waits());
      if (n % 3 === 0) running(plan, emit, { id: `job-${n}`, minutes: 20 });
    }
    plan.run(scene);
    const page = await open(browser, scene.url);
    assertEquals(await page.locator("#agents tr").count(), 300);
    await page.keyboard.press("End");
    await page.locator("#agents tr").last().waitFor();
    assertEquals(await page.locator("#agents tr").last().isVisible(), true);
    await page.getByRole("searchbox").fill("agent-299");
    assertEquals(await names(page), ["agent-299"]);
  }));

Deno.test("a host without agents says what will be there, and which configuration is broken", () =>
  withHost(serveHost, async (scene, browser) => {
    scene.clock.before = 0;
    const since = new Date(scene.clock.now() - 120_000).toISOString();
    scene.broken.push({
      file: "/etc/a.conf",
      since,
      mistakes: ["/etc/a.conf:3:1: unknown key 'quues'"],
    });
    const page = await open(browser, scene.url);
    await page.getByText("Agents will be listed here").waitFor();
    await page.getByText("/etc/a.conf:3:1: unknown key 'quues'").waitFor();
    assertEquals(await page.title(), "1 needs a person · 0 busy · 0 agents");
    await look(browser, scene.url, { name: "host-empty" });
  }));

Deno.test("one acts from the page of an agent, without a script too, and is told what came of it", () =>
  withHost(serveHost, async (scene, browser) => {
    const tokenFile = await Deno.makeTempFile();
    await Deno.writeTextFile(tokenFile, "a token of some length\n");
    const asked: PageAction[] = [];
    const act = (action: PageAction) => {
      asked.push(action);
      return Promise.resolve("The agent takes no more jobs.");
    };
    const emit = await scene.add("a", { actions: { tokenFile, act } });
    await scene.add("b");
    const plan = new Plan();
    plan.at(1, emit, ...waits());
    plan.run(scene);
    for (const javaScriptEnabled of [true, false]) {
      const context = await browser.newContext({ javaScriptEnabled });
      const page = await context.newPage();
      await page.goto(`${scene.url}/agents/a`);
      await page.getByRole("link", { name: "Act" }).click();
      await page.getByLabel("Token").fill("a token of some length");
      await page.getByLabel("Comment").fill("new card");
      await page.getByRole("button", { name: "Take offline" }).click();
      await page.getByText("The agent takes no more jobs.").waitFor();
      assertEquals(asked.splice(0), [{ action: "offline", comment: "new card" }]);
      await page.getByLabel("Token").fill("another token of some length");
      await page.getByRole("button", { name: "Restart" }).click();
      await page.getByText("the token is wrong").waitFor();
      assertEquals(asked, []);
    }
    const page = await open(browser, `${scene.url}/agents/b`);
    assertEquals(await page.getByRole("link", { name: "Act" }).count(), 0);
    await look(browser, `${scene.url}/agents/a/actions`, { name: "act" });
    await Deno.remove(tokenFile);
  }));

Deno.test("when nobody answers any more the whole page says so", () =>
  withHost(serveLab, async (scene, browser) => {
    const context = await browser.newContext({ bypassCSP: true });
    for (const address of ["/", "/agents/rpi4-001"]) {
      const page = await context.newPage();
      await page.goto(scene.url + address);
      await page.locator("#lost").waitFor({ state: "hidden" });
    }
    await scene.close();
    for (const page of context.pages()) {
      await page.getByRole("alert").getByText(/No contact.*was true at \d\d:\d\d:\d\d UTC/)
        .waitFor();
      assertMatch(await page.title(), /^No contact: /);
      assertMatch(await page.locator("#icon").getAttribute("href") ?? "", /^data:image/);
      assertEquals(await page.locator("body.lost").count(), 1);
      await lookAt(page, `lost${new URL(page.url()).pathname.replaceAll("/", "-")}`);
    }
  }));

Deno.test("thirty agents with 1 MB of log a second each leave the pages responsive", () =>
  withHost(serveLab, async (scene, browser) => {
    const emits: Emit[] = [];
    const plan = new Plan();
    for (let n = 0; n < 30; n++) {
      const emit = await scene.add(`loud-${n}`);
      plan.at(20, emit, ...waits());
      running(plan, emit, { id: `job-${n}`, minutes: 19 });
      emits.push(emit);
    }
    plan.run(scene);
    const bytes = new TextEncoder().encode(
      `\x1b[32mok\x1b[0m ${"x".repeat(90)}\n`.repeat(1000),
    );
    // 100 KB each, ten times a second.
    const flood = setInterval(() => {
      for (const emit of emits) emit({ type: "output", job: "j", bytes });
    }, 100);
    try {
      const host = await open(browser, scene.url);
      const agent = await open(browser, `${scene.url}/agents/loud-0`);
      await shows(agent, "#log .gap", "left out here");
      for (let round = 0; round < 5; round++) {
        await host.getByRole("searchbox").fill(`loud-${round}`);
        assert((await names(host)).includes(`loud-${round}`));
        await agent.getByLabel("Wrap").click();
        await agent.evaluate("new Promise((resolve) => requestAnimationFrame(resolve))");
        assert(await agent.locator("#log > *").count() <= 5000);
      }
      await agent.getByLabel("Follow").uncheck();
      await agent.locator("#log").hover();
      await agent.mouse.wheel(0, -500);
      assertEquals(await agent.getByLabel("Follow").isChecked(), false);
    } finally {
      clearInterval(flood);
    }
  }));
