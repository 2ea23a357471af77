/** The command as a program of its own, for tests of signals and of the process's end. */
import { runDeviceConnector } from "../../../lib/cli/device_connector.ts";

Deno.exit(await runDeviceConnector(Deno.args));
