import { assert, assertEquals, assertMatch } from "@std/assert";
import { join } from "node:path";
import type { Page } from "playwright-core";
import type { HostLab } from "../host/support/host_lab.ts";
import { agentUrlOf, submit, urlOf, withLab } from "./built_lab.ts";
import { ALL_VIEWS, holds, look, lookAt, open, shows } from "./look.ts";

const FIRST_FAILS = /the server turns the agent away: .*its token has expired/;

/** The names of the agents that are shown, in order. */
function names(page: Page): Promise<string[]> {
  return page.locator("#agents tr:visible th").allTextContents();
}

const serves = (lab: HostLab) =>
  lab.until(async () => (await lab.get("/")).status === 200, "it serves its page");

const row = (lab: HostLab, page: Page, name: string) =>
  page.locator(`#agents tr[data-key="${lab.id(name)}"]`);

/** A past job, as agents keep it on disk. */
function pastJob(name: string, { hoursAgo, status }: { hoursAgo: number; status: number }) {
  const ended = Date.now() - hoursAgo * 3_600_000;
  const iso = (at: number) => new Date(at).toISOString();
  const phase = (phase: string, from: number, seconds: number, status: number) => ({
    ...{ phase, state: "ended", started_at: iso(ended - from), seconds, status },
    ...{ event: status === 0 ? "normal_exit" : `${phase}_fail`, release: "24.04" },
  });
  return {
    ...{ job_id: crypto.randomUUID(), queue: "q", name, started_at: iso(ended - 1_440_000) },
    ...{ ended_at: iso(ended), seconds: 1440, recovery_failed: false, reason: "normal_exit" },
    phases: [phase("provision", 1_440_000, 540, 0), phase("test", 900_000, 900, status)],
  };
}

/** Thirty agents in every state that can be had within seconds. */
async function startThirty(lab: HostLab): Promise<void> {
  const kinds = [["rpi4", 12], ["cm3", 8], ["dell-xps", 10]] as const;
  const all = kinds.flatMap(([kind, count]) =>
    Array.from({ length: count }, (_, n) => `${kind}-${String(n + 1).padStart(2, "0")}`)
  );
  await Deno.writeTextFile(join(lab.folder, "obstacle"), "no folder");
  for (const [n, name] of all.entries()) {
    const results = join(lab.folder, name, "results", `agent-${lab.id(name)}`);
    await Deno.mkdir(results, { recursive: true, mode: 0o700 });
    const jobs = n % 3 === 1
      ? [pastJob("nightly-image", { hoursAgo: n, status: n === 16 ? 3 : 0 })]
      : [];
    await Deno.writeTextFile(
      join(results, "recent-jobs.json"),
      JSON.stringify({ version: 1, jobs }),
    );
    await lab.configure(name, {
      output_timeout: 1800,
      ...(name === "dell-xps-10" && { logging_basedir: join(lab.folder, "obstacle", "logs") }),
      ...(name === "dell-xps-02" && { server_address: "http://127.0.0.1:9" }),
    });
  }
  lab.sandbox.intercept((request) =>
    new URL(request.url).searchParams.get("queue") === "cm3-05"
      ? Response.json({ message: "its token has expired" }, { status: 401 })
      : undefined
  );
  const process = lab.start();
  await lab.waiting("rpi4-01", "rpi4-07", "cm3-02", "dell-xps-09");
  lab.sandbox.setAgent(lab.id("rpi4-07"), { state: "offline", comment: "new SD card" });
  lab.sandbox.setAgent(lab.id("cm3-02"), { state: "maintenance", comment: "moved to rack 4" });
  for (const name of ["rpi4-01", "rpi4-06", "rpi4-11", "cm3-04", "dell-xps-03", "dell-xps-06"]) {
    submit(lab, name, `kernel-sru-${name}`);
  }
  await Deno.writeTextFile(`/tmp/TESTFLINGER-DEVICE-OFFLINE-${lab.id("rpi4-11")}`, "new cable");
  const file = join(lab.configs, "rpi4-03.conf");
  const text = await Deno.readTextFile(file);
  await lab.writeFile(file, text.replace('"polling_interval"', '"poling_interval"'));
  process.kill("SIGHUP");
}

