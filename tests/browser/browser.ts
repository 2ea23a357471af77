/** A real browser for tests: Debian's chromium, driven by playwright-core. */
import type { Browser } from "playwright-core";

const CHROMIUM = "/usr/bin/chromium";

/** What keeps it from asking the network for anything of its own. */
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

/** Starts a browser. Undefined, with a line that says so, where there is none; in CI that fails. */
export async function startBrowser(): Promise<Browser | undefined> {
  try {
    await Deno.stat(CHROMIUM);
  } catch {
    if (Deno.env.get("CI") === "true") throw new Error(`There is no ${CHROMIUM}: install chromium`);
    console.warn(`skipped: there is no ${CHROMIUM}`);
    return undefined;
  }
  // One of its parts looks for Windows below /proc as soon as it is loaded, which only --allow-all
  // permits; with this variable of its own it does not.
  Deno.env.set("__IS_WSL_TEST__", "1");
  const { chromium } = await import("playwright-core");
  return await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
}
