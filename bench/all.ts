/** `deno task bench`: all benchmarks, one after the other. */
import { join } from "node:path";
import { PERMISSIONS } from "../lib/cli/self.ts";

const folder = import.meta.dirname ?? "";
const files = [...Deno.readDirSync(folder)].map(({ name }) => name)
  .filter((name) => name.endsWith("_bench.ts")).sort();
for (const file of files) {
  console.log(`\n== ${file}`);
  const { success } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--quiet", ...PERMISSIONS, join(folder, file)],
  }).spawn().status;
  if (!success) Deno.exit(1);
}