Deno.test("thirty agents of one process fit one screen, those that need a person first", () =>
  withLab(async (lab, browser) => {
    await startThirty(lab);
    const page = await open(browser, urlOf(lab));
    await shows(page, "#agents", "new SD card");
    await shows(page, "#agents", "moved to rack 4");
    await shows(page, "#agents", "then offline");
    await shows(page, "#agents", FIRST_FAILS);
    await shows(page, "#agents", "configuration broken");
    await row(lab, page, "dell-xps-06").locator(".bar rect").first().waitFor();
    await holds(page, "/^4 need a person · 6 busy · 30 agents$/.test(document.title)");
    assertEquals(await page.locator("#icon").getAttribute("href"), "/icon-bad.svg");
    assertEquals((await names(page)).length, 30);
    const needing = (await names(page)).slice(0, 4).toSorted();
    assertEquals(
      needing,
      ["cm3-05", "dell-xps-02", "dell-xps-10", "rpi4-03"].map((name) => lab.id(name)),
    );
    assertEquals(
      await page.evaluate(
        "document.querySelector('#agents tr:last-child').getBoundingClientRect().bottom < innerHeight",
      ),
      true,
    );
    // Which file, which line, since when, and what goes on meanwhile.
    const broken = await page.locator('[data-part="broken"]').textContent() ?? "";
    assertMatch(broken, /rpi4-03\.conf cannot be used as it is now, noticed \d+ s ago/);
    assertMatch(broken, /rpi4-03-\w+ keeps running with the previous configuration\./);
    assertMatch(broken, /rpi4-03\.conf:1:\d+: poling_interval: .*did you mean/);
    assertMatch(await row(lab, page, "rpi4-03").textContent() ?? "", /waiting/);
    // A line is cut off at its end: names are shown whole, and causes come first.
    assertEquals(
      await page.evaluate(
        "[...document.querySelectorAll('#agents th')].filter((th) => th.scrollWidth > th.clientWidth).length",
      ),
      0,
    );
    const remarkOf = (name: string) => row(lab, page, name).locator(".remark").textContent();
    assertMatch(await remarkOf("cm3-05") ?? "", /^the server turns the agent away: 401 /);
    assertMatch(await remarkOf("dell-xps-02") ?? "", /^the server is not reachable: connect /);
    const job = row(lab, page, "dell-xps-03");
    assertMatch(await job.textContent() ?? "", /kernel-sru-dell-xps-03/);
    assertMatch(
      await row(lab, page, "rpi4-02").textContent() ?? "",
      /nightly-image, passed, 1 h 0 min ago/,
    );
    assertMatch(
      await row(lab, page, "rpi4-11").locator(".job").getAttribute("title") ?? "",
      /then goes offline: new cable \(asked on this host\)/,
    );
    const states = await page.locator("#agents .state").allTextContents();
    const busy = states.findIndex((state) => state.includes("test"));
    assert(states.slice(busy).every((state) => !state.includes("offline")));
    await look(browser, urlOf(lab), { name: "host-built", views: ALL_VIEWS });

    // The search finds each word in what is shown of an agent.
    const search = page.getByRole("searchbox");
    await search.fill("XPS waiting");
    assert((await names(page)).every((name) => name.startsWith("dell-xps")));
    await search.fill("new sd card");
    assertEquals(await names(page), [lab.id("rpi4-07")]);
    await search.fill("nothing has this");
    await page.getByText("No agent matches the search.").waitFor();
    const context = await browser.newContext({ javaScriptEnabled: false });
    const plain = await context.newPage();
    await plain.goto(urlOf(lab));
    await plain.getByRole("searchbox").fill("new sd card");
    await plain.getByRole("searchbox").press("Enter");
    await plain.waitForURL(/q=/);
    assertEquals(await names(plain), [lab.id("rpi4-07")]);
    assertEquals(await plain.getByRole("searchbox").inputValue(), "new sd card");

    await look(browser, agentUrlOf(lab, "rpi4-03"), { name: "agent-broken-configuration" });
    await look(browser, agentUrlOf(lab, "dell-xps-10"), { name: "agent-down" });
    await look(browser, agentUrlOf(lab, "dell-xps-02"), { name: "agent-unreachable" });
    const away = await open(browser, agentUrlOf(lab, "dell-xps-02"));
    await shows(away, "main", "No job is running. None is taken until that is mended.");
    await look(browser, agentUrlOf(lab, "dell-xps-09"), { name: "agent-empty" });

    // When nobody answers any more the whole page says so.
    const lost = await browser.newContext({ bypassCSP: true });
    for (const address of [urlOf(lab), agentUrlOf(lab, "rpi4-01")]) {
      const page = await lost.newPage();
      await page.goto(address);
      await page.locator("#lost").waitFor({ state: "hidden" });
    }
    lab.process.kill("SIGKILL");
    for (const page of lost.pages()) {
      await page.getByRole("alert").getByText(/No contact.*was true at \d\d:\d\d:\d\d UTC/)
        .waitFor();
      assertMatch(await page.title(), /^No contact: /);
      assertMatch(await page.locator("#icon").getAttribute("href") ?? "", /^data:image/);
      assertEquals(await page.locator("body.lost").count(), 1);
      const isStill = `(() => {
        const now = Date.now;
        const words = () => [...document.querySelectorAll('[data-rel="for"]')].map((one) => one.textContent).join();
        const before = words();
        Date.now = () => now() + 3_600_000;
        tick();
        Date.now = now;
        return before !== "" && words() === before;
      })()`;
      assertEquals(await page.evaluate(isStill), true, "how long it has lasted is not known");
      await lookAt(page, page.url().includes("agents") ? "lost-agent" : "lost-host");
    }
  }));

