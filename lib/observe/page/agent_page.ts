/** The page of one agent, rendered whole: it says everything without a script. */
import { html } from "hono/html";
import { PHASES } from "../../phases.ts";
import { progressWords } from "../../progress.ts";
import { type Setting, stateOf } from "../host_view.ts";
import type { ShownPiece } from "../output_text.ts";
import type { AgentStatus, CurrentJob, PastJob, PhaseStatus } from "../status_schema.ts";
import {
  backlog,
  briefly,
  count,
  duration,
  phaseWords,
  requestWords,
  resultOf,
  size,
  whenAsked,
} from "../words.ts";
import {
  absolute,
  ago,
  badge,
  brokenNotice,
  elapsed,
  footLine,
  jobBar,
  jsonOf,
  type Kind,
  kindOfPhase,
  limitBar,
  type Markup,
  NOTHING,
  pathOf,
  phaseBar,
  renderFrame,
  renderJumps,
  renderLines,
  segmentOf,
  show,
  since,
  STATE_KIND,
} from "./frame.ts";
import { ACTION_WORDS } from "../page_actions.ts";

/** What the page is made of. */
interface AgentPageContent {
  status: AgentStatus;
  configuration: Setting[];
  queues: readonly string[];
  /** The end of the job's output, and of its serial log. */
  log: ShownPiece[];
  serial: ShownPiece[];
  /** Where the server shows a job to people; undefined where it has no pages. */
  jobPage(jobId: string): string | undefined;
  /** Whether the operator lets people act from here. */
  canAct: boolean;
}

/** Renders the page. */
export function renderAgentPage(content: AgentPageContent): Markup {
  const { status, configuration, log, serial } = content;
  const now = Date.parse(status.now);
  const state = stateOf(status);
  const kind: Kind = status.trouble !== undefined || status.server.turned_away !== undefined ||
      status.server.reachable === false
    ? "bad"
    : STATE_KIND.get(state) ?? "busy";
  return renderFrame({
    title: `${status.agent_id}: ${state}`,
    icon: kind,
    page: "agent",
    address: pathOf(status.agent_id),
    events: `${pathOf(status.agent_id)}/live`,
    now,
    version: status.version,
    head: html`
      <nav aria-label="Where you are"><a href="/">Agents</a></nav>
      <h1>${show(status.agent_id)}</h1>
      <div class="now" data-part="state" role="status">${renderState(status, kind, state)}</div>
      ${content.canAct ? html`<a href="${pathOf(status.agent_id)}/actions">Act</a>` : NOTHING}
      <p class="version"><span class="long">testflinger-agent </span>${show(status.version)}</p>
    `,
    main: html`
      <div data-part="notices">${renderNotices(status)}</div>
      <div class="top">
        <section aria-labelledby="job-heading">
          <h2 id="job-heading">Job</h2>
          <div data-part="job">${renderJob(content, now)}</div>
        </section>
        <section aria-labelledby="agent-heading">
          <h2 id="agent-heading">Agent</h2>
          <div data-part="facts">${renderFacts(content, now)}</div>
        </section>
      </div>
      ${renderLogs(status, { log, serial })}
      <section aria-labelledby="recent-heading">
        <h2 id="recent-heading">Recent jobs</h2>
        <div data-part="recent">${renderRecent(content, now)}</div>
      </section>
      <section aria-labelledby="configuration-heading">
        <h2 id="configuration-heading">Configuration</h2>
        ${renderConfiguration(status, configuration)}
      </section>
    `,
    foot: footLine(status.version, status.started_at, now, jsonOf(status.agent_id)),
  });
}

/** The page of an agent that does not run. */
export function renderDownPage(
  agentId: string,
  { why, version, now }: { why: string; version: string; now: number },
): Markup {
  return renderFrame({
    title: `${agentId}: not running`,
    icon: "bad",
    page: "down",
    address: pathOf(agentId),
    now,
    version,
    head: html`
      <nav aria-label="Where you are"><a href="/">Agents</a></nav>
      <h1>${show(agentId)}</h1>
      <div class="now" data-part="state" role="status">${badge("bad", "not running")}</div>
    `,
    main: html`
      <div data-part="notices">
        <p class="notice bad">${show(why)}</p>
      </div>
      <p class="empty">Its job, its log and its recent jobs will be shown here when it runs.</p>
    `,
    foot: html`<p>testflinger-agent ${show(version)}</p>`,
  });
}

/** What was requested on a page, and what came of it. */
interface ActionAnswer {
  isDone: boolean;
  words: string;
}

