/** The page of a host: all its agents at a glance, those that need a person first. */
import { html } from "hono/html";
import type { AgentSummary, CurrentJob, HostStatus } from "../status_schema.ts";
import { briefly, count, requestWords, size } from "../words.ts";
import {
  ago,
  badge,
  brokenNotice,
  footLine,
  horizon,
  jobBar,
  type Kind,
  type Markup,
  NOTHING,
  pathOf,
  renderFrame,
  show,
  since,
  STATE_KIND,
} from "./frame.ts";

/** What a host with nothing to do is told to. */
const NO_AGENTS = "Agents will be listed here, one a row. None runs in this process: it has no " +
  "configuration that can be used. Add one to its folder, and it appears within 10 seconds.";

/** What comes after its job, in a word and whole. */
const LEAVES = {
  changed: ["restart", "starts again with its changed configuration"],
  removed: ["end", "ends: its configuration was removed"],
  drained: ["restart", "restarts with its process"],
} as const;

/** Less than this share of a limit is worth a look. */
const SHORT_SHARE = 0.1;

/**
 * Renders the page.
 *
 * @param query what the agents are searched for; `""` shows all.
 */
export function renderHostPage(status: HostStatus, query = ""): Markup {
  const now = Date.parse(status.now);
  const { agents, broken_configurations: broken } = status;
  const sorted = agents.toSorted((a, b) => rank(a) - rank(b));
  const found = sorted.filter((agent) => isFound(agent, query));
  const needing = agents.filter((agent) => groupOf(agent) === "attention").length +
    broken.filter(({ agent_id }) => agent_id === undefined).length;
  const busy = agents.filter(({ job }) => job !== undefined).length;
  return renderFrame({
    title: [
      ...(needing > 0 ? [`${needing} ${needing === 1 ? "needs" : "need"} a person`] : []),
      `${busy} busy`,
      count(agents.length, "agent"),
    ].join(" · "),
    icon: needing > 0 ? "bad" : busy > 0 ? "busy" : "good",
    page: "host",
    address: "/",
    now,
    version: status.version,
    head: html`
      <h1>Agents</h1>
      <p class="counts" data-part="counts" role="status">${renderCounts(agents, needing)}</p>
      <form class="search" role="search" method="get" action="/">
        <label for="query">Search</label>
        <input id="query" type="search" name="q" value="${show(query)}" autocomplete="off"
          placeholder="agent, queue, job, state">
      </form>
      <p class="version"><span class="long">testflinger-agent </span>${show(status.version)}</p>
    `,
    main: html`
      <div data-part="broken">${broken.map((one) => renderBroken(one, now))}</div>
      ${agents.length === 0 ? html`<p class="empty">${NO_AGENTS}</p>` : renderTable(found, now)}
      <p class="empty" id="none" ${found.length > 0 || agents.length === 0 ? " hidden" : ""}>
        No agent matches the search.</p>
    `,
    foot: footLine(status.version, status.started_at, now, "/v1/status"),
  });
}

function renderCounts(agents: readonly AgentSummary[], needing: number): Markup {
  const of = (...kinds: Group[]) => agents.filter((agent) => kinds.includes(groupOf(agent))).length;
  const one = (kind: Kind, amount: number, words: string) =>
    amount === 0 ? NOTHING : html`
      <span>${badge(kind, `${amount} ${words}`)}</span>
    `;
  return html`${one("bad", needing, needing === 1 ? "needs a person" : "need a person")}${
    one("busy", of("busy"), "busy")
  }${one("warn", of("away"), "not taking jobs")}${one("good", of("waiting"), "waiting")}`;
}

function renderBroken(
  { file, since, mistakes, agent_id: id }: HostStatus["broken_configurations"][number],
  now: number,
): Markup {
  const then = id === undefined
    ? "No agent runs for it."
    : html`<a href="${pathOf(id)}">${show(id)}</a> keeps running with the previous configuration.`;
  return brokenNotice(html`<code>${show(file)}</code>`, { since, mistakes, now, then });
}

function renderTable(agents: readonly AgentSummary[], now: number): Markup {
  const column = (name: string, kind = "") =>
    html`<th role="columnheader" scope="col" class="${kind}">${name}</th>`;
  return html`
    <table class="agents" role="table" aria-label="Agents">
      <thead role="rowgroup">
        <tr role="row">
          ${column("Agent")} ${column("State")} ${column("For", "n")} ${column("Job")}
          ${column("Time used")} ${column("Time left", "n")} ${column(
            "Silence left",
            "n",
          )}
          ${column("Queue")} ${column("To deliver", "n")} ${column("Free", "n")}
          ${column("Last contact", "n")} ${column("Version", "n")}
        </tr>
      </thead>
      <tbody role="rowgroup" id="agents">${agents.map((agent) => renderAgent(agent, now))}</tbody>
    </table>
  `;
}

