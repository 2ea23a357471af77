/** A program that does nothing but listen for SIGUSR1, with the guard or (`bare`) without it. */
import { onRestartSignal } from "../../../lib/host/signals.ts";

const heard = () => console.log("restart asked");
if (Deno.args[0] === "bare") Deno.addSignalListener("SIGUSR1", heard);
else onRestartSignal(heard);
console.log("ready");
setInterval(() => {}, 60_000);
