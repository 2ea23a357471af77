import { unlessAborted } from "../../../lib/wait.ts";
import { connect, type Socket } from "node:net";
import type { ConnectorContext } from "../../context.ts";
import { timeLimit } from "./time_limit.ts";

/** Where to connect, and for how long to try. */
export interface TcpAddress {
  readonly host: string;
  readonly port: number;
  readonly timeoutMs: number;
}

/**
 * Opens a TCP connection.
 *
 * @throws Error saying why it could not be opened within the time; the signal's reason when stopped.
 */
export async function openTcp(
  { limits, signal }: Pick<ConnectorContext, "limits" | "signal">,
  { host, port, timeoutMs }: TcpAddress,
): Promise<Socket> {
  signal.throwIfAborted();
  const socket = connect({ host, port });
  using limit = timeLimit({ limits, signal }, {
    ms: timeoutMs,
    message: `${host}:${port} did not answer within ${timeoutMs / 1000} s`,
  });
  try {
    await unlessAborted(
      new Promise<void>((resolve, reject) => {
        socket.once("connect", () => resolve());
        socket.once("error", reject);
      }),
      limit.signal,
    );
    return socket;
  } catch (error) {
    // destroy() may still report an error that nobody is interested in any more.
    socket.on("error", () => {});
    socket.destroy();
    throw error;
  }
}

/** Is there something that listens? */
export async function tcpAnswers(ctx: ConnectorContext, address: TcpAddress): Promise<boolean> {
  try {
    (await openTcp(ctx, address)).destroy();
    return true;
  } catch {
    ctx.signal.throwIfAborted();
    return false;
  }
}
