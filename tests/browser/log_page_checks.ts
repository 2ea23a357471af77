import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import type { Browser, Page } from "playwright-core";
import { AgentStatus } from "../../lib/observe/status_schema.ts";
import type { HostLab } from "../host/support/host_lab.ts";
import { agentUrlOf, Script, submit, urlOf, withLab } from "./built_lab.ts";
import { look, open, shows } from "./look.ts";
import { PROVISION_OUTPUT, TEST_OUTPUT } from "./outputs.ts";

/** An agent of the built file whose job prints what the test wants, and its page. */
interface Scene {
  lab: HostLab;
  browser: Browser;
  page: Page;
  script: Script;
  jobId: string;
}

/** Runs a test with a job that has been provisioned, and is in its test. */
function withLog(test: (scene: Scene) => Promise<void>): Promise<void> {
  return withLab(async (lab, browser) => {
    const script = new Script(lab, "rpi4");
    await script.prepare(PROVISION_OUTPUT);
    await script.print("test", TEST_OUTPUT);
    await lab.configure("rpi4", { ...script.commands, location: "rack 7" });
    lab.start();
    await lab.waiting("rpi4");
    const jobId = submit(lab, "rpi4", "smoke");
    const page = await open(browser, agentUrlOf(lab, "rpi4"));
    await shows(page, "#live", /^Live$/);
    await shows(page, "#log", "1 failed");
    await test({ lab, browser, page, script, jobId });
  });
}

/** The first line of the log that is seen. */
const firstSeen = (page: Page) =>
  page.evaluate(`(() => {
    const log = document.getElementById("log");
    return [...log.children].find((line) => line.offsetTop + line.offsetHeight > log.scrollTop + 1)
      .textContent.trim();
  })()`);

/** Whether the end of the log is seen. */
const isAtEnd = (page: Page) =>
  page.evaluate(`(() => {
    const log = document.getElementById("log");
    return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  })()`);

/** The highlighted words of the log, in its order. */
const highlighted = (page: Page) =>
  page.evaluate(`[...CSS.highlights.get("found")].map((found) => {
    const range = new Range();
    range.setStart(found.startContainer, found.startOffset);
    range.setEnd(found.endContainer, found.endOffset);
    return range.toString();
  })`);

/** A frame, so that what was asked of the page is done. */
const frame = (page: Page) =>
  page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))");

function numbered(count: number): string {
  const lines = Array.from({ length: count }, (_, n) => `line ${n} ${"word ".repeat(n % 60)}\n`);
  return lines.join("");
}

