/**
 * Local addresses, as the kernel prints them (`0100007F:240D` is 127.0.0.1:9229), of the TCP sockets
 * that a process listens on.
 */
export async function listeners(pid: number): Promise<string[]> {
  const inodes = new Set(
    [...(await said("ls", "-l", `/proc/${pid}/fd`)).matchAll(/socket:\[(\d+)\]$/gm)]
      .map((match) => match[1]),
  );
  return (await listening()).filter(({ inode }) => inodes.has(inode)).map(({ local }) => local);
}

/** The sockets that listen on a port, by the numbers that the kernel gives to no other socket. */
export async function socketsAt(port: number): Promise<string[]> {
  const end = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  return (await listening()).filter(({ local }) => local.endsWith(end)).map(({ inode }) => inode);
}

/** In the fourth column of /proc/net/tcp. */
const LISTENING = "0A";

/** Read through another program: the runtime opens nothing below /proc unless all is permitted. */
async function listening(): Promise<{ local: string; inode: string }[]> {
  const tables = await said("cat", "/proc/net/tcp", "/proc/net/tcp6");
  // Without the tables nothing would ever listen.
  if (!tables.includes("local_address")) throw new Error("Cannot read /proc/net/tcp");
  const found: { local: string; inode: string }[] = [];
  for (const line of tables.split("\n")) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    if (state !== LISTENING || local === undefined || inode === undefined) continue;
    found.push({ local, inode });
  }
  return found;
}

async function said(program: string, ...args: string[]): Promise<string> {
  const { stdout } = await new Deno.Command(program, { args, stderr: "null" }).output();
  return new TextDecoder().decode(stdout);
}
