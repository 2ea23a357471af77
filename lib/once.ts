/** What happens once: a fact is found out, a thing is said. */

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

/** What has been said, so that it is said once and not at each try. */
export class Said {
  readonly #said = new Map<string, string>();

  /**
   * Whether these words are new: nothing, or something else, was said of the matter before.
   *
   * @param words what is said now. @default the matter has no more than one thing to say
   */
  isNew(matter: string, words = ""): boolean {
    if (this.#said.get(matter) === words) return false;
    this.#said.set(matter, words);
    return true;
  }

  /** The matter is over, and new the next time. @returns whether anything was said of it. */
  forget(matter: string): boolean {
    return this.#said.delete(matter);
  }
}
