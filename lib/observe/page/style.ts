/** The pages' style: served by the agent itself, written by hand, no build step. */

/**
 * Type, spacing and colour are set once, at the top. Colours have a contrast of at least 4.5 to 1 on both
 * backgrounds in both schemes; the 16 of a log are the page's own, so that each of them can be read.
 */
export const PAGE_CSS = `
:root {
  color-scheme: light dark;
  --sans: system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  --mono: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  --size: 0.875rem; --small: 0.8125rem; --large: 1rem; --tight: 1.25; --loose: 1.45;
  --s1: 0.25rem; --s2: 0.5rem; --s3: 0.75rem; --s4: 1rem; --s6: 1.5rem; --round: 6px;
  --back: #ffffff; --raised: #f6f7f9; --text: #1a1d21; --quiet: #59616b; --line: #e1e5ea;
  --track: #e4e8ee; --accent: #2456d6; --good: #137333; --bad: #b3181f; --warn: #875000;
  --goodbar: #4ea06a; --busybar: #3f6fe8; --badbar: #d1434a; --warnbar: #c98a1b; --hit: #fff6d6; --found: #ffd24d;
  --a0: #24292f; --a1: #b3181f; --a2: #116329; --a3: #7a5200; --a4: #0a55b8; --a5: #7d2ec2;
  --a6: #0c626e; --a7: #57606a; --a8: #59616b; --a9: #b81d26; --a10: #176a30; --a11: #7d5500;
  --a12: #125cc4; --a13: #8534cb; --a14: #0e6673; --a15: #1a1d21;
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0f1115; --raised: #171a20; --text: #e6e9ee; --quiet: #9da5b0; --line: #2a2f38;
    --track: #262b34; --accent: #82b1ff; --good: #6bd287; --bad: #ff9191; --warn: #edbb5a;
    --goodbar: #3f9a5b; --busybar: #5b8def; --badbar: #e0565c; --warnbar: #d39a33; --hit: #2e2600; --found: #6b5600;
    --a0: #9098a3; --a1: #ff8a8a; --a2: #6fd68a; --a3: #e6b450; --a4: #79b8ff; --a5: #d2a8ff;
    --a6: #63d3e0; --a7: #c9d1d9; --a8: #9aa3ad; --a9: #ffa3a3; --a10: #8ee6a4; --a11: #f0cb70;
    --a12: #9bcbff; --a13: #dfc2ff; --a14: #8be4ee; --a15: #ffffff;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; background: var(--back); color: var(--text); font: var(--size)/var(--loose) var(--sans);
  font-variant-numeric: tabular-nums; overflow-wrap: anywhere;
}
h1 { font-size: var(--large); margin: 0; } h2 { font-size: var(--large); margin: 0 0 var(--s2); }
h3 { font-size: var(--size); margin: 0; }
p { margin: 0; } code, pre { font-family: var(--mono); font-size: var(--small); }
a { color: var(--accent); text-underline-offset: 2px; }
.quiet, .nothing { color: var(--quiet); } .good { color: var(--good); } .bad { color: var(--bad); }
.warn { color: var(--warn); } .busy { color: var(--accent); }
.skip { position: absolute; left: -100rem; } .skip:focus { position: static; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 1px; }
main:focus { outline: none; }

header {
  position: sticky; top: 0; z-index: 1; display: flex; flex-wrap: wrap; align-items: center;
  gap: var(--s1) var(--s4); padding: var(--s2) var(--s4); background: var(--back);
  border-bottom: 1px solid var(--line);
}
header nav::after { content: "/"; color: var(--quiet); margin-left: var(--s4); }
header .version { margin-left: auto; color: var(--quiet); font-size: var(--small); }
.counts { display: flex; flex-wrap: wrap; gap: 0 var(--s4); }
.search { display: flex; align-items: center; gap: var(--s2); }
.search label { color: var(--quiet); }
input[type="search"], input[type="text"], input[type="password"], button {
  font: inherit; color: inherit; background: var(--back); border: 1px solid var(--quiet);
  border-radius: var(--round); padding: 1px var(--s2);
}
.search input { width: 16rem; max-width: 60vw; }
button { cursor: pointer; }
main { padding: var(--s2) var(--s4) var(--s4); }
footer { padding: var(--s2) var(--s4) var(--s4); color: var(--quiet); font-size: var(--small); }
section { margin-top: var(--s6); }
.top section { margin-top: var(--s2); }
.badge { white-space: nowrap; } .symbol { display: inline-block; width: 1.25em; text-align: left; }
.timeline .badge, .recent .badge { white-space: normal; }
.notice {
  border-left: 4px solid; background: var(--raised); padding: var(--s2) var(--s3);
  margin: var(--s2) 0;
}
.notice p { color: var(--text); }
.empty { color: var(--quiet); max-width: 44rem; padding: var(--s2) 0; }

#lost {
  position: sticky; top: 0; z-index: 2; padding: var(--s3) var(--s4); background: var(--bad);
  color: var(--back); font-weight: 600;
}
.lost { box-shadow: inset 0 0 0 4px var(--bad); }
.lost header, .lost main { filter: grayscale(1); }

.bar { display: block; width: 100%; height: 10px; background: var(--track); border-radius: 3px; }
.bar .good { fill: var(--goodbar); } .bar .bad { fill: var(--badbar); }
.bar .busy { fill: var(--busybar); } .bar .warn { fill: var(--warnbar); }
.bar .quiet { fill: var(--quiet); }

table { border-collapse: collapse; width: 100%; font-size: var(--small); line-height: var(--tight); }
th, td { text-align: left; padding: 4px var(--s2) 3px 0; border-bottom: 1px solid var(--line); }
thead th { color: var(--quiet); font-weight: 400; white-space: nowrap; }
tbody th { font-weight: 600; }
.n { text-align: right; white-space: nowrap; }
tbody tr:hover { background: var(--raised); }
tbody th a { color: inherit; text-decoration-color: var(--quiet); }

dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px var(--s4); margin: 0; }
dt { color: var(--quiet); } dd { margin: 0; min-width: 0; }
.limits { margin-top: var(--s3); grid-template-columns: max-content minmax(0, 1fr); align-items: center; }
.limits dd { display: grid; grid-template-columns: minmax(4rem, 16rem) auto 1fr; gap: var(--s3); align-items: center; }
.top { display: grid; grid-template-columns: minmax(0, 5fr) minmax(0, 3fr); gap: 0 var(--s6); }
.jobline { display: flex; flex-wrap: wrap; gap: 0 var(--s3); margin-bottom: var(--s2); }
.timeline { list-style: none; margin: 0; padding: 0; font-size: var(--small); }
.timeline li {
  display: grid; grid-template-columns: 8rem minmax(6rem, 1fr) minmax(0, 22rem);
  gap: 0 var(--s3); align-items: center; padding: 2px 0;
}
.timeline strong { color: var(--text); font-weight: 600; } .timeline .quiet strong { font-weight: 400; color: var(--quiet); }
.timeline .quiet .bar { background: none; border-bottom: 1px dotted var(--quiet); border-radius: 0; height: 6px; }
.scale {
  display: flex; justify-content: space-between; color: var(--quiet); font-size: var(--small);
  margin: 0 calc(22rem + var(--s3)) 0 calc(8rem + var(--s3));
}
.now { display: flex; flex-wrap: wrap; gap: 0 var(--s3); }

.act { display: flex; flex-wrap: wrap; gap: var(--s2) var(--s3); align-items: center; }
.act label { display: flex; gap: var(--s2); align-items: center; }
.tools { display: flex; flex-wrap: wrap; align-items: center; gap: var(--s1) var(--s4); margin-bottom: var(--s2); }
.tools h2 { margin: 0; }
.tools label { display: flex; align-items: center; gap: var(--s1); }
.tools #live { margin-left: auto; }
#jumps { display: flex; flex-wrap: wrap; gap: 0 var(--s2); }
.find { display: flex; align-items: center; gap: var(--s1); }
#hits { color: var(--quiet); min-width: 3.5rem; }
.script { display: none; } .js .script { display: flex; }
.logs.none .panes, .logs.none .find, .logs.none label, .logs.none .tools a { display: none !important; }
.panes { display: grid; gap: var(--s3); grid-template-columns: minmax(0, 1fr); }
.two .panes { grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); align-items: start; }
pre {
  position: relative; margin: 0; padding: var(--s2) 0; max-height: min(36rem, 70vh); overflow: auto;
  background: var(--raised); border: 1px solid var(--line); border-radius: var(--round);
  line-height: 1.4; white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: plaintext;
}
body:has(#wrap:not(:checked)) pre { white-space: pre; overflow-wrap: normal; }
body:has(#wrap:not(:checked)) .l { width: max-content; min-width: 100%; }
.l { padding: 0 var(--s3); } .l.hit { background: var(--hit); }
::highlight(found) { color: var(--text); background-color: var(--found); }
.l.here { outline: 2px solid var(--accent); outline-offset: -2px; }
.mark, .gap {
  padding: 0 var(--s3); margin: var(--s1) 0; border-bottom: 1px solid var(--line);
  color: var(--quiet); font-family: var(--sans); font-weight: 600;
}
.bold { font-weight: 700; } .dim { color: var(--quiet); } .italic { font-style: italic; }
.underline { text-decoration: underline; } .strike { text-decoration: line-through; }
${
  Array.from({ length: 16 }, (_, n) =>
    `.fg${n} { color: var(--a${n}); } .bg${n} { color: var(--raised); background: var(--a${n}); }`)
    .join("\n")
}
.bgt { color: var(--raised); background: var(--text); }
details { margin-top: var(--s2); } details details { margin-top: var(--s3); }
summary { cursor: pointer; } details dl { margin-top: var(--s2); font-size: var(--small); }

@media (min-width: 77rem) {
  .agents { table-layout: fixed; }
  .agents td, .agents th { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
  .agents td:nth-child(4), .agents th:nth-child(4), .agents .queue, .agents th:nth-child(8) {
    padding-left: var(--s3);
  }
  .agents th:nth-child(1) { width: 12.5%; }
  .agents th:nth-child(2) { width: 7.5%; }
  .agents th:nth-child(3) { width: 7%; }
  .agents th:nth-child(4) { width: 14.5%; }
  .agents th:nth-child(5) { width: 8.5%; }
  .agents th:nth-child(6) { width: 8%; }
  .agents th:nth-child(7) { width: 8%; }
  .agents th:nth-child(8) { width: 7.5%; }
  .agents th:nth-child(9) { width: 6.5%; }
  .agents th:nth-child(10) { width: 6.5%; }
  .agents th:nth-child(11) { width: 8%; }
  .agents th:nth-child(12) { width: 5.5%; }
  .recent { table-layout: fixed; } .recent .n + .n { padding-left: var(--s4); }
  .recent .n + td:not(.n), .recent .n + th:not(.n) { padding-left: var(--s4); } .recent th:nth-child(1) { width: 26%; }
  .recent th:nth-child(2) { width: 28%; } .recent th:nth-child(4) { width: 5.5rem; }
  .recent th:nth-child(5) { width: 8rem; } .recent th:nth-child(6) { width: 12%; }
}
@media (max-width: 76.99rem) {
  header { position: static; }
  .top, .two .panes { grid-template-columns: minmax(0, 1fr); }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tbody { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); gap: 0 var(--s6); }
  tbody tr {
    display: flex; flex-wrap: wrap; gap: 2px var(--s3); align-content: start;
    padding: var(--s2) 0; border-bottom: 1px solid var(--line);
  }
  th, td { border: 0; padding: 0; }
  tbody th { flex: 1 1 40%; } .state, .for { flex: 0 0 auto; }
  .job, .time, .remark, .result { flex: 1 1 100%; }
  td[data-label] { color: var(--quiet); } td[data-label]:empty, td:has(> .nothing) { display: none; }
  td[data-label]::before { content: attr(data-label) " "; color: var(--quiet); }
}
@media (max-width: 40rem) {
  .long { display: none; } .tools #live { margin-left: 0; }
  details dl { grid-template-columns: minmax(0, 1fr); } details dd { margin-bottom: var(--s1); }
  .limits dd { grid-template-columns: minmax(0, 1fr); gap: 0; }
  .timeline li { grid-template-columns: max-content minmax(0, 1fr); padding: var(--s1) 0; }
  .timeline li > span { text-align: right; }
  .timeline .bar { grid-row: 2; grid-column: 1 / 3; } .scale { margin: 0; }
  .search { flex: 1 1 100%; } .search input { flex: 1; max-width: none; }
  header .version { order: 1; } .search { order: 2; } .counts { flex-basis: 100%; order: 3; }
}
@media (prefers-reduced-motion: no-preference) { .jumped { scroll-behavior: smooth; } }
`;

/** The icon in a browser's tab: a shape for each kind besides the colour. */
export function iconOf(kind: string): string | undefined {
  const shape = SHAPES.get(kind);
  if (shape === undefined) return undefined;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">${shape}</svg>`;
}

const SHAPES = new Map([
  ["good", '<circle cx="8" cy="8" r="7" fill="#2e9b52"/>'],
  [
    "busy",
    '<circle cx="8" cy="8" r="6" fill="none" stroke="#3f6fe8" stroke-width="3"/><path d="M8 2a6 6 0 0 1 0 12z" fill="#3f6fe8"/>',
  ],
  ["warn", '<path d="M8 1 16 15H0z" fill="#c98a1b"/>'],
  [
    "bad",
    '<rect width="16" height="16" rx="3" fill="#c9252d"/><path d="M4 4l8 8M12 4l-8 8" stroke="#fff" stroke-width="2.5"/>',
  ],
  ["quiet", '<circle cx="8" cy="8" r="6" fill="none" stroke="#808890" stroke-width="2.5"/>'],
  [
    "lost",
    '<rect width="16" height="16" rx="3" fill="#808890"/><path d="M4 4l8 8M12 4l-8 8" stroke="#fff" stroke-width="2.5"/>',
  ],
]);
