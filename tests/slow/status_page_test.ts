import { join } from "node:path";

/** Those of the whole suite. */
const PERMISSIONS = ["env", "net", "read", "run", "sys", "write"].map((one) => `--allow-${one}`);

/** One test after the other, each with a browser of its own. */
const CHECKS = [
  "status_page_checks.ts",
  "host_page_checks.ts",
  "log_page_checks.ts",
  "lab_checks.ts",
];

for (const file of CHECKS) {
  Deno.test(`the pages do what they should in a real browser: see ${file}`, () => run(file));
}

async function run(file: string): Promise<void> {
  // In a process of its own: the browser's driver needs a variable in the environment while it is
  // loaded (see browser.ts), and what it leaves running must not be another test's.
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "--no-check",
      `--config=${join(import.meta.dirname ?? "", "..", "deno.json")}`,
      ...PERMISSIONS,
      join(import.meta.dirname ?? "", "..", "browser", file),
    ],
    env: { NO_COLOR: "1" },
  }).output();
  const told = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  if (!success) throw new Error(told);
  console.log(told.split("\n").filter((line) => /^ok |skipped|ignored/.test(line)).join("\n"));
}
