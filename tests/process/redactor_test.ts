import { assert, assertEquals } from "@std/assert";
import { maskOf } from "../../lib/process/patterns.ts";
import { compileSecrets, type RedactorStream } from "../../lib/process/redactor.ts";
import { redactor } from "../fuzz/redactor.ts";
import { tryTarget } from "../fuzz/target.ts";
import { joined } from "./support.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();

function throughStream(secrets: readonly string[], chunks: readonly Uint8Array[]): string {
  const stream = compileSecrets(secrets).stream();
  const parts = chunks.map((chunk) => stream.push(chunk));
  return decoder.decode(joined([...parts, stream.flush()]));
}

function say(stream: RedactorStream, text: string): string {
  return decoder.decode(stream.push(encoder.encode(text)));
}

Deno.test("a secret is replaced by the beginning of its SHA-256", () => {
  // printf hunter2 | sha256sum
  assertEquals(
    compileSecrets(["hunter2"]).redactText("password=hunter2;"),
    "password=**f52fbd**;",
  );
});

Deno.test("without secrets nothing changes", () => {
  for (const secrets of [compileSecrets([]), compileSecrets(["", "abc\n"])]) {
    assert(secrets.isEmpty);
    assertEquals(secrets.redactText("as it was"), "as it was");
    assertEquals(say(secrets.stream(), "as it was"), "as it was");
  }
  assert(!compileSecrets(["abcd"]).isEmpty);
});

Deno.test("a secret that is the beginning of another one gives way to it", () => {
  const { redactText } = bound(["hunter", "hunter2"]);
  assertEquals(redactText("hunter2 hunter3"), `${maskOf("hunter2")} ${maskOf("hunter")}3`);
});

Deno.test("of overlapping secrets the leftmost is masked, and the search goes on behind it", () => {
  const { redactText } = bound(["abcd", "bcdefghi", "efgh"]);
  assertEquals(redactText("abcdefghi"), `${maskOf("abcd")}${maskOf("efgh")}i`);
});

Deno.test("secrets that follow one another are masked one by one", () => {
  const { redactText } = bound(["tokentoken"]);
  assertEquals(redactText("tokentoken".repeat(3)), maskOf("tokentoken").repeat(3));
});

Deno.test("characters of regular expressions in a secret are just characters", () => {
  const { redactText } = bound(["ab.*", "a[b("]);
  assertEquals(redactText("abcd ab.* a[b("), `abcd ${maskOf("ab.*")} ${maskOf("a[b(")}`);
});

Deno.test("a secret that is split over many reads is masked", () => {
  const bytes = encoder.encode("x hunter2 y");
  assertEquals(
    throughStream(["hunter2"], [...bytes].map((byte) => Uint8Array.of(byte))),
    `x ${maskOf("hunter2")} y`,
  );
});

Deno.test("only what may be the beginning of a secret is held back", () => {
  const stream = compileSecrets(["hunter2", "terse"]).stream();
  assertEquals(say(stream, "who is hunter"), "who is ");
  assertEquals(stream.held, 6);
  assertEquals(say(stream, "s"), "hun");
  assertEquals(stream.held, 4);
  assertEquals(say(stream, "?\n"), "ters?\n");
  assertEquals(stream.held, 0);
});

Deno.test("what was held back comes out at the end", () => {
  const stream = compileSecrets(["hunter2"]).stream();
  say(stream, "hunter");
  assertEquals(decoder.decode(stream.flush()), "hunter");
  assertEquals(stream.held, 0);
  assertEquals(say(stream, "2"), "2");
});

Deno.test("a secret that may yet become a longer one is held back, and masked at the end", () => {
  const stream = compileSecrets(["hunter", "hunter2"]).stream();
  assertEquals(say(stream, "hunter"), "");
  assertEquals(decoder.decode(stream.flush()), maskOf("hunter"));
});

Deno.test("a secret that cannot become a longer one is masked at once", () => {
  const stream = compileSecrets(["hunter2", "2nd secret"]).stream();
  assertEquals(say(stream, "hunter2"), maskOf("hunter2"));
  assertEquals(stream.held, 0);
});

