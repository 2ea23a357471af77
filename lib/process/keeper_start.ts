/**
 * Starts a command with its keeper: see keeper.ts. Starting takes some ten programs in a row and, with a
 * control group, a wait of the kernel's. So it can be done ahead: the command is then ready but for its last
 * step, and takes that when it is told to.
 */
import { within } from "../wait.ts";
import { systemClock } from "../clock.ts";
import { dirname, exists, join } from "../path.ts";
import { messageOf } from "../message.ts";
import { once } from "../once.ts";
import { inOwnSession } from "../own_session.ts";
import { shellCommand } from "../shell.ts";
import { FolderWatch } from "./folder_watch.ts";
import { RUN_WITHOUT_INHERITED, whyNot } from "./group.ts";
import { SAY_IDENTITY } from "./proc.ts";
import { commandIn, hasEnded, type KeptCommand, ROOMS } from "./keeper.ts";
import { OUTPUT_START } from "./kept_output.ts";
import { SET_MARK } from "./mark.ts";
import { SAY_USAGE } from "./exit.ts";

/** How a command is started. */
export interface KeepOptions {
  /** Where its keeper has its files; does not exist yet. */
  folder: string;
  /** Working directory. */
  cwd: string;
  /** The whole environment; nothing of the agent's own is added. */
  env: Record<string, string>;
  /** The folder of a control group, which the command joins before it becomes what it is. */
  cgroup?: string | undefined;
  /** Carried by everything that the command starts: see mark.ts. */
  mark?: number | undefined;
  /** What `ps` shows of the programs that keep it: whose they are. */
  label?: string | undefined;
}

/** What starting a command comes to. */
export type KeptStart =
  | { started: true; command: KeptCommand }
  /** One line for people: which program or folder is missing, or not to be used. */
  | { started: false; message: string };

/** The line of `keeper` and of `command` is about 400 bytes, mostly numbers of the kernel's; `status` less. */
const ROOM_BYTES = 1024;
/** How long the last words are waited for of what has ended otherwise than it should have. */
const WORDS_MS = 1_000;

/**
 * The keeper, a POSIX shell script: `$1` is its folder, `$2` what awk runs with its own shell, `$3` what
 * is in `end`, `$4` the folder of the command's control group or empty, `$5` what
 * `Awk.shown` is, `$6` the awk.
 *
 * A shell cannot tell `exit 143` from a death by SIGTERM, and a command that it starts in the
 * background ignores SIGINT. awk's `system()` has neither fault; but how it writes a death by signal
 * differs, so that belongs to the status. One that does not show it at all (busybox) leaves it to a shell.
 *
 * A pipe and not the file itself is what the command prints to: it would truncate a file with
 * `> /dev/stdout`. dd reads from the pipe a number of pieces and then ends, always behind a whole
 * piece: so the output is in files of which we remove those that we have read, without stopping
 * anything. How many pieces it has read, it says at its end (`0+3 records in`): fewer than it may, and there are
 * no more. With 256 MiB unread the command has to wait.
 */
const keeperScript = (remark: string) =>
  `${remark}
{ ${SAY_IDENTITY}; } 1<>"$1/keeper" || exit 125
exec "$6" '${remark}${SAY_USAGE}
BEGIN {
  shown = ARGV[4] == "" ? system("kill -9 $$") : ARGV[4]
  print shown, shown ? system("exec " ARGV[1]) : system("(exec " ARGV[1] "); exit $?")
  if (ARGV[3] != "") say_usage(ARGV[3])
  fflush()
  printf "\\001%s", ARGV[2] >"/dev/fd/3"
}' "$2" "$3" "$4" "$5" 3>&1 1<>"$1/status" | {
  n=0
  while :; do
    dd bs=32k count=1024 of="$1/output.$n" 2<>"$1/trouble"
    code=$?
    if [ "$code" -ne 0 ]; then
      printf 'lost %s %s\\n' "$code" "$n" 1<>"$1/trouble"
      sleep 1
    elif [ ! -s "$1/output.$n" ] && [ -e "$1/output.$n" ]; then
      break
    else
      read -r pieces rest <"$1/trouble"
      case $pieces in
        *[!0-9+]* | +* | *+ | *+*+*) ;;
        *+*) [ "$(($pieces))" -ge 1024 ] || break ;;
      esac
    fi
    n=$((n + 1))
    while [ -e "$1/output.$((n - 8))" ] && [ -e "$1/keeper" ] &&
      du -sk "$1" | { read -r size rest && [ "$size" -gt 262144 ]; }; do sleep 1; done
    [ -e "$1/keeper" ] || exec cat >/dev/null
  done
  : >"$1/eof"
}`;

