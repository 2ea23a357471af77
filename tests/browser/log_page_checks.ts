import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import type { Browser, Page } from "playwright-core";
import type { Emit } from "../../lib/observe/events.ts";
import { startBrowser } from "./browser.ts";
import { type HostScene, Plan, running, serveHost, serveLab, waits } from "./host_scene.ts";
import { ALL_VIEWS, look, open, shows } from "./look.ts";

const text = (words: string) => new TextEncoder().encode(words);

/** An agent whose job prints what the test wants, and its page. */
async function withLog(
  test: (made: { page: Page; emit: Emit; scene: HostScene; browser: Browser }) => Promise<void>,
): Promise<void> {
  const browser = await startBrowser();
  if (browser === undefined) return;
  try {
    await using scene = await serveHost();
    const emit = await scene.add("rpi4-001");
    const plan = new Plan();
    plan.at(60, emit, ...waits());
    running(plan, emit, { id: "job-1", name: "smoke" });
    plan.run(scene);
    const page = await open(browser, `${scene.url}/agents/rpi4-001`);
    await shows(page, "#live", /^Live$/);
    await test({ page, emit, scene, browser });
  } finally {
    await browser.close();
  }
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

function numbered(count: number): Uint8Array {
  const lines = Array.from({ length: count }, (_, n) => `line ${n} ${"word ".repeat(n % 60)}\n`);
  return text(lines.join(""));
}

Deno.test("an agent's page shows its job to scale, its limits, its logs and its recent jobs", async () => {
  const browser = await startBrowser();
  if (browser === undefined) return;
  try {
    await using scene = await serveLab();
    const url = `${scene.url}/agents/rpi4-001`;
    const page = await open(browser, url);
    await shows(page, "#live", /^Live$/);
    // 9 of 12 minutes, and the 3 after them.
    const width = async (kind: string) =>
      Number(await page.locator(`.timeline .bar .${kind}`).getAttribute("width"));
    assertAlmostEquals(await width("good") / 1000, 9 / 12, 0.05);
    assertAlmostEquals(await width("busy") / 1000, 3 / 12, 0.05);
    await shows(page, ".limits", /5[67] min left of 1 h 0 min/);
    await shows(page, '[data-part="recent"]', "test failed after 21 min 0 s with status 3");
    assertEquals(await page.locator('[data-part="recent"] .bar').count(), 5);
    const ended = page.locator('[data-part="recent"] time').first();
    assertMatch(await ended.textContent() ?? "", /^1 h 1[67] min ago$/);
    assertMatch(await ended.getAttribute("title") ?? "", /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC$/);
    assert(await page.locator("#serial").isVisible());
    const [log, serial] = [
      await page.locator("#log").boundingBox(),
      await page.locator("#serial").boundingBox(),
    ];
    assert(log !== null && serial !== null && serial.x > log.x + log.width);
    assertEquals(await page.getByRole("link", { name: "on the server" }).count(), 1);
    const links = page.locator('[data-part="recent"]').getByRole("link");
    assertEquals(await links.count(), 5);
    assertMatch(
      await links.first().getAttribute("href") ?? "",
      /^https:\/\/testflinger\.example\.com\/jobs\/7c9e6679-/,
    );
    await page.getByText("settings that differ from the default").click();
    await shows(page, "details dd", "1800");
    assertEquals(await page.getByText("cancel_grace").isVisible(), false);
    await look(browser, url, { name: "agent-job", views: ALL_VIEWS });
    await look(browser, `${scene.url}/agents/rpi4-004`, { name: "agent-empty" });
    await look(browser, `${scene.url}/agents/dell-xps-010`, { name: "agent-down" });
    await look(browser, `${scene.url}/agents/dell-xps-002`, { name: "agent-unreachable" });
  } finally {
    await browser.close();
  }
});

Deno.test("colours are shown as such, and come as they are printed", () =>
  withLog(async ({ page, emit }) => {
    await shows(page, "#log .fg1.bold", "FAIL");
    emit({ type: "output", job: "j", bytes: text("\x1b[3") });
    emit({ type: "output", job: "j", bytes: text("5mpurple\x1b[0m plain\n") });
    await shows(page, "#log .fg5", /^purple$/);
    const colours = await page.evaluate(
      '[".fg5", ".fg1", ".l"].map((one) => getComputedStyle(document.querySelector("#log " + one)).color)',
    ) as string[];
    assertEquals(new Set(colours).size, 3);
  }));

Deno.test("the log is followed until one scrolls up, and again from its end", () =>
  withLog(async ({ page, emit }) => {
    emit({ type: "output", job: "j", bytes: numbered(300) });
    await shows(page, "#log", "line 299");
    await frame(page);
    assertEquals(await isAtEnd(page), true);
    await page.locator("#log").hover();
    await page.mouse.wheel(0, -2000);
    await page.locator("#follow:not(:checked)").waitFor();
    const seen = await firstSeen(page);
    emit({ type: "output", job: "j", bytes: text("one more\n") });
    await shows(page, "#log", "one more");
    await frame(page);
    assertEquals(await firstSeen(page), seen);
    await page.getByLabel("Follow").check();
    await frame(page);
    assertEquals(await isAtEnd(page), true);
  }));

Deno.test("the log keeps its place when the window or the wrapping changes", () =>
  withLog(async ({ page, emit }) => {
    emit({ type: "output", job: "j", bytes: numbered(400) });
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
  withLog(async ({ page, emit }) => {
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
    emit({ type: "output", job: "j", bytes: text("throughput_1 again\n") });
    await shows(page, "#hits", "11 of 12");
    await find.fill("no such thing");
    await shows(page, "#hits", "none");
    await find.fill("");
    assertEquals(await page.locator("#log .hit").count(), 0);
  }));

Deno.test("the words that the log is searched for are highlighted, across colours and in what comes later", () =>
  withLog(async ({ page, emit }) => {
    const find = page.getByRole("searchbox", { name: "Search the log" });
    emit({ type: "output", job: "j", bytes: text("a.b? \x1b[31mA.\x1b[0mB? axb?\na.b") });
    await shows(page, "#log .l:last-child", "a.b");
    await find.fill("a.b?");
    assertEquals(await highlighted(page), ["a.b?", "A.B?"]);
    const colours = await page.evaluate(`["", "::highlight(found)"].map((part) =>
      getComputedStyle(document.querySelector("#log .hit"), part).backgroundColor)`) as string[];
    assertEquals(new Set(colours).size, 2);
    emit({ type: "output", job: "j", bytes: text("? a.b? again\n") });
    await shows(page, "#hits", "1 of 2");
    assertEquals(await highlighted(page), ["a.b?", "A.B?", "a.b?", "a.b?"]);
    // What is cut off at the front is not kept for that.
    emit({ type: "output", job: "j", bytes: text("\n".repeat(6000)) });
    await shows(page, "#hits", "none");
    assertEquals(await highlighted(page), []);
    await find.fill("FAIL");
    await find.fill("");
    assertEquals(await highlighted(page), []);
  }));

Deno.test("one jumps to where a phase begins, by keyboard too", () =>
  withLog(async ({ page, emit }) => {
    emit({ type: "output", job: "j", bytes: numbered(300) });
    emit({ type: "phase_began", job: "j", phase: "cleanup", limits: {} });
    emit({ type: "output", job: "j", bytes: numbered(100) });
    const jumps = page.getByRole("navigation", { name: "Jump to a phase" });
    await jumps.getByRole("link", { name: "cleanup" }).waitFor();
    assertEquals(await jumps.getByRole("link").allTextContents(), ["provision", "test", "cleanup"]);
    for (const phase of ["test", "cleanup", "provision"]) {
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
  withLog(async ({ page, emit }) => {
    assertEquals(await page.locator("#serial").isVisible(), false);
    emit({ type: "serial", job: "j", bytes: text("login: \x1b[2J\r\n") });
    await shows(page, "#serial", "login: ␛[2J");
    for (const [name, words] of [["log", "FAIL"], ["serial", "login: ␛[2J"]] as const) {
      const link = page.locator(`a[href$="${name}.txt"]`);
      const [download] = await Promise.all([page.waitForEvent("download"), link.click()]);
      assertEquals(download.suggestedFilename(), `rpi4-001-job-1-${name}.txt`);
      assert((await Deno.readTextFile(await download.path())).includes(words));
    }
  }));

Deno.test("a new job begins a new log", () =>
  withLog(async ({ page, emit }) => {
    emit({ type: "job_ended", job: "job-1", reason: "normal_exit" });
    await shows(page, '[data-part="recent"]', "passed");
    await shows(page, "#log", "FAIL");
    emit({ type: "job_began", job: "job-2", queue: "q" });
    await page.getByText("What the next job prints will be shown here").waitFor();
    emit({ type: "output", job: "job-2", bytes: text("hello\n") });
    await shows(page, "#log", "hello");
    assertEquals(await page.locator("#log").textContent(), "hello\n");
    assertEquals(await page.getByText("What the next job prints").isVisible(), false);
  }));
