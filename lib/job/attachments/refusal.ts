/** Longest piece of a name from an archive that a message shows, in characters. */
const SHOWN_NAME_CHARS = 120;

/**
 * What a name could do to a terminal or a log line: control characters beyond those that
 * JSON.stringify() escapes, line separators, and marks that reverse the reading direction.
 */
const UNPRINTABLE = /[\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/**
 * Whose fault it is that nothing was unpacked.
 *
 * - `archive`: what is in it; trying again cannot help
 * - `source`: the bytes stopped coming (network); fetching it again may help
 * - `disk`: the folder or the disk under it
 * - `stopped`: the caller's signal
 */
export type RefusalKind = "archive" | "source" | "disk" | "stopped";

/** What a {@linkcode Refusal} may say beyond its reason. */
interface RefusalOptions extends ErrorOptions {
  /** The member whose fault it is, where the reason names it. */
  member?: string;
}

/** Why an archive is not unpacked; the message is one line for a log. */
export class Refusal extends Error {
  readonly kind: RefusalKind;
  readonly member: string | undefined;

  constructor(kind: RefusalKind, reason: string, options: RefusalOptions = {}) {
    super(reason, options);
    this.kind = kind;
    this.member = options.member;
  }
}

/** A refusal for one member of the archive, by default for what it is. */
export function refuseMember(
  name: string,
  why: string,
  { kind = "archive", cause }: { kind?: RefusalKind; cause?: unknown } = {},
): Refusal {
  return new Refusal(kind, `${quoteName(name)}: ${why}`, { member: name, cause });
}

/** A name from an archive as it can be shown on one line, whatever is in it. */
export function quoteName(name: string): string {
  const shown = name.length > SHOWN_NAME_CHARS ? `${name.slice(0, SHOWN_NAME_CHARS)}...` : name;
  return JSON.stringify(shown).replace(
    UNPRINTABLE,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