/** Tells the command to begin: any other word, or the end of its input, tells it to end. */
const GO = "go";

/**
 * What the command starts as, in a session and group of its own: it says who it is, waits until it is
 * told to go, makes sure that it may begin, then becomes the command. `$1` is the keeper's folder, `$2` the
 * cgroup's folder or empty, `$3` the working directory, `$4` the mark or empty. Commands leave no core files:
 * see `startGroup()`.
 *
 * The word comes through a pipe that nobody has but us: when we have ended, also by a kill, so does this.
 * The directory may be another one of the same name by then.
 */
const LAUNCH = `ulimit -S -c 0
{ ${SAY_IDENTITY}; } 1<>"$1/command" || exit 125
[ -z "$2" ] || { printf '0\\n' >"$2/cgroup.procs"; } 2>/dev/null
{ read -r _tf_word && [ "$_tf_word" = ${GO} ] && set -C && true >"$1/begun"; } 2>/dev/null || exit 125
set +C
[ . -ef "$3" ] || cd -- "$3" || exit 125
shift 3
${SET_MARK}
shift
exec "$@" </dev/null`;

/** The label as the first line of a script, for shells and awk alike, also within single quotes. */
function remarkOf(label: string): string {
  return `# testflinger-agent: ${label.replaceAll(/[^\p{L}\p{N} .,:@%+=~_-]/gu, "?")}\n`;
}

/** What making a command ready comes to. */
export type KeptReadiness = { ready: true; command: ReadyCommand } | {
  ready: false;
  message: string;
};

/**
 * Starts a command with a keeper.
 *
 * The folder is what it is found by: the caller notes its path before, since each moment may be the
 * last of this process. `findKept()` tells the next one how far it has come.
 *
 * @param argv program and arguments; a program without a slash is looked for in `env.PATH`.
 */
export async function startKept(
  argv: readonly string[],
  options: KeepOptions,
): Promise<KeptStart> {
  const refusal = whyNot(argv, options);
  if (refusal !== undefined) return { started: false, message: refusal };
  const made = await makeReady(argv, options);
  return made.ready ? await made.command.go() : { started: false, message: made.message };
}

/**
 * Makes a command ready with its keeper, without starting it.
 *
 * @param argv as for `startKept()`.
 */
export async function makeReady(
  argv: readonly string[],
  options: KeepOptions,
): Promise<KeptReadiness> {
  const { folder, cwd, env, cgroup = "", mark = "", label = "" } = options;
  const remark = remarkOf(label);
  const launch = [
    ...["setsid", "/bin/sh", "-c", `${remark}${LAUNCH}`, "sh"],
    ...[folder, cgroup, cwd, `${mark}`, ...argv],
  ];
  try {
    const token = crypto.randomUUID();
    // Before anything is waited for: the name is taken then.
    makeFolder(folder, token);
    const awk = await awkFor(env.PATH, env.POSIXLY_CORRECT);
    const keeper = inOwnSession("/bin/sh", {
      args: [
        ...["-c", `${remark}${RUN_WITHOUT_INHERITED}`, "sh", keeperScript(remark)],
        ...[folder, `${shellCommand(launch)} >&3 2>&1 3>&-`, token, cgroup, awk.shown, awk.program],
      ],
      cwd,
      env,
      clearEnv: true,
      stdin: "piped",
      stdout: "null",
      stderr: "null",
    }).spawn();
    return { ready: true, command: new ReadyCommand(keeper, argv, options) };
  } catch (error) {
    // The runtime puts what it was doing behind the reason.
    const reason = messageOf(error).replace(/: (mkdir|open|write)\b.*$/, "");
    const why = exists(join(folder, "end"))
      ? messageOf(error)
      : `nothing can be kept in ${dirname(folder)}: ${reason}`;
    return { ready: false, message: `Cannot start ${argv[0]}: ${why}` };
  }
}

/** A command that waits for its last step. It ends with this process. */
export class ReadyCommand implements AsyncDisposable {
  readonly argv: readonly string[];
  readonly options: KeepOptions;
  readonly #keeper: Deno.ChildProcess;
  readonly #over: Promise<void>;
  #isGone = false;
  #isTold = false;

