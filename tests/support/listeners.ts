/**
 * Local addresses, as the kernel prints them (`0100007F:240D` is 127.0.0.1:9229), of the TCP sockets
 * that a process listens on. Read through other programs: the runtime opens nothing below /proc
 * unless everything is permitted.
 */
export async function listeners(pid: number): Promise<string[]> {
  const inodes = new Set(
    [...(await said("ls", "-l", `/proc/${pid}/fd`)).matchAll(/socket:\[(\d+)\]$/gm)]
      .map((match) => match[1]),
  );
  const tables = await said("cat", "/proc/net/tcp", "/proc/net/tcp6");
  // Without the tables nothing would ever listen.
  if (!tables.includes("local_address")) throw new Error("Cannot read /proc/net/tcp");
  const found: string[] = [];
  for (const line of tables.split("\n")) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state === LISTENING && local !== undefined && inodes.has(inode)) found.push(local);
  }
  return found;
}

/** In the fourth column of /proc/net/tcp. */
const LISTENING = "0A";

async function said(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(program, { args, stderr: "null" }).output();
  return new TextDecoder().decode(stdout);
}
