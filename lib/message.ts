/** What an error says, on one line. */
export function messageOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return withoutAdvice(text.replaceAll(/\s+/g, " "));
}

/** Some folders of the system the runtime opens to no program without all rights; its advice is no help. */
export function withoutAdvice(text: string): string {
  return text.replace(
    /\bRequires all access to .*, run again with the --allow-all flag/,
    "what is below /dev, /proc and /sys is closed to this program",
  );
}

/**
 * Why a request came to nothing, on one line. What `fetch` throws says "fetch failed"; what happened is
 * said by its cause, in the last part: what is before it repeats the URL, passwords included.
 */
export function requestMessageOf(error: unknown): string {
  return error instanceof Error && error.cause instanceof Error
    ? requestMessageOf(error.cause)
    : messageOf(error).replace(/^.*?client error \(\w+\): /, "");
}
