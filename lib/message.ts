/** What an error says, on one line. */
export function messageOf(error: unknown): string {
  return (error instanceof Error ? error.message : String(error)).replaceAll(/\s+/g, " ");
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
