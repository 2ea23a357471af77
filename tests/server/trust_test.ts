import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Answer } from "../../lib/server/api.ts";
import type { AgentRecord } from "../../lib/server/schema.ts";
import type { LogLine } from "../support/recording_log.ts";
import { failed, json, serveRaw, succeeded, write } from "./support/http.ts";

interface Outcome {
  answer: Answer<AgentRecord | null>;
  log: LogLine[];
}

const UNSET = ["SSL_CERT_FILE", "DENO_CERT", "DENO_TLS_CA_STORE", "ALL_PROXY", "NO_PROXY"]
  .flatMap((name) => [name, name.toLowerCase()]);

/** Makes one call in a process whose environment has just these variables of that kind. */
async function call(
  address: string,
  env: Record<string, string>,
  what: "agent" | "artifact" = "agent",
): Promise<Outcome> {
  const inherited = Object.fromEntries(
    Object.entries(Deno.env.toObject()).filter(([name]) =>
      !UNSET.includes(name) && !/^https?_proxy$/i.test(name)
    ),
  );
  const script = new URL("./support/one_call.ts", import.meta.url);
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "run",
      "--no-check",
      "--allow-net",
      "--allow-env",
      "--allow-read",
      // For the certificates that node:https trusts.
      "--allow-sys",
      script.pathname,
      address,
      what,
    ],
    clearEnv: true,
    // Now and then the runtime asks for news of itself, through the same proxy.
    env: { ...inherited, DENO_NO_UPDATE_CHECK: "1", ...env },
  }).output();
  const text = new TextDecoder().decode(stdout);
  if (text === "") throw new Error(new TextDecoder().decode(stderr));
  return JSON.parse(text);
}

interface Authority {
  folder: string;
  certificate: string;
}

