/** Takes an agent's lock again and again, and complains when it is not alone with it. */
import { takeLock } from "../../../lib/agent/lock.ts";
import { recordingLog } from "../../support/recording_log.ts";

const [shared = "", own = "", inside = "", rounds = "0"] = Deno.args;
let taken = 0;
for (let round = 0; round < Number(rounds); round++) {
  const result = takeLock({
    agentId: "agent-1",
    folder: own,
    sharedFolder: shared,
    log: recordingLog(),
  });
  if (!result.held) continue;
  taken++;
  // Fails when another one is in there.
  Deno.writeTextFileSync(inside, "", { createNew: true });
  Deno.removeSync(inside);
  result.release();
}
console.log(taken);