/** The page on which people act, with the answer to what was asked before. It is never loaded again by itself. */
export function renderActionPage(
  agentId: string,
  { answer, version, now }: { answer?: ActionAnswer; version: string; now: number },
): Markup {
  return renderFrame({
    title: answer === undefined
      ? `${agentId}: act`
      : `${agentId}: ${answer.isDone ? "asked" : "not done"}`,
    icon: answer?.isDone === false ? "bad" : "good",
    page: "form",
    address: pathOf(agentId),
    now,
    version,
    head: html`
      <nav aria-label="Where you are"><a href="/">Agents</a> / <a href="${pathOf(agentId)}">${show(
        agentId,
      )}</a></nav>
      <h1>Act</h1>
    `,
    main: html`
      ${answer === undefined ? NOTHING : html`
        <p class="notice ${answer.isDone ? "good" : "bad"}" role="status">${show(answer.words)}</p>
      `}
      <form class="act" method="post" action="${pathOf(agentId)}/actions">
        <label>Token <input type="password" name="token" autocomplete="current-password" required></label>
        <label>Comment <input type="text" name="comment" autocomplete="off" maxlength="500"></label>
        ${Object.entries(ACTION_WORDS).map(([action, words]) =>
          html`
            <button name="action" value="${action}">${words}</button>
          `
        )}
      </form>
      <p class="empty">A job that runs goes on to its end; “Hand over” starts the whole process again
        meanwhile, which needs a supervisor such as systemd. The comment is for “Take offline”.</p>
    `,
    foot: html`<p>testflinger-agent ${show(version)}</p>`,
  });
}

/** Without a duration that a screen reader would speak whenever it changes. */
function renderState({ mode }: AgentStatus, kind: Kind, state: string): Markup {
  return html`${badge(kind, show(state))}${
    mode === undefined || mode.comment === "" ? NOTHING : html`
      <span>${show(mode.comment)}</span>
    `
  }`;
}

function renderNotices(status: AgentStatus): Markup {
  const { server, undelivered, trouble, broken_configuration: broken } = status;
  const notice = (kind: Kind, words: string) => html`<p class="notice ${kind}">${words}</p>`;
  return html`${
    trouble === undefined ? NOTHING : notice("bad", `The agent seems to hang: ${show(trouble)}.`)
  }${
    broken === undefined ? NOTHING : brokenNotice(
      html`The configuration of this agent`,
      {
        ...broken,
        now: Date.parse(status.now),
        then: "The agent keeps running with the previous configuration.",
      },
    )
  }${
    requestWords(status.requests).map((words) =>
      notice("warn", `${whenAsked(status)} it ${words}.`)
    )
  }${
    server.reachable !== false ? NOTHING : notice(
      "bad",
      `The server cannot be reached; the agent keeps trying. ${show(server.last_failure ?? "")}`,
    )
  }${
    server.turned_away === undefined ? NOTHING : notice(
      "bad",
      "The server turns this agent away; an administrator must see to its token. " +
        show(server.turned_away),
    )
  }${
    !isBacklog(status) ? NOTHING : notice(
      "warn",
      `Not delivered yet: ${backlog(undelivered)}. It is kept on disk and delivered by itself.`,
    )
  }`;
}

/** More than a job prints while a post is on its way. */
const LARGE_BACKLOG_BYTES = 64 * 1024;

/** Whether more waits to be delivered than what a running job has just printed. */
function isBacklog({ server, undelivered: { bytes, jobs } }: AgentStatus): boolean {
  return jobs > 0 || bytes >= (server.reachable === false ? 1 : LARGE_BACKLOG_BYTES);
}

function renderJob({ status, queues, jobPage }: AgentPageContent, now: number): Markup {
  const { job } = status;
  if (job === undefined) {
    const because = status.not_ready_because;
    return html`<p class="empty">No job is running. ${
      because !== undefined
        ? whyNone(status, because)
        : `The next one from ${
          queues.map(show).join(", ") || "its queues"
        } will be shown here, phase by phase.`
    }</p>${renderTransfers(status)}`;
  }
  const byPhase = new Map(job.phases.map((entry) => [entry.phase, entry]));
  const seconds = elapsed(job, now);
  return html`
    <p class="jobline"><strong>${show(job.name ?? job.job_id)}</strong>
      ${job.name === undefined ? NOTHING : html`<code>${show(job.job_id)}</code>`}
      <span>from ${show(job.queue)}</span> <span>for ${since(job.started_at, now)}</span>
      ${serverLink(jobPage(job.job_id))}</p>
    ${job.recovery_failed
      ? html`<p class="notice bad">The device could not be recovered.</p>`
      : NOTHING}${renderTransfers(status)}
    <ol class="timeline" aria-label="Phases">${PHASES.map((phase) =>
      renderPhase(phase, { entry: byPhase.get(phase), job, seconds })
    )}</ol>
    <p class="scale" aria-hidden="true"><span>0</span><span>${briefly(seconds)}</span></p>
    ${renderLimits(job.limits)}
  `;
}