Deno.test("never more than the longest secret is held back", () => {
  const secret = "a".repeat(4096) + "b";
  const stream = compileSecrets([secret]).stream();
  let out = 0;
  for (let i = 0; i < 20; i++) {
    out += stream.push(encoder.encode("a".repeat(1000))).length;
    assert(stream.held < secret.length);
  }
  assertEquals(out + stream.flush().length, 20_000);
});

Deno.test("a secret of several lines is masked with either kind of line end", () => {
  const key = "-----BEGIN KEY-----\nMIIEow\nIBAAKC\n-----END KEY-----\n";
  const { redactText } = bound([key]);
  const mask = maskOf(key);
  assertEquals(redactText(`${key}.`), `${mask}.`);
  assertEquals(redactText(`${key.replaceAll("\n", "\r\n")}.`), `${mask}.`);
  assertEquals(redactText(`${key.trimEnd()}.`), `${mask}.`, "without the last newline");
  assertEquals(redactText(`${key.trimEnd().replaceAll("\n", " ")}.`), `${mask}.`, "echo $KEY");
  assertEquals(redactText(JSON.stringify({ key })), `{"key":"${mask}"}`);
  assertEquals(redactText("-----BEGIN KEY-----\nMIIEow\n"), `${mask}\nMIIEow\n`, "single lines");
});

Deno.test("a secret in base64 is masked wherever it begins", () => {
  const secret = "sw0rdf1sh?~ÿ";
  const { redactText } = bound([secret]);
  for (const before of ["", "x", "xy", "user:", "a\u{1f98e}"]) {
    for (const after of ["", "z", "zz", "zzz"]) {
      const plain = encoder.encode(before + secret + after);
      for (const alphabet of ["base64", "base64url"] as const) {
        const encoded = plain.toBase64({ alphabet, omitPadding: true });
        const masked = redactText(encoded);
        // Left is what the bytes around have a part in.
        const left = masked.split(maskOf(secret));
        assertEquals(left.length, 2, `${before} ${after}: ${masked}`);
        const around = encoder.encode(before).length + encoder.encode(after).length;
        assert(left.join("").length <= Math.ceil(around * 8 / 6) + 2, masked);
      }
    }
  }
});

/** A text in base64, in lines of so many characters. */
function wrapped(text: string, columns: number, lineEnd: string): string {
  return (encoder.encode(text).toBase64().match(new RegExp(`.{1,${columns}}`, "g")) ?? [])
    .join(lineEnd) + lineEnd;
}

for (const [columns, tool] of [[76, "base64 and Python"], [64, "PEM and openssl"]] as const) {
  Deno.test(`a secret in base64 in lines of ${columns} columns, as of ${tool}, is masked wherever it is`, () => {
    for (const length of [9, 20, 47, 58, 90, 300]) {
      const secret = Array.from({ length }, (_, i) => "pqrstuvwxyzPQRSTUVWXYZ"[i * 7 % 22]).join(
        "",
      );
      const { redactText } = bound([secret]);
      const mask = maskOf(secret);
      for (let before = 0; before < 60; before++) {
        for (const lineEnd of ["\n", "\r\n"]) {
          const encoded = wrapped(
            `${"-".repeat(before)}${secret}${"-".repeat(40)}`,
            columns,
            lineEnd,
          );
          const masked = redactText(encoded);
          assertEquals(masked.split(mask).length, 2, `${before} before ${length}: ${masked}`);
          // What is left has been made of what is around, and at most of one character of each end.
          const left = masked.replace(mask, "").replaceAll(lineEnd, "").replace(/=*$/, "");
          assert(left.length <= Math.ceil((before + 40) * 4 / 3) + 2, masked);
        }
      }
    }
  });
}

Deno.test("a key of several KiB in base64 in lines is masked where it begins a line", () => {
  const secret = Array.from({ length: 50 }, (_, i) => `${i}`.padStart(64, "k")).join("\n") + "\n";
  const others = Array.from({ length: 5 }, (_, i) => `${i}${secret}`);
  const { redactText } = bound([secret, ...others]);
  const [masked = "", rest] = redactText(wrapped(secret, 76, "\n")).split(/(?<=\*\*)(?!\w+\*)/);
  assertEquals(masked, maskOf(secret));
  // The last newline, which is often not printed.
  assertEquals(rest?.trim(), "Cg==");
});

