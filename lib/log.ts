/** Facts that go with a log line, by name. Never a secret. */
export type LogFields = Record<string, string | number | boolean | undefined>;

/**
 * Where a part of the agent says what happens. One event, one line; the message is a plain
 * sentence, the key facts are fields.
 */
export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warning(message: string, fields?: LogFields): void;
  /** Something that a person must look at: the message says what to do. */
  error(message: string, fields?: LogFields): void;
}
