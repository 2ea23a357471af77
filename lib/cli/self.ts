/** How this program starts itself again, as a child process. */

/** Set by the launcher of a packaged program: the one file that people call. */
export const SELF_VARIABLE = "TESTFLINGER_AGENT_PROGRAM";

/**
 * What the program may do, however it is packaged; docs/security.md says why. Of the system it may ask
 * for trusted certificates, whether a debugger is open, its addresses, free space and its user.
 */
export const PERMISSIONS = [
  ...["env", "net", "read", "run", "write"].map((permission) => `--allow-${permission}`),
  "--allow-sys=ca,inspector,networkInterfaces,statfs,uid",
];

/** Program and first arguments, to which a command is appended. */
export function selfCommand(): string[] {
  const launcher = Deno.env.get(SELF_VARIABLE);
  if (launcher !== undefined && launcher !== "") return [launcher];
  if (Deno.build.standalone) return [Deno.execPath()];
  return [Deno.execPath(), "run", "--quiet", ...PERMISSIONS, Deno.mainModule];
}
