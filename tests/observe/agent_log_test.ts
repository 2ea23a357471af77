import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { fstatSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  type AgentLog,
  createLog,
  createLogLines,
  createTransferLog,
  stderrIsJournal,
} from "../../lib/observe/agent_log.ts";
import { emitterOf } from "../../lib/observe/events.ts";
import { FakeClock } from "../support/fake_clock.ts";
import { recordingLog } from "../support/recording_log.ts";

const AT = new Date(2026, 10, 22, 12, 0, 0, 5).getTime();
const NAME = "testflinger-agent.log";

/** How a test's log is made. */
interface Options {
  level?: string;
  quiet?: boolean;
  folder?: string;
  format?: "text" | "json";
  agentId?: string;
  isJournal?: boolean;
  isShared?: boolean;
  redact?: (text: string) => string;
}

interface Made {
  log: AgentLog;
  recent(): string[];
  close(): void;
  folder: string;
  /** What stands on the console. */
  screen: string[];
  file(): string;
}

/** A log into a fresh folder, with a console that is kept. */
async function withLog(options: Options, test: (made: Made) => void | Promise<void>) {
  const folder = await Deno.makeTempDir();
  const screen: string[] = [];
  const { agentId = "agent-1", isJournal = false, isShared = false } = options;
  const lines = createLogLines({
    agentId,
    quiet: options.quiet ?? false,
    folder: options.folder ?? folder,
    format: options.format ?? "text",
    console: { write: (line) => screen.push(line), isJournal, isShared },
  });
  const emit = emitterOf(agentId, { clock: { now: () => AT }, sink: lines.sink });
  const log = createLog({ emit, level: options.level ?? "INFO" });
  if (options.redact !== undefined) log.setRedactor(options.redact);
  try {
    const file = () => Deno.readTextFileSync(`${options.folder ?? folder}/${NAME}`);
    await test({ log, recent: lines.recent, close: lines.close, folder, screen, file });
  } finally {
    lines.close();
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("an event goes to the console, and to the file with the agent's name", () =>
  withLog({}, ({ log, screen, file }) => {
    log.info("Job started", { job_id: "j-1" });
    assertEquals(screen, ["2026-11-22 12:00:00,005 INFO Job started job_id=j-1"]);
    assertEquals(file(), "2026-11-22 12:00:00,005 INFO [agent-1] Job started job_id=j-1\n");
  }));

Deno.test("logging_quiet logs to the file only", () =>
  withLog({ quiet: true }, ({ log, screen, file }) => {
    log.error("E");
    assertEquals(screen, []);
    assertStringIncludes(file(), "ERROR [agent-1] E");
  }));

for (
  const [level, expected] of Object.entries({
    NOTSET: "dIWE",
    DEBUG: "dIWE",
    INFO: "IWE",
    WARNING: "WE",
    WARN: "WE",
    ERROR: "E",
    CRITICAL: "",
    FATAL: "",
    verbose: "IWE",
    debug: "IWE",
    constructor: "IWE",
  })
) {
  Deno.test(`logging_level ${level} shows ${expected || "nothing"}`, () =>
    withLog({ level }, ({ log, screen }) => {
      log.debug("d");
      log.info("I");
      log.warning("W");
      log.error("E");
      assertEquals(screen.map((line) => line.at(-1)).join(""), expected);
    }));
}

Deno.test("under systemd the console has priorities and no time, the file has time", () =>
  withLog({ isJournal: true }, ({ log, screen, file }) => {
    log.warning("careful", { n: 1 });
    assertEquals(screen, ["<4>careful n=1"]);
    assertMatch(file(), /^2026-11-22 12:00:00,005 WARNING \[agent-1\] careful n=1\n$/);
  }));

Deno.test("log_format json writes JSON lines everywhere", () =>
  withLog({ format: "json" }, ({ log, screen, file }) => {
    log.info("m", { k: "v" });
    assertEquals(JSON.parse(screen[0] ?? ""), {
      time: new Date(AT).toISOString(),
      level: "INFO",
      agent: "agent-1",
      message: "m",
      fields: { k: "v" },
    });
    assertEquals(file(), screen[0] + "\n");
  }));

Deno.test("on a console of several agents each line says whose it is", async () => {
  await withLog({ isShared: true }, ({ log, screen }) => {
    log.info("m");
    assertMatch(screen[0] ?? "", / INFO \[agent-1\] m$/);
  });
  await withLog({ isShared: true, isJournal: true }, ({ log, screen }) => {
    log.info("m");
    assertEquals(screen, ["<6>[agent-1] m"]);
  });
});

Deno.test("JSON lines carry a priority for the journal", () =>
  withLog({ format: "json", isJournal: true }, ({ log, screen }) => {
    log.error("m");
    assertMatch(screen[0] ?? "", /^<3>\{"time":/);
  }));

Deno.test("secrets of the running job are taken out of messages, fields and numbers", () =>
  withLog({}, ({ log, screen, file, recent }) => {
    log.setRedactor((text) => text.replaceAll("hunter2", "**f52fbd**").replaceAll("4711", "**n**"));
    log.info("password hunter2", { url: "http://u:hunter2@host", pin: 4711, status: 1 });
    const line = "2026-11-22 12:00:00,005 INFO password **f52fbd** " +
      "url=http://u:**f52fbd**@host pin=**n** status=1";
    assertEquals(screen, [line]);
    assertEquals(file().replace("[agent-1] ", ""), line + "\n");
    assertEquals(recent(), [line]);
  }));

Deno.test("a secret is found although it spans lines, which are escaped only afterwards", () =>
  withLog({ redact: (text) => text.replaceAll("line 1\nline 2", "**s**") }, ({ log, screen }) => {
    log.info("key: line 1\nline 2\nend");
    assertMatch(screen[0] ?? "", /INFO key: \*\*s\*\*\\nend$/);
  }));

Deno.test("a text in which secrets cannot be looked for is not shown", () => {
  const redact = () => {
    throw new Error("broken");
  };
  return withLog({ redact }, ({ log, screen, file }) => {
    log.info("hunter2");
    assertMatch(screen[0] ?? "", / INFO \(not shown: looking for secrets failed\)$/);
    assertEquals(file().includes("hunter2"), false);
  });
});

Deno.test("braces in a message are text and not a template", () =>
  withLog({}, ({ log, screen }) => {
    log.info('answered {"message": "{x}"} and {{y}}', { x: "no" });
    assertMatch(screen[0] ?? "", / INFO answered {"message": "{x}"} and {{y}} x=no$/);
  }));

Deno.test("recent() gives the lines since the last call, at most the last hundred", () =>
  withLog({ quiet: true, format: "json" }, ({ log, recent }) => {
    log.info("one");
    log.debug("not shown");
    assertEquals(recent(), ["2026-11-22 12:00:00,005 INFO one"]);
    assertEquals(recent(), []);
    for (let n = 0; n < 250; n++) log.info(`n${n}`);
    const lines = recent();
    assertEquals(lines.length, 100);
    assertMatch(lines[0] ?? "", /n150$/);
    assertMatch(lines[99] ?? "", /n249$/);
  }));

Deno.test("a log file that cannot be written is told once, also when quiet, and again when it can", () =>
  withLog({ quiet: true }, async ({ log, screen, folder, close }) => {
    close();
    const broken = `${folder}/logs`;
    Deno.writeTextFileSync(broken, "not a folder");
    await withLog({ quiet: true, folder: broken }, ({ log, screen, file, recent }) => {
      for (let n = 0; n < 5; n++) log.info(`n${n}`);
      assertEquals(screen.length, 1);
      assertMatch(screen[0] ?? "", /ERROR Cannot write the agent's log file; .* reason=/);
      Deno.removeSync(broken);
      log.info("n5");
      assertEquals(screen.length, 2);
      assertMatch(screen[1] ?? "", /WARNING The agent's log file is written again lost=5$/);
      assertMatch(file(), /^[^\n]*n5\n$/);
      assertEquals(recent().length, 6);
    });
    log.info("after close()");
    assertEquals(screen, []);
  }));

Deno.test("a full disk costs lines and nothing else, and leaves no half line to go on from", async () => {
  const folder = await Deno.makeTempDir();
  try {
    const { code, stderr } = await new Deno.Command("/bin/sh", {
      args: [
        "-c",
        'trap "" XFSZ; exec "$@"',
        "sh",
        Deno.execPath(),
        "run",
        "--no-check",
        "--allow-read",
        "--allow-write",
        "--allow-env",
        "--allow-sys",
        "--allow-run=prlimit",
        fileURLToPath(new URL("log_child.ts", import.meta.url)),
        folder,
      ],
    }).output();
    const screen = new TextDecoder().decode(stderr);
    assertEquals(code, 0, screen);
    assertEquals(screen.match(/Cannot write the agent's log file/g)?.length, 1, screen);
    assertStringIncludes(screen, "written again lost=3");
    const lines = (await Deno.readTextFile(`${folder}/${NAME}`)).trimEnd().split("\n");
    assertEquals(lines.length, 3, lines.join("\n"));
    assertMatch(lines[0] ?? "", /INFO \[agent-1\] before$/);
    assertMatch(lines[2] ?? "", / INFO \[agent-1\] after$/);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("several agents in one process keep their logs apart", () =>
  withLog({ agentId: "a", level: "DEBUG" }, (a) =>
    withLog({ agentId: "b" }, (b) => {
      a.log.debug("of a");
      b.log.info("of b");
      b.log.debug("not shown");
      assertEquals([a.screen.length, b.screen.length], [1, 1]);
      assertStringIncludes(a.file(), "of a");
      assertStringIncludes(b.file(), "of b");
      b.close();
      a.log.info("still here");
      b.log.info("nowhere");
      assertEquals([a.screen.length, b.screen.length], [2, 1]);
    })));

Deno.test("the journal is recognised by the device and inode in JOURNAL_STREAM", () => {
  const { dev, ino } = fstatSync(2);
  assertEquals(stderrIsJournal(`${dev}:${ino}`), true);
  assertEquals(stderrIsJournal(`${dev}:${ino + 1}`), false);
  assertEquals(stderrIsJournal("nonsense"), false);
  assertEquals(stderrIsJournal(""), false);
});

Deno.test("the log says nothing of a transfer that takes less than 30 s, however large", async () => {
  const [clock, log] = [new FakeClock(), recordingLog()];
  const emit = emitterOf("agent-1", { clock, sink: createTransferLog({ clock, log }) });
  const task = {
    type: "transfer" as const,
    what: "Fetching the attachments",
    job: "j",
    total: 900e6,
  };
  for (let second = 0; second < 29; second += 7) {
    emit({ ...task, bytes: second * 30e6, isOver: false });
    await clock.advance(7000);
  }
  emit({ ...task, bytes: 900e6, isOver: true });
  assertEquals(log.lines, []);
});

Deno.test("the log says every 30 s how far a slow transfer has come, and that it is over", async () => {
  const [clock, log] = [new FakeClock(), recordingLog()];
  const emit = emitterOf("agent-1", { clock, sink: createTransferLog({ clock, log }) });
  const task = {
    type: "transfer" as const,
    what: "Fetching the attachments",
    job: "j",
    total: 100e6,
  };
  const other = {
    type: "transfer" as const,
    what: "Uploading the artifacts",
    job: "earlier",
    bytes: 1,
    isOver: false,
  };
  for (let second = 0; second <= 70; second += 10) {
    emit({ ...task, bytes: second * 1e6, isOver: false });
    if (second > 60) emit(other);
    await clock.advance(second === 70 ? 1_000 : 10_000);
  }
  emit({ ...task, bytes: 71e6, isOver: true });
  emit({ ...other, isOver: true });
  assertEquals(log.lines.map(({ level, message, fields }) => [level, message, fields?.job_id]), [
    ["info", "Fetching the attachments: 30 % of 100.0 MB, 1.0 MB/s, 70 s left", "j"],
    ["info", "Fetching the attachments: 60 % of 100.0 MB, 1.0 MB/s, 40 s left", "j"],
    ["info", "Fetching the attachments: over after 1 min 11 s, 71.0 MB", "j"],
  ]);
});