  constructor(keeper: Deno.ChildProcess, argv: readonly string[], options: KeepOptions) {
    this.#keeper = keeper;
    this.argv = argv;
    this.options = options;
    // We need not live as long as it does.
    keeper.unref();
    this.#over = keeper.status.then(() => {}, () => {}).then(() => void (this.#isGone = true));
  }

  /** Starts it; what was there when it was made ready may be gone. */
  async begin(): Promise<KeptStart> {
    const refusal = whyNot(this.argv, this.options);
    if (refusal === undefined) return await this.go();
    await this[Symbol.asyncDispose]();
    return { started: false, message: refusal };
  }

  /** Starts it, as it is. */
  async go(): Promise<KeptStart> {
    const { argv, options: { folder } } = this;
    using held = new DisposableStack();
    try {
      const watch = held.use(new FolderWatch(folder));
      void this.#over.then(() => watch.wake());
      await this.#tell(`${GO}\n`);
      while (true) {
        const changed = watch.changed();
        // In this order: a command may begin and end while we look.
        const isOver = this.#isGone || hasEnded(folder);
        if (exists(join(folder, "begun"))) break;
        if (isOver) return { started: false, message: await whyNotBegun(argv, folder, watch) };
        await changed;
      }
      const command = commandIn(folder, OUTPUT_START, watch);
      if (command !== undefined) {
        held.move(); // The watch is the command's now.
        return { started: true, command };
      }
      throw new Error(`there is nothing in ${join(folder, "command")}`);
    } catch (error) {
      return { started: false, message: `Cannot start ${argv[0]}: ${messageOf(error)}` };
    }
  }

  async #tell(word: string): Promise<void> {
    this.#isTold = true;
    const writer = this.#keeper.stdin.getWriter();
    // Whoever does not hear it has ended, and why is to be found in the folder.
    if (word !== "") await writer.write(new TextEncoder().encode(word)).catch(() => {});
    await writer.close().catch(() => {});
  }

  /** Ends it, unless it has been told to begin. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#isTold) return;
    await this.#tell("");
    // Who waits for the end of a job does not wait for what hangs in the kernel.
    await within(this.#over, { clock: systemClock, ms: WORDS_MS });
  }
}

/** Which awk keeps commands, and how it shows a death by signal 9. */
interface Awk {
  program: string;
  /** Empty where there is no answer: the keeper then asks itself. */
  shown: string;
}

/**
 * The awk that starts the fastest, and what its `system()` makes of a death by signal 9: asked once for all
 * commands that find the same awk, since dying takes longer than the rest of starting a keeper. The
 * arguments decide which awk it is, and how that behaves.
 */
const awkFor = once((PATH: string | undefined, POSIXLY_CORRECT: string | undefined): Promise<Awk> =>
  new Deno.Command("/bin/sh", {
    args: ["-c", ASK_AWK],
    env: { PATH: PATH ?? "", ...(POSIXLY_CORRECT !== undefined && { POSIXLY_CORRECT }) },
    clearEnv: true,
    stdin: "null",
    stderr: "null",
  }).output().then(({ stdout }) => {
    const [program = "", shown = ""] = new TextDecoder().decode(stdout).split("\n");
    return { program: program || "awk", shown };
  }, () => ({ program: "awk", shown: "" }))
);

/** gawk, which may be the host's awk, takes twice as long to start. */
const ASK_AWK = `command -v mawk >/dev/null && awk=mawk || awk=awk
echo "$awk"
exec "$awk" 'BEGIN { print system("kill -9 $$") }'`;

function makeFolder(folder: string, token: string): void {
  Deno.mkdirSync(folder, { mode: 0o700 });
  const make = (name: string, text: string) =>
    Deno.writeTextFileSync(join(folder, name), text, { createNew: true, mode: 0o600 });
  for (const name of ROOMS) make(name, " ".repeat(ROOM_BYTES));
  // The last one: the folder is complete.
  make("end", token);
}

/** Why there is no command, though nothing spoke against it. */
async function whyNotBegun(
  argv: readonly string[],
  folder: string,
  watch: FolderWatch,
): Promise<string> {
  // What a shell has said of it may still be on its way to the disk, unless that is full.
  const patience = AbortSignal.timeout(WORDS_MS);
  while (!exists(join(folder, "eof")) && !patience.aborted) await watch.changed();
  const said = await Deno.readTextFile(join(folder, "output.0")).catch(() => "");
  const reason = said.split("\n")[0] || "its keeper could not be started, or was killed";
  return `Cannot start ${argv[0]}: ${reason}`;
}
