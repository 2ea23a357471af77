/** The status page's style and script: served by the agent itself, written by hand, no build step. */

/** Colours are chosen for a contrast of at least 4.5 to 1 in both schemes. */
export const PAGE_CSS = `
:root {
  color-scheme: light dark;
  --back: #ffffff; --raised: #f4f4f5; --text: #1b1b1f; --quiet: #55555f; --line: #c9c9d1;
  --good: #14682b; --bad: #a5161f; --warn: #7a4a00; --busy: #0b5a9d; --focus: #0b5a9d;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #17171b; --raised: #222229; --text: #ececf1; --quiet: #b3b3bf; --line: #4a4a55;
    --good: #74d68c; --bad: #ff9a9a; --warn: #f2c063; --busy: #86c5ff; --focus: #86c5ff;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: break-word;
}
h1 { font-size: 1.5rem; margin: 0; }
h2 { font-size: 1.15rem; margin: 1.75rem 0 0.5rem; }
p { margin: 0.25rem 0; }
.quiet { color: var(--quiet); }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; }
:focus-visible { outline: 3px solid var(--focus); outline-offset: 2px; }
.state { font-size: 1.25rem; font-weight: 600; margin-top: 0.75rem; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.busy { color: var(--busy); }
.notice { overflow-wrap: anywhere; border-left: 0.4rem solid; background: var(--raised); padding: 0.5rem 0.75rem; }
.timeline { list-style: none; margin: 0; padding: 0; display: flex; flex-wrap: wrap; gap: 0.5rem; }
.timeline li {
  flex: 1 1 9rem; overflow-wrap: anywhere; background: var(--raised); border-top: 0.3rem solid var(--line);
  padding: 0.4rem 0.6rem;
}
.timeline li.good { border-color: var(--good); } .timeline li.bad { border-color: var(--bad); }
.timeline li.busy { border-color: var(--busy); }
.timeline strong, .timeline span { display: block; font-size: 0.875rem; }
.timeline span { color: var(--text); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.75rem 0.3rem 0; }
th, td { border-bottom: 1px solid var(--line); }
pre {
  background: var(--raised); border: 1px solid var(--line); margin: 0; padding: 0.75rem;
  height: 28rem; overflow: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  font: 0.875rem/1.4 ui-monospace, monospace; unicode-bidi: plaintext; contain: strict;
}
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: 0.4rem; } }
`;

/**
 * Output is added as text, never as markup, at most once a frame, and cut at the front, so that ten
 * megabytes without a new line leave the page responsive. Everything else is rendered by the agent
 * and exchanged as a whole where it has changed.
 */
export const PAGE_JS = `"use strict";
const MAX_CHARS = 65536;
const REFRESH_MS = 5000;
const SOONEST_REFRESH_MS = 500;
const log = document.getElementById("log");
const live = document.getElementById("live");
let text = log.textContent;
let dirty = false;

function draw() {
  dirty = false;
  const follow = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.textContent = text;
  if (follow) log.scrollTop = log.scrollHeight;
}

function show(next) {
  text = next.length > MAX_CHARS ? next.slice(-MAX_CHARS) : next;
  if (dirty) return;
  dirty = true;
  requestAnimationFrame(draw);
}

let refreshing = false;
let again = false;
let last = 0;
async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    do {
      again = false;
      const pause = last + SOONEST_REFRESH_MS - performance.now();
      if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
      last = performance.now();
      const answer = await fetch(document.body.dataset.page, { headers: { accept: "text/html" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      document.title = fresh.title;
      for (const part of document.querySelectorAll("[data-part]")) {
        const next = fresh.querySelector('[data-part="' + part.dataset.part + '"]');
        if (next && next.innerHTML !== part.innerHTML) {
          part.replaceChildren(...document.adoptNode(next).childNodes);
        }
      }
    } while (again);
  } catch {
    // The agent is restarting or gone; the line below the log says so.
  } finally {
    refreshing = false;
  }
}

const events = new EventSource(document.body.dataset.events);
events.addEventListener("open", () => { live.textContent = "Live."; });
events.addEventListener("error", () => {
  live.textContent = events.readyState === EventSource.CLOSED
    ? "Not live: the agent does not answer. Reload the page."
    : "Not live: trying again.";
});
events.addEventListener("tail", (event) => show(JSON.parse(event.data)));
events.addEventListener("output", (event) => show(text + JSON.parse(event.data)));
events.addEventListener("changed", refresh);
setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
log.scrollTop = log.scrollHeight;
`;
