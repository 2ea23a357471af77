/**
 * Finds many byte strings at once in time that is linear in the text, whatever the text: an
 * Aho-Corasick automaton (Aho and Corasick, 1975, doi:10.1145/360825.360855), kept small enough for
 * strings of many KiB. States are numbered depth first, so that the only child of a state is the next
 * number: that is all that is stored for the long tails. States with several children, which are
 * fewer than strings, have a table of where each byte leads to. From the others, a byte that does
 * not fit leads to the longest end of what has been seen that begins one of the strings too.
 */
export interface Automaton {
  /** The byte that leads to the next number, or `LEAF`, or `TABLE` + number of the state's table. */
  readonly kind: Int32Array;
  /** 256 entries for each table: where the byte leads to. */
  readonly tables: Int32Array;
  /** Where to go on when the byte does not fit (states without a table only). */
  readonly retry: Int32Array;
  /** The longest end of the state that is a state too. */
  readonly fail: Int32Array;
  /** Length of the state: as many bytes have been seen of a string. */
  readonly depth: Int32Array;
  /** Index of the longest string that ends here; -1: none. */
  readonly found: Int32Array;
}

export const LEAF = 256;
export const TABLE = 257;

/** Builds the automaton of strings that are not empty, and no two the same. */
export function buildAutomaton(strings: readonly Uint8Array[]): Automaton {
  const sorted = strings.map((bytes, index) => ({ bytes, index }))
    .sort((a, b) => compare(a.bytes, b.bytes));

  // 1. States, depth first: in sorted order, a string shares its beginning with the one before.
  const most = 1 + strings.reduce((sum, bytes) => sum + bytes.byteLength, 0);
  const parent = new Int32Array(most);
  const byteOf = new Uint8Array(most);
  const depth = new Int32Array(most);
  const found = new Int32Array(most).fill(-1);
  const children = new Int32Array(most);
  let states = 1;
  let path = [0];
  let previous: Uint8Array = new Uint8Array();
  for (const { bytes, index } of sorted) {
    const shared = sharedLength(previous, bytes);
    path = path.slice(0, shared + 1);
    for (let i = shared; i < bytes.byteLength; i++) {
      const from = path[i]!;
      children[from]! += 1;
      parent[states] = from;
      byteOf[states] = bytes[i]!;
      depth[states] = i + 1;
      path.push(states++);
    }
    found[path[bytes.byteLength]!] = index;
    previous = bytes;
  }

  // 2. Where each state leads to. The root always has a table, so that every search ends there.
  const kind = new Int32Array(states).fill(LEAF);
  let tableCount = 0;
  for (let state = 0; state < states; state++) {
    if (children[state]! > 1 || state === 0) kind[state] = TABLE + tableCount++;
    else if (children[state] === 1) kind[state] = byteOf[state + 1]!;
  }
  const tables = new Int32Array(tableCount * 256);
  for (let state = 1; state < states; state++) {
    const table = kind[parent[state]!]! - TABLE;
    if (table >= 0) tables[table * 256 + byteOf[state]!] = state;
  }
  const childOf = (state: number, byte: number): number => {
    const what = kind[state]!;
    if (what === byte) return state + 1;
    return what >= TABLE ? tables[(what - TABLE) * 256 + byte]! : 0;
  };

  // 3. What to fall back to: shorter states first, as longer ones need theirs.
  const fail = new Int32Array(states);
  const retry = new Int32Array(states);
  const shortestFirst = byDepth(depth.subarray(0, states));
  for (const state of shortestFirst) {
    if (state > 0) {
      const byte = byteOf[state]!;
      if (parent[state] !== 0) {
        let end = fail[parent[state]!]!;
        while (end !== 0 && childOf(end, byte) === 0) end = fail[end]!;
        fail[state] = childOf(end, byte);
      }
      if (found[state]! < 0) found[state] = found[fail[state]!]!;
    }
    // Falling back to a state that wants the same byte is in vain.
    const end = fail[state]!;
    retry[state] = kind[state] === kind[end] && kind[state]! < LEAF ? retry[end]! : end;
  }
  // Tables know the way at once, without falling back.
  const automaton: Automaton = { kind, tables, retry, fail, depth, found };
  for (const state of shortestFirst) {
    const table = kind[state]! - TABLE;
    if (table < 0 || state === 0) continue;
    for (let byte = 0; byte < 256; byte++) {
      const at = table * 256 + byte;
      if (tables[at] === 0) tables[at] = next(automaton, fail[state]!, byte);
    }
  }
  return automaton;
}

/** The state after one more byte. */
export function next({ kind, tables, retry }: Automaton, from: number, byte: number): number {
  let state = from;
  while (true) {
    const what = kind[state]!;
    if (what === byte) return state + 1;
    if (what >= TABLE) return tables[(what - TABLE) * 256 + byte]!;
    state = retry[state]!;
  }
}

/** All states, shorter ones first. */
function byDepth(depth: Int32Array): Int32Array {
  const deepest = depth.reduce((most, one) => Math.max(most, one), 0);
  const start = new Int32Array(deepest + 2);
  for (const one of depth) start[one + 1]! += 1;
  for (let i = 1; i < start.length; i++) start[i]! += start[i - 1]!;
  const order = new Int32Array(depth.length);
  for (let state = 0; state < depth.length; state++) {
    const at = start[depth[state]!]!;
    order[at] = state;
    start[depth[state]!] = at + 1;
  }
  return order;
}

function compare(a: Uint8Array, b: Uint8Array): number {
  const shared = sharedLength(a, b);
  return (a[shared] ?? -1) - (b[shared] ?? -1);
}

function sharedLength(a: Uint8Array, b: Uint8Array): number {
  const most = Math.min(a.byteLength, b.byteLength);
  let length = 0;
  while (length < most && a[length] === b[length]) length++;
  return length;
}