/** What is said above already is not said again. */
function whyNone({ server, trouble }: AgentStatus, because: string): string {
  const isSaid = trouble !== undefined || server.reachable === false ||
    server.turned_away !== undefined;
  return isSaid ? "None is taken until that is mended." : `None is taken: ${show(because)}.`;
}

function serverLink(address: string | undefined): Markup | string {
  if (address === undefined) return NOTHING;
  return html`<a href="${address}" rel="noreferrer">on the server</a>`;
}

/** What is on its way and no phase: without it a job would seem to hang. */
function renderTransfers({ transfers = [] }: AgentStatus): Markup[] {
  return transfers.map(({ what, job_id, bytes, total_bytes: total, seconds }) =>
    html`<p>${show(progressWords({ what, total }, bytes, seconds * 1000))} (job ${
      show(job_id)
    })</p>`
  );
}

interface ShownPhase {
  entry: PhaseStatus | undefined;
  job: CurrentJob;
  /** How long the job has been running. */
  seconds: number;
}

function renderPhase(name: string, { entry, job, seconds }: ShownPhase): Markup {
  const kind = entry === undefined ? "quiet" : kindOfPhase(entry);
  const words = entry === undefined ? "to come" : phaseWords(entry);
  return html`
    <li class="${kind}"
      ${entry?.state === "running"
        ? html`
          aria-current="step"
        `
        : NOTHING}><strong>${name.replaceAll("_", " ")}</strong>${phaseBar(
          entry && segmentOf(job, entry),
          seconds,
        )}<span>${badge(kind, words)}</span></li>
  `;
}

function renderLimits(limits: CurrentJob["limits"]): Markup | string {
  if (limits === undefined) return NOTHING;
  const row = (name: string, all: number | undefined, left: number | undefined) =>
    all === undefined || left === undefined ? NOTHING : html`
      <dt>${name}</dt>
      <dd>${limitBar(all - left, all)} <span>${briefly(left)} left of ${briefly(all)}</span></dd>
    `;
  const { total_seconds, total_left_seconds, silence_seconds, silence_left_seconds } = limits;
  if (total_seconds === undefined && silence_seconds === undefined) return NOTHING;
  return html`<dl class="limits">${row("Time limit", total_seconds, total_left_seconds)}${
    row("Silence limit", silence_seconds, silence_left_seconds)
  }</dl>`;
}

function renderFacts({ status, queues }: AgentPageContent, now: number): Markup {
  const { server, undelivered, mode, free_bytes: free } = status;
  const row = (name: string, value: Markup | string) =>
    html`
      <dt>${name}</dt>
      <dd>${value}</dd>
    `;
  return html`<dl>
    ${mode === undefined ? NOTHING : row("In this state for", since(mode.since, now))}
    ${row("Queues", queues.map(show).join(", "))}
    ${row("Server", show(server.address))}
    ${row("Last contact", ago(server.last_success_at, now))}
    ${
    server.last_failure_at === undefined
      ? NOTHING
      : row("Last failure", ago(server.last_failure_at, now))
  }
    ${row("Asked for a job", ago(server.last_poll_at, now))}
    ${server.retries === 0 ? NOTHING : row("Retries", `${server.retries}`)}
    ${
    row(
      "To deliver",
      undelivered.bytes === 0 && undelivered.jobs === 0 ? "nothing" : backlog(undelivered),
    )
  }
    ${free === undefined ? NOTHING : row("Free on disk", size(free))}
  </dl>`;
}

