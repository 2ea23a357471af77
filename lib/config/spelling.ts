/** Names longer than this are not compared: nobody misspells a novel. */
const LONGEST_COMPARED = 64;

/** The name that was probably meant, if one is close enough. */
export function didYouMean(written: string, names: Iterable<string>): string | undefined {
  if (written.length > LONGEST_COMPARED) return undefined;
  let best: { name: string; distance: number } | undefined;
  for (const name of names) {
    // A third of the letters: `queues` is no misspelt `quiet`, `agentid` is a misspelt `agent_id`.
    const farthest = Math.max(1, Math.floor(Math.min(name.length, written.length) / 3));
    if (Math.abs(name.length - written.length) > farthest) continue;
    const distance = editDistance(normal(written), normal(name));
    if (distance <= farthest && distance < (best?.distance ?? Infinity)) best = { name, distance };
  }
  return best?.name;
}

/** Capitals and hyphens are the commonest slips, and cost nothing. */
function normal(name: string): string {
  return name.toLowerCase().replaceAll("-", "_");
}

/** Letters to insert, remove, replace or swap with a neighbour to make one word of the other. */
function editDistance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, column) => column);
  for (let row = 1; row <= a.length; row++) {
    const current = [row];
    for (let column = 1; column <= b.length; column++) {
      const same = a[row - 1] === b[column - 1];
      let distance = Math.min(
        at(last, column) + 1,
        at(current, column - 1) + 1,
        at(last, column - 1) + (same ? 0 : 1),
      );
      const swapped = a[row - 1] === b[column - 2] && a[row - 2] === b[column - 1];
      if (swapped) distance = Math.min(distance, at(beforeLast, column - 2) + 1);
      current.push(distance);
    }
    beforeLast = last;
    last = current;
  }
  return at(last, b.length);
}

function at(row: readonly number[], column: number): number {
  return row[column] ?? Infinity;
}
