/**
 * Facts that do not change while the process lives: each is found out when it is first asked for, and not
 * again. A failure is not kept.
 *
 * @param find finds out the fact for its arguments.
 */
export function once<Args extends (string | undefined)[], Fact>(
  find: (...args: Args) => Promise<Fact>,
): (...args: Args) => Promise<Fact> {
  const found = new Map<string, Promise<Fact>>();
  return (...args) => {
    const key = JSON.stringify(args);
    const known = found.get(key) ?? find(...args).catch((error) => {
      found.delete(key);
      throw error;
    });
    found.set(key, known);
    return known;
  };
}
