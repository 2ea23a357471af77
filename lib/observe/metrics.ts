/**
 * What the agent counts, as Prometheus reads it. The first four names and their labels are those of
 * the established agent, which dashboards in the field use; the others are prefixed.
 */
import * as z from "zod";
import type { Clock } from "../clock.ts";
import { join } from "../path.ts";
import { PHASES } from "../phases.ts";
import { type JobEnded, type Sink, sinkOf } from "./events.ts";

/** Buckets of `phase_duration_seconds`: phases take minutes to hours. */
const PHASE_BUCKETS_S = [60, 120, 300, 600, 1800, 3600, 7200, 14400];

/** A cancellation is seen within seconds and takes at most the grace of a process to carry out. */
const CANCELLATION_BUCKETS_S = [0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30, 60];

/**
 * What a device calls its release becomes a label, and each value costs a time series for as long
 * as the agent lives. Labs have a dozen.
 */
const MAX_RELEASES = 100;
const MAX_RELEASE_CHARS = 64;

const MS = 1000;

/** What is counted, and by which clock. */
interface MetricsOptions {
  version: string;
  clock: Clock;
}

/** What counts, and the page that Prometheus fetches. */
export interface Metrics {
  readonly sink: Sink;
  readonly contentType: string;
  /**
   * From now on the agent is there, with 0 where nothing has happened yet.
   *
   * @param identifier the configuration's; `""` where there is none.
   * @param imageCache folder of the images that are kept for it; `""` where none are.
   */
  add(agentId: string, identifier: string, imageCache: string): void;
  /** The agent is no more: nor are its series. */
  remove(agentId: string): Promise<void>;
  /** All metrics in Prometheus' text format. */
  text(): Promise<string>;
}

