/** The page of a host with several agents: what each is about, and where to read more. */
import { html } from "hono/html";
import { type Markup, pathOf, RELOAD_S, show, STATE_CLASS } from "./page.ts";
import type { AgentSummary, HostStatus } from "./status_schema.ts";
import { count } from "./words.ts";

/** Renders the page. It loads itself again now and then, and has no script. */
export function renderHostPage(status: HostStatus): Markup {
  const { agents, broken_configurations: broken } = status;
  return frame(
    "Testflinger agents",
    html`
      <header>
        <h1>Testflinger agents</h1>
        <p class="quiet">${count(agents.length, "agent")} in this process</p>
      </header>
      <main>
        ${broken.map(({ file, mistakes, agent_id }) =>
          html`<div class="notice bad"><p>${show(file)} cannot be used${
            agent_id === undefined ? "" : html`; ${show(agent_id)} runs on as it was before`
          }:</p>${mistakes.map((mistake) => html`<p>${show(mistake)}</p>`)}</div>`
        )}
        <div class="scroll" role="region" aria-label="Table of agents" tabindex="0">
          <table>
            <thead>
              <tr>
                <th scope="col">Agent</th>
                <th scope="col">State</th>
                <th scope="col">Job</th>
                <th scope="col">Remarks</th>
              </tr>
            </thead>
            <tbody>${agents.map(renderAgent)}</tbody>
          </table>
        </div>
      </main>
      <footer>
        <p class="quiet">testflinger-agent ${show(status.version)}. The same as JSON: <a
            href="/v1/status">/v1/status</a>. For Prometheus: <a href="/metrics">/metrics</a>.</p>
      </footer>
    `,
  );
}

/** The page of an agent that does not run. */
export function renderDownPage(agentId: string, why: string): Markup {
  return frame(
    agentId,
    html`
      <header>
        <h1>${show(agentId)}</h1>
        <p class="state bad">not running</p>
      </header>
      <main>
        <p class="notice bad">${show(why)}</p>
        <p><a href="/">All agents</a></p>
      </main>
    `,
  );
}

function renderAgent(agent: AgentSummary): Markup {
  const kind = agent.healthy ? STATE_CLASS.get(agent.state) ?? "busy" : "bad";
  const remark = agent.trouble ?? (agent.comment || agent.not_ready_because) ?? "";
  return html`
    <tr>
      <th scope="row"><a href="${pathOf(agent.agent_id)}">${show(agent.agent_id)}</a></th>
      <td class="${kind}">${show(agent.state)}</td>
      <td>${show(agent.job_id ?? "")}</td>
      <td>${show(remark)}</td>
    </tr>
  `;
}

function frame(title: string, body: Markup): Markup {
  return html`
    <!DOCTYPE html>
    <html lang="en">
      <head>
        <meta charset="utf-8">
        <meta name="viewport" content="width=device-width, initial-scale=1">
        <meta name="color-scheme" content="light dark">
        <meta http-equiv="refresh" content="${RELOAD_S}">
        <title>${show(title)}</title>
        <link rel="stylesheet" href="/page.css">
      </head>
      <body>${body}</body>
    </html>
  `;
}
