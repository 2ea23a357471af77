/** A small page of the sandbox, for people who try things: queues, jobs, agents, logs. No scripts. */
import { Hono } from "hono";
import { html, raw } from "hono/html";
import { checkJobId } from "./wire_form.ts";
import type { JobLog } from "./job_log.ts";
import type { StoredJob } from "./job_store.ts";
import type { World } from "./world.ts";

const STYLE = `
  :root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
  body { max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
  table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; }
  pre { overflow: auto; padding: 1rem; border: 1px solid #8884; white-space: pre-wrap; }
`;

const MOST_CHARS = 256 * 1024;
const MOST_FRAGMENTS = 1_000;

type Html = ReturnType<typeof html>;

/** `/` and `/jobs/ID`. */
export function pageRoutes({ agents, jobs }: World): Hono {
  const app = new Hono({ strict: false });

  app.get("/", (c) => {
    const all = jobs.all().toReversed();
    const queues = new Map<string, number>();
    for (const { queues: names = [] } of agents.all()) {
      for (const name of names) {
        queues.set(name, jobs.waiting(name).length);
      }
    }
    for (const { queue } of all) queues.set(queue, jobs.waiting(queue).length);
    return c.html(page(
      "Testflinger sandbox",
      html`
        <h1>Testflinger sandbox</h1>
        <p>A server in memory: it forgets everything when it ends.</p>
        <h2>Jobs</h2>
        ${all.length === 0
          ? html`<p>None yet. Submit one: <code>testflinger-agent submit job.yaml</code></p>`
          : table(
            ["Job", "Name", "Queue", "State"],
            all.map((job) => [
              html`<a href="/jobs/${job.jobId}">${job.jobId}</a>`,
              text(job.data.name),
              job.queue,
              text(job.result.job_state),
            ]),
          )}
        <h2>Agents</h2>
        ${agents.all().length === 0
          ? html`<p>None has come yet. An agent needs the address of this page as its
            <code>server_address</code>.</p>`
          : table(
            ["Agent", "State", "Comment", "Job"],
            agents.all().map(({ name, state, comment, job_id }) => [
              name,
              text(state),
              text(comment),
              text(job_id),
            ]),
          )}
        <h2>Queues</h2>
        ${queues.size === 0 ? html`<p>None: queues are those of jobs and agents.</p>` : table(
          ["Queue", "Jobs waiting"],
          [...queues].map(([name, count]) => [name, String(count)]),
        )}
      `,
    ));
  });

  app.get("/jobs/:id", (c) => {
    const jobId = checkJobId(c.req.param("id"));
    const job = jobs.get(jobId);
    if (job === undefined) return c.html(page("No such job", html`<h1>No such job</h1>`), 404);
    const { output, serial } = jobs.logs(jobId);
    return c.html(page(
      `Job ${jobId}`,
      html`
        <p><a href="/">All jobs</a></p>
        <h1>Job ${jobId}</h1>
        <p>Queue ${job.queue}: <strong>${text(job.result.job_state)}</strong></p>
        ${statuses(job)}
        ${jobs.artifact(jobId) === undefined
          ? ""
          : html`<p><a href="/v1/result/${jobId}/artifact">artifacts.tar.gz</a></p>`}
        <h2>Log</h2>
        <pre>${endOf(output) || "Nothing yet."}</pre>
        ${endOf(serial) === "" ? "" : html`
          <h2>Serial log</h2>
          <pre>${endOf(serial)}</pre>
        `}
      `,
    ));
  });

  return app;
}

/** A log's end: a browser lays out no hundred megabytes. */
function endOf(log: JobLog | undefined): string {
  return (log?.all() ?? []).slice(-MOST_FRAGMENTS).map(({ log_data }) => log_data).join("")
    .slice(-MOST_CHARS);
}

function statuses({ result: { status } }: StoredJob): Html | "" {
  if (typeof status !== "object" || status === null) return "";
  return table(
    ["Phase", "Exit status"],
    Object.entries(status).map(([phase, one]) => [phase, text(one)]),
  );
}

function table(heads: readonly string[], rows: readonly (readonly (string | Html)[])[]): Html {
  return html`
    <table>
      <thead>
        <tr>${heads.map((head) => html`<th scope="col">${head}</th>`)}</tr>
      </thead>
      <tbody>${rows.map((cells) =>
        html`<tr>${cells.map((cell) => html`<td>${cell}</td>`)}</tr>`
      )}</tbody>
    </table>
  `;
}

function page(title: string, content: Html): Html {
  return html`
    <!DOCTYPE html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta http-equiv="refresh" content="2">
        <title>${title}</title>
        <style>${raw(STYLE)}</style>
      </head>
      <body>${content}</body>
    </html>
  `;
}

function text(value: unknown): string {
  return value === undefined || value === null ? "" : String(value);
}
