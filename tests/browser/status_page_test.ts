import { join } from "node:path";

/** One test after the other, each with a browser of its own. */
const CHECKS = join(import.meta.dirname ?? "", "status_page_checks.ts");

Deno.test("the status page does what it should in a real browser: see status_page_checks.ts", async () => {
  // In a process of its own: the browser's driver looks into /proc, for which Deno wants everything
  // permitted, and nothing else in this project is run like that.
  const { success, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["test", "--no-check", "--allow-all", CHECKS],
    env: { NO_COLOR: "1" },
  }).output();
  const told = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  if (!success) throw new Error(told);
  console.log(told.split("\n").filter((line) => /^ok |skipped|ignored/.test(line)).join("\n"));
});