Deno.test("what changes is shown without a reload, in its place, and the focus stays", () =>
  withLab(async (lab, browser) => {
    for (const name of ["a", "b", "c"]) await lab.configure(name);
    let isTurnedAway = false;
    lab.sandbox.intercept((request) =>
      isTurnedAway && new URL(request.url).searchParams.get("queue") === "c"
        ? Response.json({ message: "its token has expired" }, { status: 401 })
        : undefined
    );
    const process = lab.start();
    await lab.waiting("a", "b", "c");
    const page = await open(browser, urlOf(lab));
    await holds(page, "document.title === '0 busy · 3 agents'");
    assertEquals(await page.locator("#icon").getAttribute("href"), "/icon-good.svg");
    await page.evaluate("window.isSamePage = true");
    await page.getByRole("link", { name: lab.id("b"), exact: true }).focus();
    isTurnedAway = true;
    const jobId = submit(lab, "b", "smoke");
    await shows(page, "#agents tr:first-child", FIRST_FAILS);
    await shows(page, "#agents tr:nth-child(2)", "smoke");
    await Deno.writeTextFile(`/tmp/TESTFLINGER-DEVICE-OFFLINE-${lab.id("b")}`, "new card");
    await shows(page, "#agents tr:nth-child(2)", "then offline");
    assertMatch(
      await page.locator("#agents tr:nth-child(2) .job").getAttribute("title") ?? "",
      new RegExp(`${jobId}; then goes offline: new card \\(asked on this host\\)`),
    );
    assertEquals(await names(page), ["c", "b", "a"].map((name) => lab.id(name)));
    assertEquals(await page.title(), "1 needs a person · 1 busy · 3 agents");
    assertEquals(await page.locator("#icon").getAttribute("href"), "/icon-bad.svg");
    assertEquals(await page.evaluate("document.activeElement.textContent"), lab.id("b"));
    await lab.configure("d");
    process.kill("SIGHUP");
    await shows(page, "#agents", lab.id("d"));
    assertEquals(await page.evaluate("window.isSamePage"), true);
  }));

Deno.test("three hundred agents of one process are searched and scrolled through", () =>
  withLab(async (lab, browser) => {
    for (let n = 0; n < 300; n++) await lab.configure(`agent-${n}`, { polling_interval: 30 });
    lab.start();
    await serves(lab);
    const page = await open(browser, urlOf(lab));
    await holds(page, "document.querySelectorAll('#agents tr').length === 300");
    await page.keyboard.press("End");
    await page.locator("#agents tr").last().waitFor();
    assertEquals(await page.locator("#agents tr").last().isVisible(), true);
    await page.getByRole("searchbox").fill("agent-299");
    assertEquals(await names(page), [lab.id("agent-299")]);
  }));