/** Makes the metrics. The library is loaded here and not before: it takes longer than all the rest. */
export async function createMetrics(options: MetricsOptions): Promise<Metrics> {
  // The bundler gives the default export of a CommonJS package and nothing else.
  const { default: prometheus } = await import("prom-client");
  const { Counter, Gauge, Histogram, Registry } = prometheus;
  const { clock } = options;
  const registry = new Registry();
  const registers = [registry];

  const counter = <T extends string = "agent_id">(name: string, help: string, labels: T[] = []) =>
    new Counter({ name, help, registers, labelNames: ["agent_id", ...labels] });
  const gauge = <T extends string = "agent_id">(name: string, help: string, labels: T[] = []) =>
    new Gauge({ name, help, registers, labelNames: ["agent_id", ...labels] });

  const jobs = counter("jobs_total", "Jobs started since the agent's last start.");
  const failures = counter(
    "failures_total",
    "Phases that ended with a status other than 0 since the agent's last start.",
    ["test_phase"],
  );
  const recoveryFailures = counter(
    "recovery_failures_total",
    "Devices that could not be recovered since the agent's last start.",
  );
  const jobsEnded = counter(
    "testflinger_agent_jobs_ended_total",
    "Jobs that have ended, by how: passed, failed, timeout, cancelled or stopped.",
    ["outcome"],
  );
  const freeBytes = gauge(
    "testflinger_agent_free_bytes",
    "Bytes free on the fullest of the disks that jobs use.",
  );
  const phaseDuration = new Histogram({
    name: "phase_duration_seconds",
    help: "How long each phase of a job took, in seconds, since the agent's last start.",
    labelNames: ["agent_id", "test_phase", "identifier", "release"],
    buckets: PHASE_BUCKETS_S,
    registers,
  });

  const polls = counter("testflinger_agent_polls_total", "Times the server was asked for a job.");
  const calls = counter(
    "testflinger_agent_server_calls_total",
    "Calls to the server, by whether they succeeded.",
    ["outcome"],
  );
  const lastContact = gauge(
    "testflinger_agent_last_contact_timestamp_seconds",
    "When a call to the server last succeeded, in seconds since 1970; 0 when none has.",
  );
  const turnedAway = gauge(
    "testflinger_agent_turned_away",
    "1 while the server turns the agent away, for its token or its token's role.",
  );
  const retries = counter(
    "testflinger_agent_retries_total",
    "Calls and deliveries that were tried again.",
  );
  const undeliveredBytes = gauge(
    "testflinger_agent_undelivered_bytes",
    "Bytes on disk that the server does not have yet.",
  );
  const undeliveredFragments = gauge(
    "testflinger_agent_undelivered_fragments",
    "Pieces of logs on disk that the server does not have yet.",
  );
  const undeliveredJobs = gauge(
    "testflinger_agent_undelivered_jobs",
    "Jobs of which the server does not have everything yet.",
  );
  const logBytes = counter(
    "testflinger_agent_log_bytes_total",
    "Bytes that phases have printed.",
  );
  const cancellation = new Histogram({
    name: "testflinger_agent_cancellation_latency_seconds",
    help: "Time from seeing a job's cancellation to the end of its phase.",
    labelNames: ["agent_id"],
    buckets: CANCELLATION_BUCKETS_S,
    registers,
  });
  const state = gauge(
    "testflinger_agent_state",
    "1 for the state that the agent is in: waiting, offline, maintenance or a phase.",
    ["state"],
  );
  const info = gauge("testflinger_agent_info", "Always 1; the version is a label.", ["version"]);
  addProcessMetrics();
  /** Folders by agents, which may share one. */
  const imageCaches = new Map<string, string>();
  const cacheCounter = (name: string, help: string, count: keyof ImageCacheCounts) =>
    new Counter({
      name: `testflinger_agent_image_cache_${name}_total`,
      help,
      registers,
      labelNames: ["folder"],
      async collect() {
        const folders = [...new Set(imageCaches.values())].filter((folder) => folder !== "");
        const counts = await Promise.all(folders.map(imageCacheCounts));
        this.reset();
        for (const [n, folder] of folders.entries()) this.inc({ folder }, counts[n]?.[count] ?? 0);
      },
    });
  cacheCounter("hits", "Images that jobs of this host did not have to download.", "hits");
  cacheCounter("misses", "Images that jobs of this host have downloaded.", "misses");
  cacheCounter("saved_bytes", "Bytes of images that were not downloaded again.", "savedBytes");

  const releases = new Set<string>();
  const releaseLabel = (release: string): string => {
    const label = release.slice(0, MAX_RELEASE_CHARS);
    if (!releases.has(label) && releases.size >= MAX_RELEASES) return "other";
    releases.add(label);
    return label;
  };

  /** What names an agent's series. */
  const of = (agent: string) => ({ agent_id: agent });
  const identifiers = new Map<string, string>();
  const states = new Map<string, string>();

  const sink = sinkOf({
    mode({ agent, state: next }) {
      const before = states.get(agent);
      if (before !== undefined) state.remove({ ...of(agent), state: before });
      states.set(agent, next);
      state.set({ ...of(agent), state: next }, 1);
    },
    job_began: ({ agent, soFar }) => soFar === undefined ? jobs.inc(of(agent)) : undefined,
    phase_ended({ agent, phase, status, seconds, release }) {
      const labels = { ...of(agent), test_phase: phase };
      if (status !== 0) failures.inc(labels);
      const identifier = identifiers.get(agent) ?? "";
      if (seconds === undefined) return;
      phaseDuration.observe({ ...labels, identifier, release: releaseLabel(release) }, seconds);
    },
    job_ended: ({ agent, ...end }) => jobsEnded.inc({ ...of(agent), outcome: outcomeOf(end) }),
    free_space: ({ agent, bytes }) => freeBytes.set(of(agent), bytes),
    recovery_failed: ({ agent }) => recoveryFailures.inc(of(agent)),
    output: ({ agent, bytes }) => logBytes.inc(of(agent), bytes.length),
    polled: ({ agent }) => polls.inc(of(agent)),
    connectivity({ agent, ok }) {
      calls.inc({ ...of(agent), outcome: ok ? "success" : "failure" });
      if (ok) lastContact.set(of(agent), clock.now() / MS);
    },
    access: ({ agent, problem }) => turnedAway.set(of(agent), problem === undefined ? 0 : 1),
    retried: ({ agent }) => retries.inc(of(agent)),
    undelivered({ agent, bytes, fragments, jobs }) {
      undeliveredBytes.set(of(agent), bytes);
      undeliveredFragments.set(of(agent), fragments);
      undeliveredJobs.set(of(agent), jobs);
    },
    cancelled: ({ agent, latencyMs }) => cancellation.observe(of(agent), latencyMs / MS),
  });

  return {
    sink,
    contentType: registry.contentType,
    text: () => registry.metrics(),
    add(agentId, identifier, imageCache) {
      const agent = of(agentId);
      const isNew = !identifiers.has(agentId);
      imageCaches.set(agentId, imageCache);
      identifiers.set(agentId, identifier);
      // Prometheus sees a first increase only where there was a 0 before it.
      for (const metric of [jobs, recoveryFailures, polls, retries, logBytes]) metric.inc(agent, 0);
      // What may be no more when it begins again; what has been it goes on counting.
      for (const metric of [turnedAway, undeliveredBytes, undeliveredFragments, undeliveredJobs]) {
        metric.set(agent, 0);
      }
      if (isNew) {
        lastContact.set(agent, 0);
        for (const outcome of OUTCOMES) jobsEnded.inc({ ...agent, outcome }, 0);
        cancellation.zero(agent);
      }
      for (const phase of PHASES) failures.inc({ ...agent, test_phase: phase }, 0);
      for (const outcome of ["success", "failure"]) calls.inc({ ...agent, outcome }, 0);
      info.set({ ...agent, version: options.version }, 1);
    },
    async remove(agentId) {
      identifiers.delete(agentId);
      imageCaches.delete(agentId);
      states.delete(agentId);
      for (const { name } of registry.getMetricsAsArray()) {
        const metric = registry.getSingleMetric(name);
        if (metric === undefined) continue;
        const { values } = await metric.get();
        // It may have come back meanwhile.
        if (identifiers.has(agentId)) return;
        for (const { labels } of values) {
          if (labels.agent_id !== agentId) continue;
          // `le` names a bucket, and no series of its own.
          const { le: _, ...series } = labels;
          metric.remove(series);
        }
      }
    },
  };

  /** Names that Prometheus' own libraries use; read when the page is fetched. */
  function addProcessMetrics() {
    new Gauge({
      name: "process_resident_memory_bytes",
      help: "Memory of the agent's process, without its children.",
      registers,
      collect() {
        this.set(Deno.memoryUsage().rss);
      },
    });
    new Gauge({
      name: "process_start_time_seconds",
      help: "When the agent's process started, in seconds since 1970.",
      registers,
    }).set(performance.timeOrigin / MS);
  }
}

