/** Metrics and the status page of all agents. They are loaded only where they are wanted: it takes its time. */
import type { Clock } from "../clock.ts";
import { type AgentConfig, imageCacheFolder } from "../config/agent_config.ts";
import type { Log } from "../log.ts";
import type { Sink } from "../observe/events.ts";
import type { HostView } from "../observe/host_view.ts";
import { VERSION } from "../version.ts";

/** What is served, and where. */
export interface EndpointOptions {
  /** On a loopback address, requests by any other name are refused. */
  host: string;
  port: number;
  view: HostView;
  clock: Clock;
  log: Log;
}

/** The running endpoint. */
export interface Endpoint {
  readonly sink: Sink;
  /** From now on the agent has metrics. */
  add(config: AgentConfig): void;
  remove(agentId: string): void;
  close(): Promise<void>;
}

/** Serves until `close()`. */
export async function openEndpoint(options: EndpointOptions): Promise<Endpoint> {
  const { createMetrics } = await import("../observe/metrics.ts");
  const { serveHealth } = await import("../observe/health.ts");
  const metrics = await createMetrics({ version: VERSION, clock: options.clock });
  const health = serveHealth({ ...options, metrics });
  return {
    sink: metrics.sink,
    add: (config) =>
      metrics.add(config.agent_id, config.identifier ?? "", imageCacheFolder(config)),
    remove: (agentId) => void metrics.remove(agentId),
    close: () => health.close(),
  };
}
