/** How a text looks inside JSON, in base64, and in URLs: what the usual encoders make of it. */

/** Inside a JSON string, by the encoders that are met most, and inside of JSON that is a string in JSON. */
export function commonJsonForms(text: string): Set<string> {
  const ascii = jsonEncoder({ isAscii: true, escaped: "", slash: "/", isUpper: false });
  const plain = jsonEncoder({ isAscii: false, escaped: "", slash: "/", isUpper: false });
  return new Set([plain(text), ascii(text), plain(plain(text)), plain(ascii(text))]);
}

/** The same by every usual encoder. */
export function allJsonForms(text: string): Set<string> {
  const encoders = [...jsonEncodersFor(text)];
  const once = encoders.map((encode) => encode(text));
  const [plainest = text] = once;
  return new Set([
    ...once,
    // By the same encoder twice, and by any one around the plainest.
    ...encoders.map((encode, i) => encode(once[i] ?? text)),
    ...encoders.map((encode) => encode(plainest)),
  ]);
}

type Encoder = (text: string) => string;

const SHORT_ESCAPES: Record<string, string> = {
  '"': '\\"',
  "\\": "\\\\",
  "\b": "\\b",
  "\f": "\\f",
  "\n": "\\n",
  "\r": "\\r",
  "\t": "\\t",
};

