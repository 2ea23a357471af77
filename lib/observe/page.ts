/** The status page, rendered whole by the agent: it says everything without a script. */
import { html } from "hono/html";
import { PHASES } from "../phases.ts";
import type { Setting } from "./configuration_view.ts";
import { stateOf } from "./host_view.ts";
import { showText } from "./output_text.ts";
import { backlog, count, duration } from "./words.ts";
import { progressWords } from "../progress.ts";
import type { AgentStatus, CurrentJob, PastJob, PhaseStatus } from "./status_schema.ts";

/** What the page is made of. */
export interface PageContent {
  status: AgentStatus;
  configuration: Setting[];
  /** The end of the job's output, as it came. */
  output: string;
}

/** Markup in which every value has been escaped. */
export type Markup = ReturnType<typeof html>;

const NOTHING = "";

/** The agent's page. */
export function pathOf(agentId: string): string {
  return `/agents/${encodeURIComponent(agentId)}`;
}

function jsonOf(agentId: string): string {
  return `/v1/agents/${encodeURIComponent(agentId)}`;
}

function eventsOf(agentId: string): string {
  return `${jsonOf(agentId)}/events`;
}

/** Without a script the page is loaded again after this long. */
export const RELOAD_S = 10;

/** What the agent wants to be called, as a class of the style sheet. */
export const STATE_CLASS = new Map([
  ["waiting", "good"],
  ["offline", "bad"],
  ["maintenance", "warn"],
  ["restart", "warn"],
  ["stopping", "warn"],
]);

/** Renders the page. */
export function renderPage({ status, configuration, output }: PageContent): Markup {
  const state = stateOf(status);
  return html`
    <!DOCTYPE html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <title>${show(status.agent_id)}: ${show(state)}</title>
        <link rel="stylesheet" href="/page.css">
        <noscript><meta http-equiv="refresh" content="${RELOAD_S}"></noscript>
        <script src="/page.js" defer></script>
      </head>
      <body data-page="${pathOf(status.agent_id)}" data-events="${eventsOf(status.agent_id)}">
        <a class="skip" href="#log">Skip to the log</a>
        <header>
          <h1>${show(status.agent_id)}</h1>
          <div data-part="state" role="status">${renderState(status, state)}</div>
        </header>
        <main>
          <div data-part="notices">${renderNotices(status)}</div>
          <section aria-labelledby="job-heading">
            <h2 id="job-heading">Job</h2>
            <div data-part="job">${renderJob(status)}</div>
          </section>
          <section aria-labelledby="log-heading">
            <h2 id="log-heading">Log</h2>
            <pre id="log" role="log" aria-live="off" aria-labelledby="log-heading"
              tabindex="0">${showText(output)}</pre>
            <p class="quiet" id="live">Not live: the page was loaded at ${time(status.now)}.</p>
          </section>
          <section aria-labelledby="server-heading">
            <h2 id="server-heading">Server</h2>
            <div data-part="server">${renderServer(status)}</div>
          </section>
          <section aria-labelledby="recent-heading">
            <h2 id="recent-heading">Recent jobs</h2>
            <div class="scroll" role="region" aria-label="Table of recent jobs" tabindex="0">
              <div data-part="recent">${renderRecent(status.recent_jobs)}</div>
            </div>
          </section>
          <section aria-labelledby="configuration-heading">
            <h2 id="configuration-heading">Configuration</h2>
            <dl>${configuration.map(({ key, value }) =>
              html`
                <dt>${show(key)}</dt>
                <dd>${show(value)}</dd>
              `
            )}</dl>
          </section>
        </main>
        <footer>
          <p
            class="quiet">testflinger-agent ${show(status.version)}, running since ${time(
              status.started_at,
            )}. The same as JSON: <a href="${jsonOf(status.agent_id)}">${jsonOf(
              status.agent_id,
            )}</a>.
    <a href="/">All agents</a> of this process: <a href="/v1/status">/v1/status</a>.
    For Prometheus: <a href="/metrics">/metrics</a>.</p>
        </footer>
      </body>
    </html>
  `;
}

/** No duration in here: a screen reader speaks it whenever it changes. */
function renderState(status: AgentStatus, state: string): Markup {
  const { mode } = status;
  const kind = STATE_CLASS.get(state) ?? "busy";
  return html`<p class="state ${kind}">${show(state)}</p>${
    mode === undefined || mode.comment === "" ? NOTHING : html`<p>${show(mode.comment)}</p>`
  }${mode === undefined ? NOTHING : html`<p class="quiet">since ${time(mode.since)}</p>`}`;
}

function renderNotices(status: AgentStatus): Markup {
  const { server, undelivered, trouble } = status;
  return html`${
    trouble === undefined
      ? NOTHING
      : html`<p class="notice bad">The agent seems to hang: ${show(trouble)}.</p>`
  }${
    server.reachable !== false
      ? NOTHING
      : html`<p class="notice bad">The server cannot be reached; it is tried again by itself. ${
        show(server.last_failure ?? "")
      }</p>`
  }${
    server.turned_away === undefined ? NOTHING : html`
      <p
        class="notice bad">The server turns this agent away; an administrator must see to its token. ${show(
          server.turned_away,
        )}</p>
    `
  }${
    undelivered.bytes === 0 && undelivered.jobs === 0 ? NOTHING : html`
      <p
        class="notice warn">Not delivered yet: ${backlog(
          undelivered,
        )}. It is kept on disk and delivered by itself.</p>
    `
  }`;
}

