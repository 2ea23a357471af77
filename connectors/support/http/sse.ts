/** Server-sent events: the lines of a stream that does not end. */

/** One event. */
export interface ServerSentEvent {
  /** Its `data` lines, joined by newlines. */
  readonly data: string;
  /** Its `id`; empty where that is empty, undefined where it has none. */
  readonly id: string | undefined;
}

/** Longest line that is kept; of a longer one the rest is dropped. */
const LINE_MAX_CHARS = 1024 * 1024;
/** The same for an event. */
const EVENT_MAX_CHARS = 4 * LINE_MAX_CHARS;

/**
 * Reads the events of a stream, which is always UTF-8. An event that has no empty line behind it is
 * not complete, and dropped.
 */
export async function* readEvents(
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<ServerSentEvent> {
  let data: string[] = [];
  let size = 0;
  let id: string | undefined;
  for await (const line of readLines(body)) {
    if (line === "") {
      if (data.length > 0) yield { data: data.join("\n"), id };
      [data, size, id] = [[], 0, undefined];
      continue;
    }
    const colon = line.indexOf(":");
    // At 0 it is a comment.
    if (colon <= 0) continue;
    const value = line.slice(colon + 1).replace(/^ /, "");
    switch (line.slice(0, colon)) {
      case "data":
        size += value.length;
        if (size <= EVENT_MAX_CHARS) data.push(value);
        break;
      case "id":
        id = value;
        break;
    }
  }
}

/** Lines that end with CR, LF or both; what has no end is no line. */
async function* readLines(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = "";
  let afterReturn = false;
  for await (const bytes of body) {
    let text = decoder.decode(bytes, { stream: true });
    if (text === "") continue;
    // The other half of a CR LF that was cut in two.
    if (afterReturn && text.startsWith("\n")) text = text.slice(1);
    afterReturn = text.endsWith("\r");
    const lines = (rest + text).split(/\r\n|\r|\n/);
    rest = (lines.pop() ?? "").slice(0, LINE_MAX_CHARS);
    for (const line of lines) yield line.slice(0, LINE_MAX_CHARS);
  }
}