/** What encoders differ in, as far as it matters to a text. The first one is JavaScript's. */
function* jsonEncodersFor(text: string): Generator<Encoder> {
  const either = [false, true];
  // Python, and others that write ASCII only
  const ascii = /[^\0-~]/.test(text) ? either : [false];
  // None; Go's, and PHP's with JSON_HEX_TAG and JSON_HEX_AMP; those of .NET's System.Text.Json
  const beside = /[<>&'"+`\u2028\u2029]/.test(text) ? ["", "<>&", "<>&'\"+`"] : [""];
  // PHP, and Ruby's script_safe
  const slashes = text.includes("/") ? ["/", "\\/"] : ["/"];
  // Go before 1.22 knows no short escape for these.
  const long = /[\b\f]/.test(text) ? ["", "\b\f"] : [""];
  const upper = /[^ !#-%(-*,-;=?-[\]-_a-~]/.test(text) ? either : [false];
  for (const isAscii of ascii) {
    for (const isUpper of upper) {
      for (const slash of slashes) {
        for (const escaped of beside.flatMap((some) => long.map((more) => some + more))) {
          yield jsonEncoder({ isAscii, escaped, slash, isUpper });
        }
      }
    }
  }
}

function jsonEncoder(
  { isAscii, escaped, slash, isUpper }: {
    isAscii: boolean;
    escaped: string;
    slash: string;
    isUpper: boolean;
  },
): Encoder {
  const hex = (unit: string) => {
    const digits = unit.charCodeAt(0).toString(16).padStart(4, "0");
    return `\\u${isUpper ? digits.toUpperCase() : digits}`;
  };
  return (text) =>
    // By code units, as surrogates are escaped one by one.
    text.replaceAll(/[^ !#-.0-[\]-~]|[<>&'+`]/g, (unit) => {
      if (unit === "/") return slash;
      if (escaped.includes(unit)) return hex(unit);
      const short = SHORT_ESCAPES[unit];
      if (short !== undefined) return short;
      const isPlain = unit >= " " && (unit < "\x7f" || !isAscii);
      // JSON.stringify() leaves U+2028 as it is, Go does not.
      const isSeparator = (unit === "\u2028" || unit === "\u2029") && escaped.includes("<");
      return isPlain && !isSeparator ? unit : hex(unit);
    });
}

/**
 * The base64 characters that `bytes` alone determines when other bytes may be before and behind
 * them, in the standard and the URL-safe alphabet. Each character stands for 6 bits.
 */
export function base64Forms(bytes: Uint8Array): Set<string> {
  const forms = new Set<string>();
  for (const before of [0, 1, 2]) {
    for (const alphabet of ["base64", "base64url"] as const) {
      forms.add(base64Of(bytes, before, alphabet));
    }
  }
  return forms;
}

function base64Of(bytes: Uint8Array, before: number, alphabet: "base64" | "base64url"): string {
  const first = Math.ceil(8 * before / 6);
  const end = Math.floor(8 * (before + bytes.byteLength) / 6);
  return Buffer.concat([Buffer.alloc(before), bytes]).toString(alphabet).slice(first, end);
}

/** Columns of base64 in lines: `base64`, Python and MIME; PEM and `openssl base64`. */
const COLUMNS = [76, 64] as const;
const LINE_ENDS = ["\n", "\r\n"];

/**
 * The same in lines.
 *
 * @param anywhere whether any bytes may be before it; else it begins a line.
 */
export function wrappedBase64Forms(bytes: Uint8Array, anywhere: boolean): Set<string> {
  const forms = new Set<string>();
  for (const columns of COLUMNS) {
    const lineBytes = columns / 4 * 3;
    // Where a short value does not reach the end of its line, it is not broken.
    const places = anywhere ? lineBytes : 1;
    for (let before = Math.max(0, places - bytes.length - 3); before < places; before++) {
      const characters = base64Of(bytes, before, "base64");
      // How much of it is on the line on which it begins.
      const first = columns - Math.ceil(8 * before / 6);
      if (characters.length <= first) continue;
      const lines = [characters.slice(0, first)];
      for (let at = first; at < characters.length; at += columns) {
        lines.push(characters.slice(at, at + columns));
      }
      for (const lineEnd of LINE_ENDS) forms.add(lines.filter((line) => line !== "").join(lineEnd));
    }
  }
  return forms;
}

/** An upper limit for the characters of all `wrappedBase64Forms()` of so many bytes, anywhere. */
export function wrappedBase64Size(bytes: number): number {
  // Of a short value, no more places differ than it has bytes.
  const places = COLUMNS.map((columns) => Math.min(columns / 4 * 3, bytes + 3));
  const most = Math.ceil(bytes * 4 / 3 * (1 + LINE_ENDS.length / 64)) + 4;
  return places.reduce((sum, count) => sum + count) * LINE_ENDS.length * most;
}

/** Not escaped in URLs by anyone. */
const PLAIN = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.";
/** encodeURIComponent(): what it leaves as it is, and whether it writes a space as `+`. */
const JAVASCRIPT = { plain: `${PLAIN}~!'()*`, plus: false };
/** application/x-www-form-urlencoded as in WHATWG's URL */
const FORM = { plain: `${PLAIN}*`, plus: true };
const URL_ENCODERS: readonly { plain: string; plus: boolean }[] = [
  JAVASCRIPT,
  // RFC 3986; curl --data-urlencode, jq @uri, Python's quote(safe="")
  { plain: `${PLAIN}~`, plus: false },
  // Python's quote()
  { plain: `${PLAIN}~/`, plus: false },
  FORM,
  // Python's quote_plus() and urlencode()
  { plain: `${PLAIN}~`, plus: true },
];

/** In a URL, by `encodeURIComponent()` and in a form: the encoders that are met most. */
export function commonUrlForms(bytes: Uint8Array): Set<string> {
  return new Set([urlForm(bytes, JAVASCRIPT, true), urlForm(bytes, FORM, true)]);
}

/** In a URL, by every usual encoder. */
export function allUrlForms(bytes: Uint8Array): Set<string> {
  return new Set(
    URL_ENCODERS.flatMap((encoder) => [
      urlForm(bytes, encoder, true),
      urlForm(bytes, encoder, false),
    ]),
  );
}

function urlForm(
  bytes: Uint8Array,
  { plain, plus }: { plain: string; plus: boolean },
  isUpper: boolean,
): string {
  return Array.from(bytes, (byte) => {
    const character = String.fromCharCode(byte);
    if (plus && character === " ") return "+";
    if (plain.includes(character)) return character;
    const hex = byte.toString(16).padStart(2, "0");
    return `%${isUpper ? hex.toUpperCase() : hex}`;
  }).join("");
}
