/** One job on this machine, through the real agent, without a server. */
import { runAgent } from "../../agent/agent.ts";
import { prepareFolders } from "../../agent/folders.ts";
import { systemClock } from "../../clock.ts";
import { AgentConfig } from "../../config/agent_config.ts";
import { formatMistake, sourceLines } from "../../config/mistake.ts";
import type { Log } from "../../log.ts";
import { join } from "../../path.ts";
import { type Phase, PHASES } from "../../phases.ts";
import { escapeText } from "../../observe/log_format.ts";
import { combineSinks, emitterOf } from "../../observe/events.ts";
import { Control } from "../../agent/context.ts";
import { Connectivity } from "../../server/connectivity.ts";
import { serveSandbox } from "../../sandbox/serve.ts";
import { createServerClient } from "../../server/client.ts";
import { readConfig } from "../read_config.ts";
import { type CommandLine, type Io, selfCommand } from "../command.ts";
import { shellCommand } from "../../shell.ts";
import { ownScreen, TerminalText } from "../terminal.ts";
import { readJobFile, writeArtifacts } from "./job_file.ts";
import { PhaseTable, TrialProgress } from "./trial_view.ts";

/** The job or the configuration is wrong: nothing was run. */
const INPUT_STATUS = 2;

/** Runs the job; resolves with the exit status. */
export async function runTry(line: CommandLine, plain: Io): Promise<number> {
  const screen = ownScreen({ ...plain, clock: systemClock });
  const io: Io = {
    ...plain,
    stdout: (text) => screen.out(text),
    stderr: (text) => screen.err(text),
  };
  const progress = new TrialProgress(screen, systemClock);
  const over = new AbortController();
  const showing = progress.run(over.signal);
  try {
    return await tryJobFile(line, io, progress);
  } finally {
    over.abort();
    await showing;
  }
}

async function tryJobFile(line: CommandLine, io: Io, progress: TrialProgress): Promise<number> {
  const [jobPath = ""] = line.positionals;
  progress.step("Packing the attachments");
  const jobFile = await readJobFile(jobPath);
  progress.step(undefined);
  if (!jobFile.ok) {
    for (const one of jobFile.mistakes) io.stderr(`${formatMistake(one)}\n${sourceLines(one)}`);
    return INPUT_STATUS;
  }
  for (const one of jobFile.value.warnings) {
    io.stderr(`warning: ${formatMistake(one)}\n${sourceLines(one)}`);
  }
  const folder = await Deno.makeTempDir({ prefix: "testflinger-try-" });
  try {
    const config = await configFor(line.values.config, folder, io);
    if (config === undefined) return INPUT_STATUS;
    const { job, attachments } = jobFile.value;
    const trialLog = openLog(io, line.switches.has("verbose"));
    const table = new PhaseTable(line.values.config === undefined ? phasesOf(job) : undefined);
    return await runOne({ job, attachments, config, folder, ...trialLog, io, progress, table });
  } finally {
    await Deno.remove(folder, { recursive: true }).catch(() => {});
  }
}

/** The configuration that was named, or one whose tests run on this machine; its folders are ours. */
async function configFor(
  file: string | undefined,
  folder: string,
  io: Io,
): Promise<AgentConfig | undefined> {
  const ours = {
    server_address: "http://127.0.0.1",
    polling_interval: 1,
    min_free_space: 0,
    execution_basedir: join(folder, "run"),
    logging_basedir: join(folder, "logs"),
    results_basedir: join(folder, "results"),
  };
  if (file !== undefined) {
    const config = await readConfig(file, io);
    return config === undefined ? undefined : { ...config, ...ours };
  }
  const connector = shellCommand([...selfCommand(), "device-connector", "fake_connector"]);
  return AgentConfig.parse({
    agent_id: "try",
    job_queues: ["try"],
    ...ours,
    test_command: `exec ${connector} runtest testflinger.json`,
  });
}

/** A proxy of the environment cannot reach a server that listens for this process only. Before the first request. */
function askThisMachineDirectly(): void {
  const others = Deno.env.get("no_proxy") ?? Deno.env.get("NO_PROXY") ?? "";
  const all = [...others.split(",").filter((item) => item !== ""), "127.0.0.1"].join(",");
  for (const name of ["no_proxy", "NO_PROXY"]) Deno.env.set(name, all);
}

