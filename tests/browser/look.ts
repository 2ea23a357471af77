/** Looks at a page as people do: in both colour schemes, on a desk and on a phone, and with axe. */
import { assertEquals } from "@std/assert";
import axe from "axe-core";
import { join } from "node:path";
import type { Browser, Page } from "playwright-core";

/** A page that has not changed within this time will not; milliseconds. */
export const PATIENCE_MS = 30_000;

const DESK = { width: 1440, height: 900 };
const PHONE = { width: 390, height: 844 };

/** Where pictures are written, each run over those of the one before. */
const folder = Deno.env.get("SCREENSHOTS") ??
  join(Deno.env.get("TMPDIR") ?? "/tmp", `testflinger-agent-screenshots-${Deno.uid()}`);
await Deno.mkdir(folder, { recursive: true });
console.log(`screenshots: ${folder}`);

/** The file of a picture. */
export const pictureOf = (name: string) => join(folder, `${name}.png`);

/** Waits until a part of the page has this text in it. */
export async function shows(page: Page, selector: string, text: string | RegExp): Promise<void> {
  await page.locator(selector, { hasText: text }).first().waitFor();
}

/** Waits until an expression holds in a page, whose policy forbids the browser's own way to wait for one. */
export async function holds(page: Page, expression: string): Promise<void> {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  while (await page.evaluate(expression) !== true) {
    if (limit.aborted) throw new Error(`Gave up waiting: ${expression}`);
    await page.waitForTimeout(50);
  }
}

/** A new page that has loaded. */
export async function open(browser: Browser, url: string): Promise<Page> {
  const page = await browser.newPage({ viewport: DESK });
  page.setDefaultTimeout(PATIENCE_MS);
  await page.goto(url);
  return page;
}

/** How somebody looks: on what, and in which colours. */
interface View {
  size: "desk" | "phone";
  colorScheme: "light" | "dark";
}

/** Enough where a page differs from another one in little. */
const TWO_VIEWS: readonly View[] = [
  { size: "desk", colorScheme: "light" },
  { size: "phone", colorScheme: "dark" },
];

/** Every way. */
export const ALL_VIEWS: readonly View[] = [
  ...TWO_VIEWS,
  { size: "desk", colorScheme: "dark" },
  { size: "phone", colorScheme: "light" },
];

/** A picture for each view; nothing to scroll sideways, no violation that axe finds. */
export async function look(
  browser: Browser,
  url: string,
  { name, views = TWO_VIEWS }: { name: string; views?: readonly View[] },
): Promise<void> {
  for (const { size, colorScheme } of views) {
    const viewport = size === "desk" ? DESK : PHONE;
    // The page's own policy keeps scripts out, axe's too; it is tested elsewhere.
    const context = await browser.newContext({ colorScheme, viewport, bypassCSP: true });
    const page = await context.newPage();
    page.setDefaultTimeout(PATIENCE_MS);
    await page.goto(url);
    if (await page.locator("#live").count() > 0) await shows(page, "#live", /^Live$/);
    await lookAt(page, `${name}-${size}-${colorScheme}`);
    await context.close();
  }
}

/** The same of a page that is open; its context has to pass over the page's policy. */
export async function lookAt(page: Page, name: string): Promise<void> {
  await page.screenshot({ path: pictureOf(name), fullPage: true });
  const isWide = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
  assertEquals(await page.evaluate(isWide), false, `${name} scrolls sideways`);
  await page.addScriptTag({ content: axe.source });
  const violations = await page.evaluate(
    "axe.run().then(({violations}) => violations.map(" +
      "({id, nodes}) => id + ': ' + nodes.slice(0, 3).map((node) => node.target + ' ' + node.html).join(', ')))",
  );
  assertEquals(violations, [], name);
}
