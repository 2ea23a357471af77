/** Who may do what: roles, access tokens, refresh tokens, and the endpoints that give them. */
import { type Context, Hono, type MiddlewareHandler } from "hono";
import * as z from "zod";
import type { Clock } from "../clock.ts";
import { json, readBody, RefusedRequest, words } from "./wire_form.ts";

/** What a token lets its holder do. */
export type Role = "admin" | "manager" | "contributor" | "agent";

/** Everybody but agents: who may submit, read and cancel. */
export const PEOPLE: readonly Role[] = ["admin", "manager", "contributor"];

/** Who may change an agent's record. */
export const KEEPERS: readonly Role[] = ["admin", "manager", "agent"];

interface Client {
  clientId: string;
  role: Role;
}

/** What the token endpoints answer. */
interface TokenAnswer {
  access_token: string;
  token_type: "Bearer";
  /** Seconds. */
  expires_in: number;
}

interface AuthOptions {
  /** Off: everybody may do everything, and tokens are not looked at. */
  enabled: boolean;
  clock: Clock;
  accessTokenSeconds: number;
}

/** The tokens that a sandbox knows. */
export class Auth {
  readonly enabled: boolean;
  #clock: Clock;
  #accessTokenSeconds: number;
  #clients = new Map<string, Client & { secret: string }>();
  #refreshTokens = new Map<string, Client & { revoked: boolean }>();
  #accessTokens = new Map<string, Client & { expires: number; isSpoilt?: boolean }>();

  constructor(options: AuthOptions) {
    this.enabled = options.enabled;
    this.#clock = options.clock;
    this.#accessTokenSeconds = options.accessTokenSeconds;
  }

  addClient(client: { clientId: string; secret: string; role: Role }): void {
    this.#clients.set(client.clientId, client);
  }

  addRefreshToken(token: string, client: Client): void {
    this.#refreshTokens.set(token, { ...client, revoked: false });
  }

  revokeRefreshToken(token: string): void {
    const known = this.#refreshTokens.get(token);
    if (known !== undefined) known.revoked = true;
  }

  /** Makes every access token that is out there an expired one. */
  expireAccessTokens(): void {
    for (const token of this.#accessTokens.values()) token.expires = -Infinity;
  }

  /** Makes every access token that is out there one of another signing key. */
  spoilAccessTokens(): void {
    for (const token of this.#accessTokens.values()) token.isSpoilt = true;
  }

  /** @throws RefusedRequest 400 when the refresh token is unknown or revoked. */
  refresh(refreshToken: string): TokenAnswer {
    const known = this.#refreshTokens.get(refreshToken);
    if (known === undefined) throw new RefusedRequest(400, "Invalid refresh token.");
    if (known.revoked) throw new RefusedRequest(400, "Refresh token revoked.");
    return this.#issue(known);
  }

  /**
   * Exchanges a client's name and secret for tokens. With tokens off anybody is an administrator,
   * so that the command-line client's `admin` commands can be tried.
   *
   * @param header the `Authorization` header: HTTP Basic.
   */
  login(header: string | undefined): TokenAnswer & { refresh_token: string } | string {
    const basic = /^Basic\s+(\S+)$/i.exec(header ?? "")?.[1];
    if (basic === undefined) return "No authorization header specified";
    const [, clientId, secret] = /^([^:]*):(.*)$/s.exec(decodeBase64(basic)) ?? [];
    if (!clientId || !secret) return "Client id and key must be specified in authorization header";
    const known = this.enabled
      ? this.#clients.get(clientId)
      : { clientId, secret, role: "admin" as const };
    if (known === undefined || known.secret !== secret) return "Invalid client id or client key";
    const refreshToken = randomToken();
    this.addRefreshToken(refreshToken, known);
    return { ...this.#issue(known), refresh_token: refreshToken };
  }

  /** Lets only these roles through. With tokens off it lets everybody through. */
  only(roles: readonly Role[]): MiddlewareHandler {
    return async (c, next) => {
      if (this.enabled && !roles.includes(this.#client(c)?.role ?? "contributor")) {
        throw new RefusedRequest(403, `Specified action requires role: ${roles.join(", ")}`);
      }
      await next();
    };
  }

  /** Whether this request carries no token although the server has tokens. */
  isAnonymous(c: Context): boolean {
    return this.enabled && this.#client(c) === undefined;
  }

  /** @throws RefusedRequest 401 when the token has expired, 403 when it is not one of ours. */
  #client(c: Context): Client | undefined {
    const header = c.req.header("Authorization");
    if (!header) return undefined;
    const known = this.#accessTokens.get(header.replace(/^Bearer /, ""));
    if (known === undefined) throw new RefusedRequest(403, "Invalid Token");
    if (known.isSpoilt) throw new RefusedRequest(403, "Invalid Token signature");
    if (known.expires <= this.#clock.now()) throw new RefusedRequest(401, "Token has expired");
    return known;
  }

  #issue({ clientId, role }: Client): TokenAnswer {
    const now = this.#clock.now();
    const expires = now + this.#accessTokenSeconds * 1000;
    // The command-line client reads its own role out of the token, without checking the signature.
    const token = [
      base64Url(JSON.stringify({ alg: "HS256", typ: "JWT" })),
      base64Url(JSON.stringify({
        exp: Math.floor(expires / 1000),
        iat: Math.floor(now / 1000),
        sub: "access_token",
        permissions: { client_id: clientId, role },
      })),
      randomToken(),
    ].join(".");
    this.#accessTokens.set(token, { clientId, role, expires });
    return {
      access_token: token,
      token_type: "Bearer",
      expires_in: this.#accessTokenSeconds,
    };
  }
}

/** 256 random bits, as text that fits into a header, a file, or the third part of a JWT. */
export function randomToken(): string {
  return base64Url(String.fromCharCode(...crypto.getRandomValues(new Uint8Array(32))));
}

function base64Url(latin: string): string {
  return btoa(latin).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function decodeBase64(text: string): string {
  try {
    return new TextDecoder().decode(Uint8Array.from(atob(text), (char) => char.charCodeAt(0)));
  } catch {
    return "";
  }
}

const RefreshRequest = z.strictObject({ refresh_token: z.string().min(1) });

/** `/v1/oauth2...`: getting an access token. */
export function tokenRoutes(auth: Auth): Hono {
  const app = new Hono({ strict: false });

  app.post("/oauth2/refresh", async (c) => {
    const { refresh_token: token } = await readBody(c, RefreshRequest);
    return json(c, auth.refresh(token));
  });

  app.post("/oauth2/token", (c) => {
    const answer = auth.login(c.req.header("Authorization"));
    return typeof answer === "string" ? words(c, answer, 401) : json(c, answer);
  });

  return app;
}
