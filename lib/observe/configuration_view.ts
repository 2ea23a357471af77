/** The configuration as the status page shows it: nothing in it that may be a secret. */

/** One line of the table. */
export interface Setting {
  key: string;
  value: string;
  /** The file says so; else it is the default. */
  isSet: boolean;
}

/** What may hold a password: names are enough to hide a value, the value is not looked at. */
const SECRET_NAME = /pass|pw\b|secret|token|credential|api_?key|private/i;

const REMOVED = "(removed)";

/**
 * The settings, those that differ from the default first, without `undefined` ones. A command shows its program only,
 * since its arguments may hold anything; an address loses user and password; of nested settings
 * (advertised images hold provision data) the names are shown.
 */
export function viewConfiguration(
  configuration: Record<string, unknown>,
  defaults: Record<string, unknown> = {},
): Setting[] {
  const all = Object.entries(configuration)
    .filter(([, value]) => value !== undefined && value !== null)
    .map(([key, value]) => ({
      key,
      value: viewValue(key, value),
      isSet: IDENTITY.includes(key) || JSON.stringify(value) !== JSON.stringify(defaults[key]),
    }));
  return [...all.filter(({ isSet }) => isSet), ...all.filter(({ isSet }) => !isSet)];
}

/** There is no default of these. */
const IDENTITY = ["agent_id", "server_address", "job_queues"];

function viewValue(key: string, value: unknown): string {
  if (SECRET_NAME.test(key)) return REMOVED;
  if (key.endsWith("_command")) return viewCommand(String(value));
  if (Array.isArray(value)) {
    return value.map((item) => typeof item === "object" ? "..." : withoutUserinfo(String(item)))
      .join(", ");
  }
  if (typeof value === "object" && value !== null) return Object.keys(value).join(", ");
  return withoutUserinfo(String(value));
}

function viewCommand(command: string): string {
  const [program = "", ...rest] = command.trim().split(/\s+/);
  if (program === "") return "";
  // Anything else than a plain name may be an assignment, a quoted word, a here document ...
  if (!/^[\w./+-]+$/.test(program)) return "(set)";
  return rest.length > 0 ? `${program} ...` : program;
}

/** `http://user:password@host/` as `http://host/`. */
export function withoutUserinfo(text: string): string {
  return text.replaceAll(/\b([a-z][a-z0-9+.-]*:\/\/)[^/?#\s]*@/gi, "$1");
}
