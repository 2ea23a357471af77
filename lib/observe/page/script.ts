/**
 * The pages' script: what is live, and nothing else. The parts of a page are rendered by the agent and
 * exchanged where they have changed. Output of jobs is added as text, never as markup, at most once a frame,
 * and cut at the front, so that a flood of it leaves the page responsive.
 */
export const PAGE_JS = String.raw`"use strict";
const REFRESH_MS = 2000;
const SOONEST_REFRESH_MS = 500;
const ANSWER_MS = 4000;
const LOST_AFTER_MS = 3000;
const HIDDEN_MS = 10000;
const MAX_LINES = 5000;
const MAX_CHARS = 512 * 1024;
const MAX_LINE_CHARS = 8192;
const NEAR_END_PX = 40;
const MAX_FOUND = 5000;

const body = document.body;
const byId = (id) => document.getElementById(id);
body.classList.add("js");
/** The host's clock, less ours. */
let skew = Number(body.dataset.now) - Date.now();

// ---- Times

function briefly(seconds) {
  const s = Math.floor(Math.max(0, seconds));
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor(s / 60) % 60 + " min";
  return Math.floor(s / 86400) + " d " + Math.floor(s / 3600) % 24 + " h";
}

function tick() {
  const now = Date.now() + skew;
  for (const time of document.querySelectorAll("time[data-rel]")) {
    // Without contact nobody knows how long what is shown has lasted.
    if (time.dataset.rel === "for" && body.classList.contains("lost")) continue;
    const words = briefly((now - Date.parse(time.dateTime)) / 1000);
    const next = time.dataset.rel === "ago" ? words + " ago" : words;
    if (time.textContent !== next) time.textContent = next;
  }
}

// ---- Parts of the page, fetched again

/** What each part and each row was last rendered as. */
const shown = new Map();

function exchange(key, part, next) {
  // What is only the time that passes is kept true by tick().
  const html = next.innerHTML.replace(/(<time[^>]*>)[^<]*/g, "$1");
  const before = shown.get(key);
  shown.set(key, html);
  if (before === html || isSelected(part)) return;
  part.replaceChildren(...document.adoptNode(next).childNodes);
}

function isSelected(part) {
  const selection = getSelection();
  return selection.type === "Range" && part.contains(selection.anchorNode);
}

function exchangeRows(fresh) {
  const rows = byId("agents");
  const next = fresh.getElementById("agents");
  if (!rows || !next) return;
  const old = new Map([...rows.children].map((row) => [row.dataset.key, row]));
  let before = rows.firstElementChild;
  for (const row of [...next.children]) {
    const key = row.dataset.key;
    const known = old.get(key);
    old.delete(key);
    if (known) {
      exchange("row " + key, known, row);
      known.className = row.className;
      known.dataset.find = row.dataset.find;
    }
    const placed = known ?? document.adoptNode(row);
    if (placed !== before) rows.insertBefore(placed, before);
    else before = before.nextElementSibling;
  }
  for (const row of old.values()) { row.remove(); shown.delete("row " + row.dataset.key); }
}

let refreshing = false;
let again = false;
let last = 0;
let lastGood = Date.now();
let failingSince;

async function refresh() {
  if (refreshing) { again = true; return; }
  refreshing = true;
  try {
    do {
      again = false;
      const pause = last + SOONEST_REFRESH_MS - performance.now();
      if (pause > 0) await new Promise((resolve) => setTimeout(resolve, pause));
      last = performance.now();
      const answer = await fetch(body.dataset.address, {
        headers: { accept: "text/html" },
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      const text = await answer.text();
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(text, "text/html");
      if (fresh.body.dataset.page !== body.dataset.page) return location.reload();
      skew = Number(fresh.body.dataset.now) - Date.now();
      contact();
      if (document.title !== fresh.title) document.title = fresh.title;
      const icon = fresh.getElementById("icon").getAttribute("href");
      if (byId("icon").getAttribute("href") !== icon) byId("icon").setAttribute("href", icon);
      const focused = document.activeElement?.getAttribute("href");
      for (const part of document.querySelectorAll("[data-part]")) {
        const next = fresh.querySelector('[data-part="' + part.dataset.part + '"]');
        if (next) exchange(part.dataset.part, part, next);
      }
      if (Boolean(byId("agents")) !== Boolean(fresh.getElementById("agents")) &&
          body.dataset.page === "host") return location.reload();
      exchangeRows(fresh);
      // What takes the place of a link that had the focus has it.
      if (focused && document.activeElement === body) {
        document.querySelector('[href="' + CSS.escape(focused) + '"]')?.focus({ preventScroll: true });
      }
      search();
      tick();
    } while (again);
  } catch {
    noContact();
  } finally {
    refreshing = false;
  }
}

// ---- An agent that does not answer: all that is shown was true some time ago

function contact() {
  lastGood = Date.now();
  failingSince = undefined;
  if (byId("lost").hidden) return;
  byId("lost").hidden = true;
  body.classList.remove("lost");
}

function noContact() {
  failingSince ??= Date.now();
  if (Date.now() - failingSince < LOST_AFTER_MS) return void setTimeout(refresh, 500);
  const lost = byId("lost");
  const at = new Date(lastGood + skew).toISOString().slice(11, 19);
  const words = "No contact: the agent's process does not answer. What is shown was true at " + at +
    " UTC. It is retried automatically.";
  if (lost.textContent !== words) lost.textContent = words;
  lost.hidden = false;
  body.classList.add("lost");
  byId("icon").setAttribute("href", LOST_ICON);
  if (!document.title.startsWith("No contact")) document.title = "No contact: " + document.title;
}

// An agent that is gone cannot be asked for it.
const LOST_ICON = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E" +
  "%3Crect width='16' height='16' rx='3' fill='%23808890'/%3E" +
  "%3Cpath d='M4 4l8 8M12 4l-8 8' stroke='%23fff' stroke-width='2.5'/%3E%3C/svg%3E";

// ---- The search among agents

function search() {
  const query = byId("query");
  if (!query) return;
  const words = query.value.toLowerCase().split(/\s+/);
  let found = 0;
  for (const row of byId("agents")?.children ?? []) {
    const isFound = words.every((word) => row.dataset.find.includes(word));
    row.hidden = !isFound;
    if (isFound) found++;
  }
  byId("none").hidden = found > 0 || !byId("agents");
}

// ---- A log

function makeLog(pane, { follow, onLine, onMark, onTrim }) {
  let pending = [];
  let isDrawing = false;
  let line;
  let lineChars = 0;
  let chars = 0;
  let isFollowing = true;
  let anchor;
  let width = pane.clientWidth;
  let height = pane.clientHeight;

  for (const child of pane.children) chars += child.textContent.length;

  function setFollowing(on) {
    isFollowing = on;
    if (follow) follow.checked = on;
    if (on) toEnd();
  }
  function toEnd() { pane.scrollTop = pane.scrollHeight; }
  function isAtEnd() {
    return pane.scrollHeight - pane.scrollTop - pane.clientHeight < NEAR_END_PX;
  }
  /** The first line that is seen, and how far it is scrolled away. */
  function noteAnchor() {
    const lines = pane.children;
    let low = 0;
    let high = lines.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (lines[middle].offsetTop + lines[middle].offsetHeight <= pane.scrollTop) low = middle + 1;
      else high = middle;
    }
    const seen = lines[low];
    anchor = seen && {
      line: seen,
      share: (pane.scrollTop - seen.offsetTop) / Math.max(1, seen.offsetHeight),
    };
  }
  /** After lines were laid out again, for instance for another width. */
  function keepPlace() {
    width = pane.clientWidth;
    height = pane.clientHeight;
    if (isFollowing) return toEnd();
    if (anchor?.line.isConnected) {
      pane.scrollTop = anchor.line.offsetTop + anchor.share * anchor.line.offsetHeight;
    }
  }
  pane.addEventListener("scroll", () => {
    // Scrolled by a change of the layout, not by a person.
    if (pane.clientWidth !== width || pane.clientHeight !== height) return;
    const atEnd = isAtEnd();
    if (atEnd !== isFollowing && performance.now() > jumpedUntil) setFollowing(atEnd);
    noteAnchor();
  }, { passive: true });
  let jumpedUntil = 0;
  new ResizeObserver(keepPlace).observe(pane);

  function add(text, look) {
    if (!line || lineChars > MAX_LINE_CHARS) {
      line = document.createElement("div");
      line.className = "l";
      lineChars = 0;
      pane.append(line);
    }
    if (look) {
      const span = document.createElement("span");
      span.className = look;
      span.textContent = text;
      line.append(span);
    } else {
      line.append(text);
    }
    lineChars += text.length;
    chars += text.length;
    if (text.endsWith("\n")) { onLine?.(line); line = undefined; }
  }

  function addPiece(piece) {
    if (piece.phase || piece.gap) {
      const mark = document.createElement("div");
      mark.className = piece.phase ? "mark" : "gap";
      mark.textContent = (piece.phase ?? "Some output came too fast to be shown, and is left out here") + "\n";
      if (piece.phase) { mark.dataset.phase = piece.phase; mark.id = "log-" + piece.phase; }
      pane.append(mark);
      line = undefined;
      onMark?.();
      return;
    }
    const [text, look] = typeof piece === "string" ? [piece, ""] : piece;
    for (let from = 0; from < text.length;) {
      const end = text.indexOf("\n", from);
      const to = Math.min(end < 0 ? text.length : end + 1, from + MAX_LINE_CHARS);
      add(text.slice(from, to), look);
      from = to;
    }
  }

  function draw() {
    isDrawing = false;
    const messages = pending;
    pending = [];
    for (const { kind, pieces } of messages) {
      if (kind === "reset") {
        pane.replaceChildren();
        line = undefined;
        chars = 0;
        onTrim?.();
        onMark?.();
      } else if (kind === "gap") addPiece({ gap: true });
      for (const piece of pieces) addPiece(piece);
    }
    if (line) onLine?.(line);
    let isTrimmed = false;
    while (pane.childElementCount > MAX_LINES || chars > MAX_CHARS && pane.childElementCount > 1) {
      chars -= pane.firstElementChild.textContent.length;
      pane.firstElementChild.remove();
      isTrimmed = true;
    }
    if (isTrimmed) { onTrim?.(); onMark?.(); }
    if (isFollowing) toEnd();
    else if (isTrimmed) keepPlace();
  }

  follow?.addEventListener("change", () => setFollowing(follow.checked));
  toEnd();
  return {
    push(message) {
      // What was not drawn yet is not needed where something takes its place.
      if (message.kind !== "more") pending = pending.filter(({ kind }) => message.kind === "gap" && kind === "reset");
      pending.push(message);
      if (isDrawing) return;
      isDrawing = true;
      requestAnimationFrame(draw);
    },
    show(child) {
      setFollowing(false);
      jumpedUntil = performance.now() + 200;
      pane.scrollTop = child.offsetTop - pane.clientHeight / 4;
      noteAnchor();
    },
    keepPlace,
  };
}

// ---- The page of an agent

function agentPage() {
  const pane = byId("log");
  const section = byId("logs");
  let marks;

  const showMarks = () => {
    if (marks) return;
    marks = true;
    requestAnimationFrame(() => {
      marks = false;
      byId("jumps").replaceChildren(...[...pane.querySelectorAll(".mark")].map((mark) => {
        const link = document.createElement("a");
        link.href = "#" + mark.id;
        link.textContent = mark.dataset.phase.replaceAll("_", " ");
        return link;
      }));
    });
  };

  // The search: lines that have the words in them, and in browsers that can do it, the words themselves
  let hits = [];
  let at = -1;
  let wanted;
  const found = globalThis.Highlight && new Highlight();
  if (found) CSS.highlights.set("found", found);
  const foundIn = new Map();
  const sayHits = () => {
    byId("hits").textContent = !wanted ? "" : hits.length === 0 ? "none" : (at + 1) + " of " + hits.length;
  };
  const unmark = (line) => {
    for (const range of foundIn.get(line) ?? []) found.delete(range);
    foundIn.delete(line);
  };
  const markWords = (line) => {
    unmark(line);
    if (!found || found.size > MAX_FOUND) return;
    const parts = [];
    let end = 0;
    const walker = document.createTreeWalker(line, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
      parts.push({ node: walker.currentNode, from: end });
      end += walker.currentNode.length;
    }
    const ranges = [...line.textContent.matchAll(wanted)].map(({ 0: words, index }) => {
      const first = parts.findLast(({ from }) => from <= index);
      const last = parts.findLast(({ from }) => from < index + words.length);
      return new StaticRange({
        startContainer: first.node,
        startOffset: index - first.from,
        endContainer: last.node,
        endOffset: index + words.length - last.from,
      });
    });
    for (const range of ranges) found.add(range);
    foundIn.set(line, ranges);
  };
  const noteLine = (line) => {
    if (!wanted || line.textContent.search(wanted) < 0) return;
    markWords(line);
    if (line.classList.contains("hit")) return;
    line.classList.add("hit");
    hits.push(line);
    sayHits();
  };
  const go = (step) => {
    if (hits.length === 0) return;
    hits[at]?.classList.remove("here");
    at = (at + step + hits.length) % hits.length;
    hits[at].classList.add("here");
    log.show(hits[at]);
    sayHits();
  };
  const log = makeLog(pane, {
    follow: byId("follow"),
    onLine: noteLine,
    onMark: showMarks,
    onTrim() {
      const here = hits[at];
      for (const line of hits) if (!line.isConnected) unmark(line);
      hits = hits.filter((line) => line.isConnected);
      at = hits.indexOf(here);
      sayHits();
    },
  });
  byId("find").addEventListener("input", () => {
    for (const line of hits) line.classList.remove("hit", "here");
    found?.clear();
    foundIn.clear();
    hits = [];
    at = -1;
    const words = byId("find").value;
    wanted = words && new RegExp(words.replaceAll(/[^\w\s]/g, "\\$&"), "gi");
    for (const line of pane.children) noteLine(line);
    sayHits();
    // The last one is what is mostly looked for: it is where things went wrong.
    if (hits.length > 0) { at = 0; go(-1); }
  });
  byId("find").form.addEventListener("submit", (event) => { event.preventDefault(); go(1); });
  byId("previous").addEventListener("click", () => go(-1));
  byId("jumps").addEventListener("click", (event) => {
    const mark = event.target.closest("a") && byId(event.target.closest("a").hash.slice(1));
    if (!mark) return;
    event.preventDefault();
    log.show(mark);
    pane.focus({ preventScroll: true });
  });

  const serial = makeLog(byId("serial"), {});
  byId("wrap").addEventListener("change", () => { log.keepPlace(); serial.keepPlace(); });

  const live = byId("live");
  let events;
  let closing;
  const open = () => {
    clearTimeout(closing);
    if (events && events.readyState !== EventSource.CLOSED) return;
    events = new EventSource(body.dataset.events);
    events.addEventListener("open", () => { live.textContent = "Live"; contact(); });
    events.addEventListener("error", () => {
      live.textContent = "Not live: trying again";
      if (events.readyState === EventSource.CLOSED) setTimeout(open, REFRESH_MS);
      refresh();
    });
    events.addEventListener("log", (event) => {
      const message = JSON.parse(event.data);
      if (message.kind === "reset") section.classList.toggle("none", message.pieces.length === 0);
      else section.classList.remove("none");
      byId("log-empty").hidden = !section.classList.contains("none");
      log.push(message);
    });
    events.addEventListener("serial", (event) => {
      const message = JSON.parse(event.data);
      const has = message.kind !== "reset" || message.pieces.length > 0;
      byId("serial-pane").hidden = !has;
      section.classList.toggle("two", has);
      serial.push(message);
    });
    events.addEventListener("changed", refresh);
  };
  open();
  // A browser has few connections to a host: a tab that nobody looks at gives its own back.
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) return open();
    closing = setTimeout(() => { events.close(); live.textContent = "Not live"; }, HIDDEN_MS);
  });
}

// ---- All pages

if (body.dataset.page === "agent") agentPage();
byId("query")?.addEventListener("input", search);
byId("query")?.form.addEventListener("submit", (event) => event.preventDefault());
/** A search in the address has been done by the agent: the script needs all rows. */
if (location.search !== "" && body.dataset.page === "host") refresh();
setInterval(() => { if (!document.hidden) tick(); }, 1000);
if (body.dataset.page !== "form") {
  setInterval(() => { if (!document.hidden) refresh(); }, REFRESH_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}
tick();
`;