/** Runs a test with an HTTPS server whose certificate an authority of our own has signed. */
async function withAuthority(
  run: (address: string, authority: Authority, seen: Request[]) => Promise<void>,
  reply: (request: Request) => Response = () => json({ name: "rpi4-01" }),
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const openssl = async (...args: string[]) => {
      const { success, stderr } = await new Deno.Command("openssl", { args, cwd: folder }).output();
      if (!success) throw new Error(new TextDecoder().decode(stderr));
    };
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    await Deno.writeTextFile(`${folder}/names`, "subjectAltName=DNS:localhost\n");
    await openssl(
      ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=Lab authority"],
      ...["-addext", "basicConstraints=critical,CA:TRUE", "-keyout", "ca.key", "-out", "ca.crt"],
    );
    await openssl(
      ...["req", ...key, "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"],
    );
    await openssl(
      ...["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key"],
      ...["-CAcreateserial", "-days", "2", "-extfile", "names", "-out", "server.crt"],
    );
    const seen: Request[] = [];
    const server = Deno.serve({
      port: 0,
      hostname: "127.0.0.1",
      cert: await Deno.readTextFile(`${folder}/server.crt`),
      key: await Deno.readTextFile(`${folder}/server.key`),
      onListen() {},
    }, async (request) => {
      seen.push(request);
      await request.arrayBuffer();
      return reply(request);
    });
    const certificate = `${folder}/ca.crt`;
    await run(`https://localhost:${server.addr.port}`, { folder, certificate }, seen);
    await server.shutdown();
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("a certificate of the lab's own authority is accepted when SSL_CERT_FILE or DENO_CERT names it", () =>
  withAuthority(async (address, { folder, certificate }) => {
    // Several in one file, with words between them, as in a system's bundle.
    const bundle = `${folder}/bundle.pem`;
    const pem = await Deno.readTextFile(certificate);
    const other = await Deno.readTextFile(`${folder}/server.crt`);
    await Deno.writeTextFile(bundle, `# another\n${other}\n# Lab authority\n${pem}`);
    for (const env of [{ SSL_CERT_FILE: bundle }, { DENO_CERT: certificate }]) {
      const { answer, log } = await call(address, env);
      assertEquals(succeeded(answer)?.name, "rpi4-01");
      assertEquals(log, []);
    }
  }));

Deno.test("an unknown certificate is refused with what to do, and no variable switches that off", () =>
  withAuthority(async (address, _, seen) => {
    for (
      const env of [{}, {
        NODE_TLS_REJECT_UNAUTHORIZED: "0",
        DENO_TLS_NO_VERIFY: "1",
        PYTHONHTTPSVERIFY: "0",
      }]
    ) {
      const failure = failed((await call(address, env)).answer);
      assertEquals(failure.kind, "unreachable");
      assertStringIncludes(failure.message, "UnknownIssuer");
      assertStringIncludes(failure.message, "SSL_CERT_FILE");
    }
    assertEquals(seen.length, 0);
  }));

Deno.test("an artifact that has to announce its length is sent with the same trust", () =>
  withAuthority(
    async (address, { certificate }, seen) => {
      for (const env of [{ SSL_CERT_FILE: certificate }, { DENO_CERT: certificate }]) {
        succeeded((await call(address, env, "artifact")).answer);
        const last = seen.at(-1);
        assert(Number(last?.headers.get("content-length")) > 0);
      }
    },
    (request) =>
      request.headers.has("content-length") ? json({}) : new Response(null, { status: 411 }),
  ));

Deno.test("a file that SSL_CERT_FILE names and that cannot serve is one clear line", async () => {
  const empty = await Deno.makeTempFile();
  await using server = serveRaw((connection) => Promise.resolve(connection.close()));
  for (const [file, words] of [["/nowhere/ca.pem", "Cannot read"], [empty, "no certificate in"]]) {
    const { log } = await call(server.address, { SSL_CERT_FILE: file ?? "" });
    assertEquals(log.map(({ level }) => level), ["error"]);
    assertStringIncludes(log[0]?.message ?? "", words ?? "");
    assertStringIncludes(log[0]?.message ?? "", "SSL_CERT_FILE");
  }
  await Deno.remove(empty);
});

/** A proxy that notes what it is asked for and answers itself. */
function proxy() {
  const asked: string[] = [];
  const server = serveRaw(async (connection, request) => {
    const [line = "", ...headers] = request.split("\r\n");
    asked.push(line);
    const chunked = headers.some((header) => /^transfer-encoding: chunked/i.test(header));
    const status = chunked ? "411 Length Required" : "200 OK";
    await write(
      connection,
      `HTTP/1.1 ${status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}`,
    );
    connection.closeWrite();
  });
  return Object.assign(server, { asked });
}

Deno.test("requests go through the proxy of the environment, but to no host that NO_PROXY names", async () => {
  await using server = proxy();
  const target = "http://testflinger.invalid";
  const path = "/v1/agents/data/rpi4-01";
  succeeded((await call(target, { HTTP_PROXY: server.address })).answer);
  assertEquals(server.asked.splice(0), [`GET ${target}${path} HTTP/1.1`]);

  const env = { HTTP_PROXY: server.address, NO_PROXY: "testflinger.invalid" };
  assertEquals(failed((await call(target, env)).answer).kind, "unreachable");
  assertEquals(server.asked, []);

  const secure = await call("https://testflinger.invalid", { HTTPS_PROXY: server.address });
  assertEquals(failed(secure.answer).kind, "unreachable");
  assertEquals(server.asked, ["CONNECT testflinger.invalid:443 HTTP/1.1"]);
});

Deno.test("an artifact that has to announce its length goes through the proxy as well", async () => {
  await using server = proxy();
  const target = "http://testflinger.invalid";
  succeeded((await call(target, { HTTP_PROXY: server.address }, "artifact")).answer);
  assertEquals(server.asked.length, 2);
  for (const line of server.asked) {
    assertStringIncludes(line.replace(":80/", "/"), `POST ${target}/v1/result/`);
  }
});