Deno.test("each line of eight characters or more of a secret is masked by itself", () => {
  const secret = 'first line\n  indented: line\nshort\n\nlast "line"\n';
  const { redactText } = bound([secret]);
  const mask = maskOf(secret);
  assertEquals(
    redactText('> first line\n> indented: line\n> short\n{"x":"last \\"line\\""}'),
    `> ${mask}\n> ${mask}\n> short\n{"x":"${mask}"}`,
  );
});

Deno.test("a secret in JSON is masked, whatever wrote the JSON", () => {
  const secret = 'p<w>&/"é\u0001\u001f\b\\\u{1f98e}';
  const { redactText } = bound([secret]);
  const forms = {
    JavaScript: JSON.stringify(secret).slice(1, -1),
    Python: String.raw`p<w>&/\"\u00e9\u0001\u001f\b\\\ud83e\udd8e`,
    Go: String.raw`p\u003cw\u003e\u0026/\"é\u0001\u001f\u0008\\` + "\u{1f98e}",
    "Go 1.22": String.raw`p\u003cw\u003e\u0026/\"é\u0001\u001f\b\\` + "\u{1f98e}",
    PHP: String.raw`p<w>&\/\"\u00e9\u0001\u001f\b\\\ud83e\udd8e`,
    ".NET": String.raw`p\u003Cw\u003E\u0026/\u0022\u00E9\u0001\u001F\b\\\uD83E\uDD8E`,
  };
  for (const [what, form] of Object.entries(forms)) {
    assertEquals(redactText(`{"v":"${form}"}`), `{"v":"${maskOf(secret)}"}`, what);
    const twice = form.replaceAll("\\", "\\\\").replaceAll('"', '\\"');
    const inner = JSON.stringify(`{"v":"${form}"}`);
    assert(inner.includes(twice));
    if (what === ".NET" || what === "PHP") continue; // They escape more the second time, too.
    assertEquals(redactText(inner).split(maskOf(secret)).length, 2, `${what} in JSON`);
  }
});

Deno.test("a secret in a URL is masked", () => {
  const secret = "p/ss w*rd&~ü!";
  const { redactText } = bound([secret]);
  const mask = maskOf(secret);
  const forms = [
    encodeURIComponent(secret),
    encodeURIComponent(secret).replaceAll(/%../g, (hex) => hex.toLowerCase()),
    new URLSearchParams({ v: secret }).toString().slice(2),
    // urllib.parse.quote(secret), quote(secret, safe=""), quote_plus(secret)
    "p/ss%20w%2Ard%26~%C3%BC%21",
    "p%2Fss%20w%2Ard%26~%C3%BC%21",
    "p%2Fss+w%2Ard%26~%C3%BC%21",
  ];
  for (const form of forms) assertEquals(redactText(`?v=${form}&w=1`), `?v=${mask}&w=1`);
});

Deno.test("encoded forms so short that they would turn up by chance are left alone", () => {
  const { redactText } = bound(["abcd", "a bc"]);
  assertEquals(redactText("YWJjZA a+bc"), "YWJjZA a+bc");
  assertEquals(redactText("abcd, a bc"), `${maskOf("abcd")}, ${maskOf("a bc")}`);
});

Deno.test("a mask is not searched again", () => {
  // f52fbd begins the SHA-256 of hunter2.
  const { redactText } = bound(["hunter2", "f52fbd", "****"]);
  assertEquals(redactText("hunter2 f52fbd"), `**f52fbd** ${maskOf("f52fbd")}`);
});

Deno.test("a secret of fewer than four characters, a newline at its end not counted, is not masked", () => {
  const { redactText } = bound(["a", "éàü", "abc\n", "\n\n\n\n", "café"]);
  assertEquals(redactText("a éàü abc\n\n\n\n\n café"), `a éàü abc\n\n\n\n\n ${maskOf("café")}`);
});

Deno.test("output is handed on without a copy where there is nothing to mask", () => {
  const bytes = encoder.encode("nothing here\n");
  assert(compileSecrets(["hunter2"]).stream().push(bytes).buffer === bytes.buffer);
});

Deno.test("however output is cut, it is masked as the naive way does, and no secret is left", () =>
  tryTarget(redactor, 10_000));

/** As callers have it. */
function bound(values: readonly string[]): { redactText(text: string): string } {
  const secrets = compileSecrets(values);
  return { redactText: (text) => secrets.redactText(text) };
}