function renderJob(status: AgentStatus): Markup {
  const { job } = status;
  if (job === undefined) {
    return html`<p>No job is running.${
      status.not_ready_because === undefined
        ? NOTHING
        : ` None is taken: ${show(status.not_ready_because)}.`
    }</p>${renderTransfers(status)}`;
  }
  const byPhase = new Map(job.phases.map((entry) => [entry.phase, entry]));
  return html`<dl>
<dt>Job</dt><dd>${show(job.job_id)}${job.name === undefined ? NOTHING : ` (${show(job.name)})`}</dd>
<dt>Queue</dt><dd>${show(job.queue)}</dd>
<dt>Began</dt><dd>${time(job.started_at)}</dd>
${
    job.recovery_failed
      ? html`
        <dt>Device</dt>
        <dd class="bad">could not be recovered</dd>
      `
      : NOTHING
  }
</dl>${renderTransfers(status)}
<h3>Phases</h3>
<ol class="timeline">${
    PHASES.map((phase) => renderPhase(phase, byPhase.get(phase), job.limits))
  }</ol>`;
}

/** What is on its way and no phase: without it a job would seem to stand still. */
function renderTransfers({ transfers = [] }: AgentStatus): Markup[] {
  return transfers.map(({ what, job_id, bytes, total_bytes: total, seconds }) =>
    html`
      <p>${show(progressWords({ what, total }, bytes, seconds * 1000))} (job ${show(job_id)})</p>
    `
  );
}

function renderPhase(
  name: string,
  entry: PhaseStatus | undefined,
  limits: CurrentJob["limits"],
): Markup {
  if (entry === undefined) {
    return html`<li class="quiet"><strong>${name}</strong><span>to come</span></li>`;
  }
  if (entry.state === "running") {
    return html`
      <li class="busy"
        aria-current="step"><strong>${name}</strong><span>running for ${duration(
          entry.seconds ?? 0,
        )}${limitText(limits)}</span></li>
    `;
  }
  const kind = entry.state === "skipped" ? "quiet" : entry.status === 0 ? "good" : "bad";
  return html`<li class="${kind}"><strong>${name}</strong><span>${phaseText(entry)}</span></li>`;
}

function limitText(limits: CurrentJob["limits"]): string {
  const total = limits?.total_left_seconds;
  const silence = limits?.silence_left_seconds;
  return (total === undefined ? "" : `, at most ${duration(total)} more`) +
    (silence === undefined ? "" : `, at most ${duration(silence)} more without output`);
}

function phaseText(entry: PhaseStatus): string {
  if (entry.state === "skipped") return `skipped: ${show(entry.reason ?? "")}`;
  if (entry.state === "running") return "did not end";
  const took = `after ${duration(entry.seconds ?? 0)}`;
  if (entry.status === 0) return `passed ${took}`;
  // An exit of its own accord needs no reason besides its status.
  const why = entry.event === undefined || entry.event === "normal_exit"
    ? ""
    : ` (${show(entry.event)})`;
  return `failed ${took} with status ${entry.status}${why}`;
}

function renderServer({ server }: AgentStatus): Markup {
  const row = (name: string, at: string | undefined) =>
    html`
      <dt>${name}</dt>
      <dd>${at === undefined ? "never" : time(at)}</dd>
    `;
  return html`<dl>
<dt>Address</dt><dd>${show(server.address)}</dd>
${row("Last answer", server.last_success_at)}
${row("Last failure", server.last_failure_at)}
${row("Asked for a job", server.last_poll_at)}
<dt>Tried again</dt><dd>${count(server.retries, "time")}</dd>
</dl>`;
}

function renderRecent(jobs: readonly PastJob[]): Markup {
  if (jobs.length === 0) return html`<p>None yet.</p>`;
  return html`
    <table>
      <thead>
        <tr>
          <th scope="col">Job</th>
          <th scope="col">Queue</th>
          <th scope="col">Began</th>
          <th scope="col">Took</th>
          <th scope="col">Ended</th>
          <th scope="col">Phases</th>
        </tr>
      </thead>
      <tbody>${jobs.map(renderPastJob)}</tbody>
    </table>
  `;
}

function renderPastJob(job: PastJob): Markup {
  const failed = job.reason !== "normal_exit" || job.phases.some(({ status }) => status);
  return html`
    <tr>
      <th scope="row">${show(job.job_id)}${job.name === undefined
        ? NOTHING
        : ` (${show(job.name)})`}</th>
      <td>${show(job.queue)}</td>
      <td>${time(job.started_at)}</td>
      <td>${duration(job.seconds)}</td>
      <td class="${failed ? "bad" : "good"}">${failed && job.reason === "normal_exit"
        ? "a phase failed"
        : show(job.reason)}${job.recovery_failed
        ? ", the device could not be recovered"
        : NOTHING}</td>
      <td>${job.phases.filter(({ state }) => state !== "skipped")
        .map((entry) => html`${entry.phase} ${phaseText(entry)}<br>`)}</td>
    </tr>
  `;
}

/** A name or a comment from outside; `html` escapes the markup in it. */
export function show(text: string): string {
  return showText(text).replaceAll("\n", " ");
}

function time(iso: string): Markup {
  return html`<time datetime="${iso}">${iso.slice(0, 19).replace("T", " ")} UTC</time>`;
}
