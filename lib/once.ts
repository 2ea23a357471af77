/**
 * A fact that does not change while the process lives: found out when it is first asked for, and not again.
 * A failure is not kept.
 */
export function once<Fact>(find: () => Promise<Fact>): () => Promise<Fact> {
  let found: Promise<Fact> | undefined;
  return () =>
    found ??= find().catch((error) => {
      found = undefined;
      throw error;
    });
}