Deno.test("an agent's page shows its job to scale, its limits and its configuration", () =>
  withLog(async ({ lab, browser, page, script, jobId }) => {
    const url = agentUrlOf(lab, "rpi4");
    await script.print("serial", "[    0.173000] usb 1-1: new high-speed USB device\r\n");
    await shows(page, "#serial", "high-speed");
    const [log, serial] = [
      await page.locator("#log").boundingBox(),
      await page.locator("#serial").boundingBox(),
    ];
    assert(log !== null && serial !== null && serial.x > log.x + log.width);
    await shows(page, ".limits", "59 min left of 1 h 0 min");
    await shows(page, ".limits", "14 min left of 15 min");
    await shows(page, ".jobline", "smoke");
    await look(browser, url, { name: "agent-built" });
    await page.setViewportSize({ width: 390, height: 800 });
    const heights = `[...document.querySelectorAll(".timeline strong")].map((name) =>
      Math.round(name.getBoundingClientRect().height / parseFloat(getComputedStyle(name).lineHeight)))`;
    assertEquals(
      await page.evaluate(heights),
      Array(7).fill(1),
      "each phase's name is in one line",
    );
    await shows(page, ".timeline", "skipped: no firmware_update_command");
    const { height } = await page.locator("#serial").boundingBox() ?? { height: Infinity };
    assert(height < 80, "one line of a serial log has no box of a screen's height around it");
    await page.setViewportSize({ width: 1440, height: 900 });
    await page.getByText("settings that differ from the default").click();
    await shows(page, "details dd", "rack 7");
    assertEquals(await page.getByText("cancel_grace", { exact: true }).count(), 1);
    assertEquals(await page.getByText("max_spool", { exact: true }).isVisible(), false);

    await script.end("test");
    await shows(page, ".timeline li.busy", "cleanup");
    await script.print("cleanup", "switched off\n");
    await shows(page, "#log", "switched off");
    // The job as the agent has it as data, and what is drawn of it.
    const drawn = await page.evaluate(`(async () => {
      const answer = await fetch("${urlOf(lab)}/v1/agents/${lab.id("rpi4")}");
      return await answer.text();
    })()`) as string;
    const { job } = AgentStatus.parse(JSON.parse(drawn));
    const past = job?.phases.find(({ phase }) => phase === "test");
    const tested = page.locator(".timeline li", { hasText: /^test/ }).locator("rect");
    const begun = Date.parse(past?.started_at ?? "") - Date.parse(job?.started_at ?? "");
    const [x, width] = [await tested.getAttribute("x"), await tested.getAttribute("width")];
    assertAlmostEquals(
      Number(x) / Number(width),
      begun / 1000 / (past?.seconds ?? 0),
      0.1,
      "where it begins, and how long it is, are drawn to the same scale",
    );
    await script.end("cleanup");
    await shows(page, '[data-part="recent"]', "passed");
    const ended = page.locator('[data-part="recent"] time').first();
    assertMatch(await ended.textContent() ?? "", /^\d+ s ago$/);
    assertMatch(await ended.getAttribute("title") ?? "", /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
    const link = page.locator('[data-part="recent"]').getByRole("link");
    assertEquals(await link.getAttribute("href"), `${lab.served.url}/jobs/${jobId}`);
    await look(browser, url, { name: "agent-built-idle" });
  }));

Deno.test("colours are shown as such, and come as they are printed", () =>
  withLog(async ({ page, script }) => {
    await shows(page, "#log .fg1.bold", "FAIL");
    await script.print("test", "\x1b[3");
    await script.print("test", "5mpurple\x1b[0m plain\n");
    await shows(page, "#log .fg5", /^purple$/);
    const colours = await page.evaluate(
      '[".fg5", ".fg1", ".l"].map((one) => getComputedStyle(document.querySelector("#log " + one)).color)',
    ) as string[];
    assertEquals(new Set(colours).size, 3);
  }));

Deno.test("the log is followed until the reader scrolls up, and again from its end", () =>
  withLog(async ({ page, script }) => {
    await script.print("test", numbered(300));
    await shows(page, "#log", "line 299");
    await frame(page);
    assertEquals(await isAtEnd(page), true);
    await page.locator("#log").hover();
    await page.mouse.wheel(0, -2000);
    await page.locator("#follow:not(:checked)").waitFor();
    const seen = await firstSeen(page);
    await script.print("test", "one more\n");
    await shows(page, "#log", "one more");
    await frame(page);
    assertEquals(await firstSeen(page), seen);
    await page.getByLabel("Follow").check();
    await frame(page);
    assertEquals(await isAtEnd(page), true);
  }));

Deno.test("the log keeps its place when the window or the wrapping changes", () =>
  withLog(async ({ page, script }) => {
    await script.print("test", numbered(400));
    await shows(page, "#log", "line 399");
    await page.locator("#log").hover();
    await page.mouse.wheel(0, -4000);
    await page.locator("#follow:not(:checked)").waitFor();
    await frame(page);
    const seen = await firstSeen(page);
    for (const width of [390, 1440, 700]) {
      await page.setViewportSize({ width, height: 800 });
      await frame(page);
      assertEquals(await firstSeen(page), seen, `${width}`);
    }
    await page.getByLabel("Wrap").uncheck();
    await frame(page);
    assertEquals(await firstSeen(page), seen);
    assertEquals(
      await page.evaluate("getComputedStyle(document.getElementById('log')).whiteSpace"),
      "pre",
    );
    await page.getByLabel("Follow").check();
    await page.setViewportSize({ width: 390, height: 800 });
    await frame(page);
    assertEquals(await isAtEnd(page), true);
  }));

Deno.test("the log is searched, back and forth, also in what comes later", () =>
  withLog(async ({ page, script }) => {
    const find = page.getByRole("searchbox", { name: "Search the log" });
    await find.fill("THROUGHPUT_1");
    await shows(page, "#hits", "11 of 11");
    assertEquals(
      await page.locator("#log .here").textContent(),
      "ok    tests/network/throughput_19.sh 7.3 s\n",
    );
    await find.press("Enter");
    await shows(page, "#hits", "1 of 11");
    assertEquals(await page.locator("#log .here").isVisible(), true);
    await page.getByRole("button", { name: "Previous hit" }).click();
    await shows(page, "#hits", "11 of 11");
    await script.print("test", "throughput_1 again\n");
    await shows(page, "#hits", "11 of 12");
    await find.fill("no such thing");
    await shows(page, "#hits", "none");
    await find.fill("");
    assertEquals(await page.locator("#log .hit").count(), 0);
  }));

Deno.test("the words that the log is searched for are highlighted, across colours and in what comes later", () =>
  withLog(async ({ page, script }) => {
    const find = page.getByRole("searchbox", { name: "Search the log" });
    await script.print("test", "a.b? \x1b[31mA.\x1b[0mB? axb?\na.b");
    await shows(page, "#log .l:last-child", "a.b");
    await find.fill("a.b?");
    assertEquals(await highlighted(page), ["a.b?", "A.B?"]);
    const colours = await page.evaluate(`["", "::highlight(found)"].map((part) =>
      getComputedStyle(document.querySelector("#log .hit"), part).backgroundColor)`) as string[];
    assertEquals(new Set(colours).size, 2);
    await script.print("test", "? a.b? again\n");
    await shows(page, "#hits", "1 of 2");
    assertEquals(await highlighted(page), ["a.b?", "A.B?", "a.b?", "a.b?"]);
    // What is cut off at the front is not kept for that.
    await script.print("test", "\n".repeat(6000));
    await shows(page, "#hits", "none");
    assertEquals(await highlighted(page), []);
    await find.fill("FAIL");
    await find.fill("");
    assertEquals(await highlighted(page), []);
  }));

Deno.test("a link leads to where a phase begins in the log, also by keyboard", () =>
  withLog(async ({ page, script }) => {
    await script.print("test", numbered(300));
    await shows(page, "#log", "line 299");
    await script.end("test");
    await script.print("cleanup", numbered(100));
    await shows(page, "#log .l:last-child", "line 99");
    const jumps = page.getByRole("navigation", { name: "Jump to a phase" });
    await jumps.getByRole("link", { name: "cleanup" }).waitFor();
    assertEquals(await jumps.getByRole("link").allTextContents(), ["provision", "test", "cleanup"]);
    for (const phase of ["test", "cleanup", "provision"]) {
      const next = `document.getElementById("log-${phase}").nextElementSibling.textContent`;
      assertMatch(await page.evaluate(next) as string, /^\*+\n$/, "its banner follows");
      await jumps.getByRole("link", { name: phase }).focus();
      await page.keyboard.press("Enter");
      await frame(page);
      const isSeen = await page.evaluate(`(() => {
        const log = document.getElementById("log").getBoundingClientRect();
        const mark = document.getElementById("log-${phase}").getBoundingClientRect();
        return mark.top >= log.top && mark.bottom <= log.bottom;
      })()`);
      assertEquals(isSeen, true, phase);
      assertEquals(await page.getByLabel("Follow").isChecked(), false);
    }
  }));

Deno.test("the log and the serial log are downloaded as text, named after agent and job", () =>
  withLog(async ({ lab, page, script, jobId }) => {
    assertEquals(await page.locator("#serial").isVisible(), false);
    await script.print("serial", "login: \x1b[2J\r\n");
    await shows(page, "#serial", "login: ␛[2J");
    for (const [name, words] of [["log", "FAIL"], ["serial", "login: ␛[2J"]] as const) {
      const link = page.locator(`a[href$="${name}.txt"]`);
      const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
      assertEquals(download.suggestedFilename(), `${lab.id("rpi4")}-${jobId}-${name}.txt`);
      assert((await Deno.readTextFile(await download.path())).includes(words));
    }
  }));

Deno.test("the process after one that was killed shows the whole job: its phases, its times, its log", () =>
  withLog(async ({ lab, browser, page, script, jobId }) => {
    const status = async () => {
      const { text } = await lab.get(`/v1/agents/${lab.id("rpi4")}`);
      return AgentStatus.parse(JSON.parse(text));
    };
    await script.print("serial", "login: \n");
    await shows(page, "#serial", "login:");
    const before = await status();
    lab.process.kill("SIGKILL");
    await lab.process.exited;
    await script.print("test", "printed while no agent was there\n");
    lab.start();
    await lab.until(async () => (await status()).job?.phases.length === 4, "it is taken up");

    const after = await status();
    const began = Date.parse(before.job?.started_at ?? "");
    assertAlmostEquals(Date.parse(after.job?.started_at ?? ""), began, 1_000);
    assertEquals(
      after.job?.phases.map(({ phase, state }) => [phase, state]),
      before.job?.phases.map(({ phase, state }) => [phase, state]),
    );
    for (const [n, { started_at: now = "", seconds }] of after.job?.phases.entries() ?? []) {
      const { started_at: then = "", seconds: took } = before.job?.phases[n] ?? {};
      if (then === "") continue;
      assertAlmostEquals(Date.parse(now), Date.parse(then), 1_000);
      if (n === 1) assertEquals(seconds, took);
    }
    const { since: now = "" } = after.mode ?? {};
    assertAlmostEquals(Date.parse(now), Date.parse(before.mode?.since ?? ""), 1_000);

    const next = await open(browser, agentUrlOf(lab, "rpi4"));
    await shows(next, "#log", "printed while no agent was there");
    await shows(next, "#log", "100 % written");
    await shows(next, "#serial", "login:");
    await shows(next, ".timeline li.good .bar rect", "");
    await shows(next, ".timeline li.good", "passed after");
    const jumps = next.getByRole("navigation", { name: "Jump to a phase" }).getByRole("link");
    assertEquals(await jumps.allTextContents(), ["provision", "test"]);
    await script.end("test");
    await script.end("cleanup");
    await lab.complete(jobId);
    await shows(next, '[data-part="recent"]', "passed");
    const past = (await status()).recent_jobs[0];
    assertAlmostEquals(Date.parse(past?.started_at ?? ""), began, 1_000);
  }));

Deno.test("a new job begins a new log", () =>
  withLog(async ({ lab, page, script }) => {
    await script.end("test");
    await script.end("cleanup");
    await shows(page, '[data-part="recent"]', "passed");
    await shows(page, "#log", "FAIL");
    await lab.waiting("rpi4");
    await script.prepare();
    submit(lab, "rpi4", "second");
    await shows(page, ".jobline", "second");
    await page.getByText("What the next job prints will be shown here").waitFor({
      state: "hidden",
    });
    await script.print("test", "hello\n");
    await shows(page, "#log", "hello");
    assertEquals((await page.locator("#log").textContent() ?? "").includes("FAIL"), false);
  }));
