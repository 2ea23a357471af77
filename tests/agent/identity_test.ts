import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

Deno.test("an agent with a token file works for a server that demands tokens", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = join(folder, "token");
  await Deno.writeTextFile(tokenFile, `{"refresh_token": "secret-refresh"}`);
  await using lab = await Lab.open({
    folder,
    tokenFile,
    sandbox: { tokens: true },
    config: { test_command: "echo hello" },
  });
  lab.sandbox.addRefreshToken("secret-refresh");
  const jobId = await lab.run({ test_data: { a: 1 } });
  assertEquals(lab.output(jobId, "test"), "hello\n");
  lab.sandbox.expireAccessTokens();
  await lab.run({ test_data: { a: 1 } });
  assertEquals(JSON.stringify(lab.log.lines).includes("secret-refresh"), false);
});

Deno.test("an agent that starts before its token file exists works as soon as it does", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = join(folder, "token");
  await using lab = await Lab.open({
    folder,
    tokenFile,
    sandbox: { tokens: true },
    config: { test_command: "true" },
  });
  lab.sandbox.addRefreshToken("secret-refresh");
  const jobId = lab.submit({ test_data: { a: 1 } });
  lab.start();
  await lab.eventually(() => lab.logged("error").length > 0, "the agent says what it lacks");
  await Deno.writeTextFile(tokenFile, `{"refresh_token": "secret-refresh"}`);
  await lab.complete(jobId);
});

Deno.test("a token file that is no JSON is one clear line, and the agent goes on", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = join(folder, "token");
  await Deno.writeTextFile(tokenFile, "not json");
  await using lab = await Lab.open({ folder, tokenFile, config: { test_command: "true" } });
  await lab.run({ test_data: { a: 1 } });
  await lab.run({ test_data: { a: 1 } });
  const lines = lab.log.lines.filter((line) => line.message.includes(tokenFile));
  assertEquals(lines.length, 1);
});

Deno.test("a token of the wrong role is one error that says what an administrator must do", async () => {
  const folder = await Deno.makeTempDir();
  const tokenFile = join(folder, "token");
  await Deno.writeTextFile(tokenFile, `{"refresh_token": "t"}`);
  await using lab = await Lab.open({ folder, tokenFile, sandbox: { tokens: true } });
  lab.sandbox.addRefreshToken("t", { role: "contributor" });
  lab.start();
  const refusals = () => lab.sandbox.requests.filter((request) => request.status === 403).length;
  await lab.eventually(() => lab.logged("error").length > 0, "the first refusal is logged");
  const before = refusals();
  await lab.until(() => refusals() > before + 6, "several refusals");
  const [line = "", ...others] = lab.logged("error");
  assertEquals(others, []);
  assertStringIncludes(line, "turns this agent away");
  assertStringIncludes(line, "requires role");
  assertStringIncludes(line, `refresh token of the role 'agent' and put it into ${tokenFile}`);
});