interface Trial {
  job: Record<string, unknown>;
  attachments: Uint8Array | undefined;
  config: AgentConfig;
  /** For markers and locks, so that an agent that really runs here is not disturbed. */
  folder: string;
  log: Log;
  setRedactor(redact: (text: string) => string): void;
  io: Io;
  progress: TrialProgress;
  table: PhaseTable;
}

/** Those that the job has something to say about, besides its test. */
function phasesOf(job: Record<string, unknown>): ReadonlySet<Phase> {
  return new Set(PHASES.filter((phase) => phase !== "test" && Object.hasOwn(job, `${phase}_data`)));
}

async function runOne(trial: Trial): Promise<number> {
  const { config, io, log, setRedactor, progress, table } = trial;
  const prepared = prepareFolders(config);
  if (!prepared.ok) {
    io.stderr(`${prepared.message}\n`);
    return 1;
  }
  askThisMachineDirectly();
  const served = serveSandbox();
  const { sandbox } = served;
  const clock = systemClock;
  const connectivity = new Connectivity(clock, log);
  const server = createServerClient({
    address: served.url,
    agentId: config.agent_id,
    clock,
    log,
    onAnswer: (ok) => connectivity.report(ok),
  });
  // An id of the job file's own would be the name of a folder.
  const { job_id: _, ...job } = trial.job;
  const jobId = sandbox.submit(
    { ...job, job_queue: config.job_queues[0] },
    trial.attachments,
  );
  const text = new TerminalText();
  const decoder = new TextDecoder();
  const sink = combineSinks([table.sink, progress.sink, (event) => {
    if (event.type !== "output") return;
    io.stdout(text.push(decoder.decode(event.bytes, { stream: true })));
  }], log);
  const control = new Control();
  const interrupted = onInterrupt(io, () => sandbox.cancel(jobId), control);
  void sandbox.waitFor(() => sandbox.state(jobId) === "complete")
    .then(() => control.stop("SIGTERM", false));
  try {
    const end = await runAgent({
      config,
      folder: prepared.folder,
      server,
      connectivity,
      clock,
      log,
      emit: emitterOf(config.agent_id, { clock, sink }),
      control,
      recentLog: () => [],
      setRedactor,
      wantsRelease: false,
      sharedFolder: trial.folder,
    });
    if (end.ended === "failed") {
      io.stderr(`${end.message}\n`);
      return 1;
    }
    io.stdout(text.flush());
    progress.step("Saving the artifacts");
    io.stdout(`\n${table}\n`);
    const artifacts = sandbox.artifact(jobId);
    if (artifacts !== undefined) {
      const files = await writeArtifacts(artifacts, `artifacts-${jobId}`);
      progress.end();
      io.stdout(`\n${files} ${files === 1 ? "artifact" : "artifacts"} in ./artifacts-${jobId}/\n`);
    }
    return table.passed && !interrupted.wasAsked ? 0 : 1;
  } finally {
    server.close();
    await served.close();
  }
}

/** Ctrl-C cancels the job; again, it ends everything at once. */
function onInterrupt(
  io: Io,
  cancel: () => void,
  control: Control,
): { readonly wasAsked: boolean } {
  const state = { wasAsked: false };
  io.signals.listen({
    restart() {},
    stop: (_signal, again) => {
      state.wasAsked = true;
      if (!again) {
        io.stderr("\nThe job is cancelled; cleanup runs. Again to end everything at once.\n");
        cancel();
      } else {
        control.stop("SIGTERM", false);
        control.stop("SIGTERM", true);
      }
    },
  });
  return state;
}

/** Shows what the agent logs: warnings and errors, or everything. */
function openLog(io: Io, verbose: boolean): Pick<Trial, "log" | "setRedactor"> {
  let redact = (text: string) => text;
  const say = (level: string) => (message: string, fields: Record<string, unknown> = {}) => {
    const facts = Object.entries(fields)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => ` ${name}=${value}`).join("");
    io.stderr(`${level} ${escapeText(redact(`${message}${facts}`))}\n`);
  };
  const quiet = verbose ? say : () => () => {};
  return {
    log: {
      debug: quiet("DEBUG"),
      info: quiet("INFO"),
      warning: say("WARNING"),
      error: say("ERROR"),
    },
    setRedactor: (next) => redact = next,
  };
}