Deno.test("a host without agents says what will be there, and which configuration is broken", () =>
  withLab(async (lab, browser) => {
    await Deno.writeTextFile(join(lab.configs, "a.conf"), "agent_id: a\nquues: [q]\n");
    lab.start();
    await serves(lab);
    const page = await open(browser, urlOf(lab));
    await page.getByText("Agents will be listed here").waitFor();
    await page.getByText(/a\.conf:2:1: quues: is not a known key/).waitFor();
    await page.getByText("No agent runs for it.").waitFor();
    assertEquals(await page.title(), "1 needs a person · 0 busy · 0 agents");
    await look(browser, urlOf(lab), { name: "host-empty" });
  }));

Deno.test("an operator acts from the page of an agent, also without JavaScript, and is told the result", () =>
  withLab(async (lab, browser) => {
    const tokenFile = join(lab.folder, "page-token");
    await Deno.writeTextFile(tokenFile, "a token of some length\n", { mode: 0o600 });
    await lab.configure("a", { page_actions: true, page_token_file: tokenFile });
    await lab.configure("b");
    lab.start();
    await lab.waiting("a", "b");
    for (const javaScriptEnabled of [true, false]) {
      const context = await browser.newContext({ javaScriptEnabled });
      const page = await context.newPage();
      await page.goto(agentUrlOf(lab, "a"));
      await page.getByRole("link", { name: "Act" }).click();
      await page.getByLabel("Token").fill("a token of some length");
      await page.getByLabel("Comment").fill("new card");
      await page.getByRole("button", { name: "Take offline" }).click();
      await page.getByText("The agent takes no more jobs").waitFor();
      await lab.until(() => `${lab.shown("a")}` === "offline,new card", "it is offline");
      await page.getByLabel("Token").fill("another token of some length");
      await page.getByRole("button", { name: "Set online" }).click();
      await page.getByText("the token is wrong").waitFor();
      assertEquals(lab.shown("a")[0], "offline");
      await page.getByLabel("Token").fill("a token of some length");
      await page.getByRole("button", { name: "Set online" }).click();
      await page.getByText("The agent takes jobs again.").waitFor();
      await lab.waiting("a");
    }
    const page = await open(browser, agentUrlOf(lab, "b"));
    assertEquals(await page.getByRole("link", { name: "Act" }).count(), 0);
    await look(browser, `${agentUrlOf(lab, "a")}/actions`, { name: "act" });
  }));

/** 100 KB ten times a second, until the test is over. */
const LOUD = `$| = 1; my $part = "\\x1b[32mok\\x1b[0m " . "x" x 90 . "\\n"; $part x= 1000; ` +
  "until (-e $ARGV[0]) { syswrite STDOUT, $part; select undef, undef, undef, 0.1 }";

Deno.test("thirty agents with 1 MB of log a second each leave the pages responsive", () =>
  withLab(async (lab, browser) => {
    const quiet = join(lab.folder, "quiet");
    const loud = Array.from({ length: 30 }, (_, n) => `loud-${n}`);
    for (const name of loud) {
      await lab.configure(name, { test_command: `perl -e '${LOUD}' ${quiet}` });
    }
    // A server that takes everything and keeps nothing.
    lab.sandbox.intercept((request) =>
      request.url.includes("/log/") ? new Response("OK") : undefined
    );
    lab.start();
    await lab.waiting(...loud);
    for (const name of loud) submit(lab, name, "loud");
    const host = await open(browser, urlOf(lab));
    await holds(host, "/30 busy/.test(document.title)");
    const agent = await open(browser, agentUrlOf(lab, "loud-0"));
    await shows(agent, "#log .gap", "left out here");
    for (let round = 0; round < 5; round++) {
      await host.getByRole("searchbox").fill(`loud-${round}`);
      assert((await names(host)).includes(lab.id(`loud-${round}`)));
      await agent.getByLabel("Wrap").click();
      await agent.evaluate("new Promise((resolve) => requestAnimationFrame(resolve))");
      assert(Number(await agent.locator("#log > *").count()) <= 5000);
    }
    await agent.getByLabel("Follow").uncheck();
    await agent.locator("#log").hover();
    await agent.mouse.wheel(0, -500);
    assertEquals(await agent.getByLabel("Follow").isChecked(), false);
    await Deno.writeTextFile(quiet, "");
  }));