/** How a job ended, in one of few words. */
const OUTCOMES = ["passed", "failed", "timeout", "cancelled", "stopped"] as const;

function outcomeOf(
  { reason, failed, timedOut }: Pick<JobEnded, "reason" | "failed" | "timedOut">,
): typeof OUTCOMES[number] {
  if (reason === "cancelled" || reason === "stopped") return reason;
  if (timedOut) return "timeout";
  return reason === "normal_exit" && failed === undefined ? "passed" : "failed";
}

// What device connectors count in addition to the images that a host keeps. Their stages are processes of
// their own, so the counts are on disk, and are read when the metrics are asked for.

/** The file is a line. */
const MOST_BYTES = 4096;

const Counts = z.object({
  hits: z.number().default(0),
  misses: z.number().default(0),
  savedBytes: z.number().default(0),
});
/** What a cache has been good for since it was made. */
type ImageCacheCounts = z.infer<typeof Counts>;

const NOTHING: ImageCacheCounts = { hits: 0, misses: 0, savedBytes: 0 };

/** Reads what has been counted in the image cache of a folder; zeros where nothing has. */
async function imageCacheCounts(folder: string): Promise<ImageCacheCounts> {
  const path = join(folder, "statistics.json");
  try {
    // Jobs run as the same user: nobody waits for what is no file.
    const info = await Deno.lstat(path);
    if (!info.isFile || info.size > MOST_BYTES) return NOTHING;
    return Counts.parse(JSON.parse(await Deno.readTextFile(path)));
  } catch {
    // Not there, or damaged: as good as nothing.
    return NOTHING;
  }
}
