import type { Clock } from "../clock.ts";
import type { Log } from "../log.ts";
import { NodeHttp } from "./node_http.ts";
import { AccessTokens } from "./tokens.ts";
import { certificatesOfEnvironment } from "./trust.ts";

/** Shorter than the 60 s after which usual proxies close a connection: not to send into a closing one. */
const POOL_IDLE_MS = 50_000;

/**
 * What the clients of one process share, so that thirty agents of one server do not come to it as thirty
 * strangers: connections, and the access tokens of each token file.
 */
export class Connections {
  readonly #clock: Clock;
  readonly #tokens = new Map<string, AccessTokens>();
  #fetching: Deno.HttpClient | undefined;
  #node: NodeHttp | undefined;
  #isClosed = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** For `fetch`. @param log is told what is wrong with certificates. */
  fetching(log: Log): Deno.HttpClient {
    return this.#fetching ??= Deno.createHttpClient({
      poolIdleTimeout: POOL_IDLE_MS,
      caCerts: certificatesOfEnvironment(log),
    });
  }

  /** For what `fetch` does not do. */
  node(log: Log): NodeHttp {
    return this.#node ??= new NodeHttp(log);
  }

  /** The access tokens that a server gives for the refresh token of a file. */
  tokens(address: string, file: string | undefined): AccessTokens {
    const key = JSON.stringify([address, file]);
    let tokens = this.#tokens.get(key);
    if (tokens === undefined) {
      tokens = new AccessTokens({ file, clock: this.#clock });
      this.#tokens.set(key, tokens);
    }
    return tokens;
  }

  /** Closes the connections. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#fetching?.close();
    this.#node?.close();
  }
}
