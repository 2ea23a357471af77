const ATTEMPTS = 500;

/**
 * Unmounts a file system. It is busy for a moment where another test of this process is just starting
 * a program: that has all our files open until it is on its way.
 */
export async function unmount(folder: string): Promise<void> {
  for (let attempt = 1;; attempt++) {
    const { success, stderr } = await new Deno.Command("umount", {
      args: [folder],
      env: { LC_ALL: "C" },
    }).output();
    if (success) return;
    const why = new TextDecoder().decode(stderr).trim();
    if (attempt === ATTEMPTS || !why.includes("busy")) throw new Error(why);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
