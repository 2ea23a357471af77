/**
 * What takes hours to come about: a lab whose agents have been told by events what happened to them since this
 * morning. All that can be had within seconds is looked at with the built file: see host_page_checks.ts.
 */
import { assert, assertAlmostEquals, assertEquals, assertMatch } from "@std/assert";
import type { Browser } from "playwright-core";
import { startBrowser } from "./browser.ts";
import { type HostScene, serveLab } from "./host_scene.ts";
import { ALL_VIEWS, look, open, shows } from "./look.ts";

async function withScene(test: (scene: HostScene, browser: Browser) => Promise<void>) {
  const browser = await startBrowser();
  if (browser === undefined) return;
  try {
    await using scene = await serveLab();
    await test(scene, browser);
  } finally {
    await browser.close();
  }
}

Deno.test("of agents that have been at work for hours the page shows for how long, and what is left", () =>
  withScene(async ({ url }, browser) => {
    const page = await open(browser, url);
    assertEquals(await page.locator("#agents tr:visible th").count(), 30);
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
    // Times and amounts are never cut off: at the width of a laptop, and at the least that has columns.
    for (const width of [1280, 1232]) {
      await page.setViewportSize({ width, height: 900 });
      const cut = `(() => {
        for (const cell of document.querySelectorAll("#agents .left")) cell.textContent = "23 h 59 min";
        return [...document.querySelectorAll("#agents .n")]
          .filter((cell) => cell.scrollWidth > cell.clientWidth).map((cell) => cell.textContent);
      })()`;
      assertEquals(await page.evaluate(cut), [], `${width}`);
    }
    await look(browser, url, { name: "host", views: ALL_VIEWS });
  }));

Deno.test("an agent's page shows a job of many minutes to scale, its limits, its logs and its recent jobs", () =>
  withScene(async (scene, browser) => {
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
    const gaps = `[...document.querySelectorAll(".recent tbody tr")].map((row) => {
      const [took, ended] = [...row.querySelectorAll(".n")].map((cell) => {
        const range = new Range();
        range.selectNodeContents(cell);
        return range.getBoundingClientRect();
      });
      return ended.left - took.right;
    })`;
    assert(
      (await page.evaluate(gaps) as number[]).every((gap) => gap >= 12),
      "columns stand apart",
    );
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
  }));
