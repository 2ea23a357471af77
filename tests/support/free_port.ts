/** Below the ports that the kernel gives to whoever asks for any, above those of services. */
const LOWEST = 15_000;
const HIGHEST = 32_000;

/**
 * A port of loopback for a program that cannot be given one by the kernel. Tests run side by side:
 * one that was free a moment ago must not be given to another's server or client in between.
 */
export function freePort(): number {
  while (true) {
    const port = LOWEST + Math.floor(Math.random() * (HIGHEST - LOWEST));
    try {
      using _listener = Deno.listen({ hostname: "127.0.0.1", port });
      return port;
    } catch (error) {
      if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    }
  }
}
