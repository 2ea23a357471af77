/** `/v1/oauth2...`: getting an access token. */
import { Hono } from "hono";
import * as z from "zod";
import { json, words } from "./answers.ts";
import { readBody } from "./body.ts";
import type { World } from "./world.ts";

const RefreshRequest = z.strictObject({ refresh_token: z.string().min(1) });

/** The endpoints of tokens. */
export function tokenRoutes({ auth }: World): Hono {
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
