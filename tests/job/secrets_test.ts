/** What a job's secrets may be: a job may bring anything, and must harm neither agent nor host. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "node:path";
import { Lab } from "../support/lab.ts";

const lines = (text: string) => text.split("\n").filter((line) => line.startsWith("WARNING"));

const TOO_MANY = Object.fromEntries(
  Array.from({ length: 10_000 }, (_, i) => [`S${i}`, `${i} `.padEnd(1000, "x")]),
);

for (
  const { what, secrets, said } of [
    {
      what: "one secret of 12 MB",
      secrets: { SMALL: "hunter2", HUGE: "x".repeat(12_000_000) },
      said: 'The secret "HUGE" of test_data has 12000000 bytes',
    },
    {
      what: "10,000 secrets of 1 kB",
      secrets: TOO_MANY,
      said: 'The secret "S1056" of test_data is too much',
    },
    {
      what: "501 short secrets",
      secrets: Object.fromEntries(Array.from({ length: 501 }, (_, i) => [`S${i}`, `pass-${i}`])),
      said: 'The secret "S99" of test_data is too much',
    },
  ]
) {
  Deno.test(`a job with ${what} fails in setup with the name, is cleaned up, and the next one runs`, async () => {
    await using lab = await Lab.open({
      config: { test_command: "echo tested", cleanup_command: "echo cleaned hunter2" },
    });
    const jobId = await lab.run({ test_data: { secrets } });
    assertEquals(lab.statuses(jobId), { setup: 1, cleanup: 0 });
    assertStringIncludes(lab.sandbox.log(jobId, "output", "setup"), `ERROR: ${said}`);
    assertEquals(lab.output(jobId, "cleanup").startsWith("cleaned "), true);
    const next = await lab.run({ test_data: { a: 1 } });
    assertEquals(lab.output(next, "test"), "tested\n");
    assertEquals(lab.logged("error"), []);
  });
}

Deno.test("what fits is masked although the job is refused", async () => {
  await using lab = await Lab.open({ config: { cleanup_command: "echo hunter2" } });
  const jobId = await lab.run({
    test_data: { secrets: { SMALL: "hunter2", HUGE: "x".repeat(100_000) } },
  });
  assertEquals(lab.output(jobId, "cleanup"), "**f52fbd**\n");
});

Deno.test("a secret of many forms, as large as it may be, is masked in a moment", async () => {
  await using lab = await Lab.open({ config: { test_command: 'printf "%s\\n" "$KEY"' } });
  const odd = "é/ <~*'\"\\\t";
  const key = odd.repeat(Math.floor(32 * 1024 / new TextEncoder().encode(odd).length));
  const jobId = await lab.run({ test_data: { secrets: { KEY: key } } });
  assertEquals(/^\*\*[0-9a-f]{6}\*\*\n$/.test(lab.output(jobId, "test")), true);
});

Deno.test("secrets that would decide which programs the host runs are left out, with a line that names them", async () => {
  await using lab = await Lab.open({
    config: {
      provision_command: "ls -d . && date >/dev/null && echo provisioned with $TOKEN",
      test_command: "env",
      secret_names_allowed: ["PYTHONPATH"],
    },
  });
  const trap = join(lab.folder, "trap");
  await Deno.mkdir(trap);
  await Deno.writeTextFile(join(trap, "ls"), "#!/bin/sh\necho taken over\n", { mode: 0o755 });
  await Deno.writeTextFile(join(trap, "env.sh"), "echo taken over\n");
  const names = [
    ...["PATH", "LD_PRELOAD", "LD_LIBRARY_PATH", "IFS", "BASH_ENV", "ENV", "RSYNC_CONNECT_PROG"],
    // What the file of this program runs and from where, and what is the host's to say.
    ...["TESTFLINGER_AGENT_RUNNER", "TESTFLINGER_AGENT_CACHE", "TESTFLINGER_IMAGE_CACHE"],
    ...["TESTFLINGER_TOKEN_FILE", "TFDC_TIME_SCALE"],
  ];
  const secrets = Object.fromEntries(names.map((name) => [name, join(trap, "env.sh")]));
  const jobId = await lab.run({
    provision_data: { secrets: { ...secrets, PATH: trap, TOKEN: "tea-and-biscuits" } },
    test_data: {
      secrets: { PYTHONPATH: trap, PERL5OPT: "-Mtrap", TESTFLINGER_SECRET_KEY: "of-the-client" },
    },
  });
  const output = lab.output(jobId, "provision");
  assertEquals(output.includes("taken over"), false, output);
  assertStringIncludes(output, ".\nprovisioned with **");
  assertEquals(lines(output).map((line) => /"(\w+)"/.exec(line)?.[1]), names.toSorted());
  const test = lab.output(jobId, "test");
  assertEquals(lines(test).map((line) => /"(\w+)"/.exec(line)?.[1]), ["PERL5OPT"]);
  assertStringIncludes(test, "\nPYTHONPATH=**");
  assertStringIncludes(test, "\nTESTFLINGER_SECRET_KEY=**");
  assertEquals(test.includes("\nPERL5OPT="), false, test);
});

Deno.test("a secret that is too short to be masked is named once in a job", async () => {
  await using lab = await Lab.open({
    config: { provision_command: "echo $PIN $OTHER", test_command: "echo $PIN" },
  });
  const jobId = await lab.run({
    provision_data: { secrets: { PIN: "123", OTHER: "12345" } },
    test_data: { secrets: { PIN: "123" } },
  });
  assertEquals(
    lab.output(jobId, "provision"),
    'WARNING: The secret "PIN" has fewer than 4 characters and is not masked.\n' +
      "123 **5994471**\n".replace("5994471", "599447"),
  );
  assertEquals(lab.output(jobId, "test"), "123\n");
});