function renderAgent(agent: AgentSummary, now: number): Markup {
  const { agent_id: id, state, since: at, job, attention } = agent;
  const kind = attention !== undefined ? "bad" : STATE_KIND.get(state) ?? "busy";
  return html`
    <tr role="row" data-key="${id}" data-find="${show(searchText(agent))}" class="is-${groupOf(
      agent,
    )}">
      <th role="rowheader" scope="row" title="${show(id)}"><a href="${pathOf(id)}">${show(
        id,
      )}</a></th>
      <td role="cell" class="state">${badge(kind, show(state))}</td>
      <td role="cell" class="n for">${at === undefined ? NOTHING : since(at, now)}</td>
      ${job === undefined
        ? html`
          <td role="cell" class="remark ${attention === undefined ? "quiet" : "bad"}"
            colspan="4" title="${show(attention ?? agent.comment)}">${brokenMark(
              agent,
            )}${renderRemark(agent, now)}</td>
        `
        : renderJob(job, { ...agent, now })}
      <td role="cell" class="queue" data-label="queue">${show(
        job?.queue ?? agent.queues.join(", "),
      )}</td>
      <td role="cell" class="n" data-label="to deliver">${renderBacklog(agent)}</td>
      <td role="cell" class="n" data-label="free">${agent.free_bytes === undefined
        ? NOTHING
        : size(agent.free_bytes)}</td>
      <td role="cell" class="n contact${agent.reachable
        ? ""
        : " bad"}" data-label="last contact">${ago(agent.last_contact_at, now)}</td>
      <td role="cell" class="n" data-label="version">${agent.version === undefined
        ? NOTHING
        : show(agent.version)}</td>
    </tr>
  `;
}

/** What comes after the job: in a word each, and whole. */
function whatComes(
  { leaves, requests }: Pick<AgentSummary, "leaves" | "requests">,
): [brief: string[], whole: string[]] {
  const [word, words] = leaves === undefined ? [] : LEAVES[leaves];
  return [
    [...(word === undefined ? [] : [word]), ...Object.keys(requests ?? {})],
    [...(words === undefined ? [] : [words]), ...requestWords(requests)],
  ];
}

/** That its file cannot be used by now; what is wrong there is said above all agents. */
function brokenMark(
  { broken_configuration: broken }: Pick<AgentSummary, "broken_configuration">,
): Markup | string {
  if (broken === undefined) return NOTHING;
  return html`
    <span class="warn" title="${broken.mistakes.map(show).join("; ")}">▲ configuration broken</span>
  `;
}

/** Without the address of the call that failed: in a line that is cut off, the cause must be before that. */
function causeFirst(remark: string): string {
  return remark.replace(/: (?:GET|POST|PUT|DELETE) https?:\/\/\S+:? /, ": ");
}

/** What there is to say of an agent without a job. */
function renderRemark(agent: AgentSummary, now: number): Markup | string {
  const { attention, comment, not_ready_because: because, last_job: last } = agent;
  const remark = attention ?? (comment || because);
  if (remark) return causeFirst(show(remark));
  if (last === undefined) return "no job yet";
  return html`last: ${show(last.name ?? last.job_id)}, ${show(last.result)}, ${
    ago(last.ended_at, now)
  }`;
}

function renderJob(
  job: CurrentJob,
  { now, attention, leaves, requests, broken_configuration }:
    & { now: number }
    & Pick<AgentSummary, "attention" | "leaves" | "requests" | "broken_configuration">,
): Markup {
  const { limits = {} } = job;
  const [brief, whole] = whatComes({ leaves, requests });
  return html`
    <td role="cell" class="job" title="${[show(job.job_id), ...whole].join(
      "; then ",
    )}">${brokenMark({ broken_configuration })}${brief.length === 0 ? NOTHING : html`
      <span class="warn">▲ then ${brief.join(", ")}</span>
    `}${attention === undefined
      ? show(job.name ?? job.job_id)
      : html`<span class="bad">${causeFirst(show(attention))}</span>`}</td>
    <td role="cell" class="time">${jobBar(job, horizon(job, now))}</td>
    <td role="cell" class="n left" data-label="left">${left(
      limits.total_left_seconds,
      limits.total_seconds,
    )}</td>
    <td role="cell" class="n left" data-label="silence left">${left(
      limits.silence_left_seconds,
      limits.silence_seconds,
    )}</td>
  `;
}

function left(seconds: number | undefined, all: number | undefined): Markup | string {
  if (seconds === undefined) return NOTHING;
  const isShort = all !== undefined && seconds < all * SHORT_SHARE;
  return isShort ? html`<span class="warn">▲ ${briefly(seconds)}</span>` : briefly(seconds);
}

function renderBacklog({ undelivered_bytes: bytes, undelivered_jobs: jobs }: AgentSummary) {
  if (bytes === 0 && jobs === 0) return html`<span class="nothing">–</span>`;
  return html`<span title="of ${jobs === 0 ? "the running job" : count(jobs, "job")}">${
    size(bytes)
  }</span>`;
}

/** What an agent is to a person who looks at the list. */
type Group = "attention" | "away" | "busy" | "other" | "waiting";

const ORDER: readonly Group[] = ["attention", "away", "busy", "other", "waiting"];

function groupOf(
  { attention, broken_configuration: broken, job, state }: AgentSummary,
): Group {
  if (attention !== undefined || broken !== undefined) return "attention";
  if (job !== undefined) return "busy";
  if (state === "waiting") return "waiting";
  return ["offline", "maintenance"].includes(state) ? "away" : "other";
}

function rank(agent: AgentSummary): number {
  return ORDER.indexOf(groupOf(agent));
}

function searchText(agent: AgentSummary): string {
  const { agent_id, state, job, queues, comment, attention = "" } = agent;
  return [agent_id, state, job?.job_id, job?.name, job?.queue, ...queues, comment, attention]
    .filter((part) => part !== undefined).join(" ").toLowerCase();
}

/** Each word is somewhere in what is shown of the agent. */
function isFound(agent: AgentSummary, query: string): boolean {
  const text = searchText(agent);
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}