/** The agent's log of the job, with what one does with it, and the serial log next to it. */
function renderLogs(
  status: AgentStatus,
  { log, serial }: { log: ShownPiece[]; serial: ShownPiece[] },
): Markup {
  const hasLog = log.length > 0;
  const hasSerial = serial.length > 0;
  const path = pathOf(status.agent_id);
  return html`
    <section aria-labelledby="log-heading" class="logs${hasSerial ? " two" : ""}${hasLog
      ? ""
      : " none"}" id="logs">
      <div class="tools">
        <h2 id="log-heading">Log</h2>
        <nav id="jumps" aria-label="Jump to a phase">${renderJumps(log)}</nav>
        <form class="find script" role="search" aria-label="Search the log">
          <label for="find" class="unseen">Search the log</label>
          <input id="find" type="search" placeholder="Search the log" autocomplete="off">
          <output id="hits" for="find"></output>
          <button type="button" id="previous" aria-label="Previous hit">↑</button>
          <button type="submit" id="next" aria-label="Next hit">↓</button>
        </form>
        <label class="script"><input type="checkbox" id="follow" checked> Follow</label>
        <label><input type="checkbox" id="wrap" checked> Wrap</label>
        <a href="${path}/log.txt" download>Download</a>
        <span class="quiet" id="live">Not live: loaded at ${absolute(status.now)}</span>
      </div>
      <div class="panes">
        <pre id="log" role="log" aria-live="off" aria-labelledby="log-heading"
          tabindex="0">${renderLines(log)}</pre>
        <div class="serial" id="serial-pane" ${hasSerial ? NOTHING : html`
          hidden
        `}>
          <h3 id="serial-heading">Serial log
            <a href="${path}/serial.txt" download>Download<span class="unseen"> the serial log</span></a></h3>
          <pre id="serial" role="log" aria-live="off" aria-labelledby="serial-heading"
            tabindex="0">${renderLines(serial)}</pre>
        </div>
      </div>
      <p class="empty" id="log-empty" ${hasLog
        ? html`
          hidden
        `
        : NOTHING}>What the next job prints will
        be shown here as it is printed, and the device's serial log beside it when its connector records one.</p>
    </section>
  `;
}

function renderRecent({ status, jobPage }: AgentPageContent, now: number): Markup {
  const { recent_jobs: jobs } = status;
  if (jobs.length === 0) {
    return html`<p class="empty">None yet. The last 20 jobs will be listed here, with what their phases took.</p>`;
  }
  const longest = Math.max(...jobs.map(({ seconds }) => seconds));
  const column = (name: string, kind = "") =>
    html`<th role="columnheader" scope="col" class="${kind}">${name}</th>`;
  return html`
    <table class="recent" role="table" aria-label="Recent jobs">
      <thead role="rowgroup">
        <tr role="row">
          ${column("Job")} ${column("Result")} ${column("Phases")} ${column("Took", "n")}
          ${column("Ended", "n")} ${column("Queue")}
        </tr>
      </thead>
      <tbody role="rowgroup">${jobs.map((job) => {
        const { kind, words } = resultOf(job);
        return html`
          <tr role="row">
            <th role="rowheader" scope="row" title="${show(job.job_id)}">${jobName(
              job,
              jobPage(job.job_id),
            )}</th>
            <td role="cell" class="result">${badge(kind, words)}</td>
            <td role="cell" class="time" title="${phasesInWords(job)}">${jobBar(job, longest)}</td>
            <td role="cell" class="n" data-label="took">${briefly(job.seconds)}</td>
            <td role="cell" class="n" data-label="ended">${ago(job.ended_at, now)}</td>
            <td role="cell" data-label="queue">${show(job.queue)}</td>
          </tr>
        `;
      })}</tbody>
    </table>
  `;
}

/** Its name, which leads to the server's page of it. */
function jobName({ name, job_id: id }: PastJob, page: string | undefined): Markup | string {
  const words = show(name ?? id);
  return page === undefined ? words : html`<a href="${page}" rel="noreferrer">${words}</a>`;
}

function phasesInWords({ phases }: PastJob): string {
  return phases.filter(({ state }) => state !== "skipped")
    .map(({ phase, seconds = 0 }) => `${phase} ${duration(seconds)}`).join(", ");
}

function renderConfiguration(
  { configuration_file: file }: AgentStatus,
  configuration: readonly Setting[],
): Markup {
  const list = (settings: readonly Setting[]) =>
    html`<dl>${
      settings.map(({ key, value }) =>
        html`
          <dt>${show(key)}</dt>
          <dd>${value === "" ? html`<span class="quiet">none</span>` : show(value)}</dd>
        `
      )
    }</dl>`;
  const set = configuration.filter(({ isSet }) => isSet);
  const rest = configuration.filter(({ isSet }) => !isSet);
  return html`
    <details><summary>${count(
      set.length,
      "setting",
    )} that differ from the default${file === undefined
      ? NOTHING
      : html`, from <code>${show(file)}</code>`}</summary>${list(set)}
    ${rest.length === 0
      ? NOTHING
      : html`<details><summary>${count(rest.length, "setting")} as they are by default</summary>${
        list(rest)
      }</details>`}
    </details>
  `;
}
