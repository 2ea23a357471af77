/** What can be asked for on a page, and by whom: only where the operator has turned it on, and with a token. */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Clock } from "../clock.ts";
import { messageOf } from "../message.ts";

/** What is requested. */
export interface PageAction {
  action: ActionName;
  /** Why; of `offline` only. */
  comment: string;
}

const NAMES = ["offline", "online", "restart", "hand-over"] as const;
type ActionName = typeof NAMES[number];

/** What an agent lets be asked for. */
export interface PageActions {
  /** Its first line is the token. */
  tokenFile: string;
  /** Does it, and says what comes of it. */
  act(asked: PageAction): Promise<string>;
}

/** What is written on each button. */
export const ACTION_WORDS: Record<ActionName, string> = {
  offline: "Take offline",
  online: "Set online",
  restart: "Restart",
  "hand-over": "Hand over",
};

/** What can be guessed is no token. */
const SHORTEST_TOKEN = 16;

/** Nobody guesses faster than this. */
const AFTER_WRONG_TOKEN_MS = 1_000;

/** What came of it. */
interface ActionResult {
  status: 200 | 400 | 403 | 500;
  words: string;
}

/** Takes forms, one after the other. */
export class ActionDesk {
  readonly #clock: Clock;
  #last: Promise<unknown> = Promise.resolve();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Carries out what a form asks for, if its token is right. */
  take(form: URLSearchParams, actions: PageActions): Promise<ActionResult> {
    const result = this.#last.then(() => this.#take(form, actions));
    this.#last = result.catch(() => {});
    return result;
  }

  async #take(form: URLSearchParams, { tokenFile, act }: PageActions): Promise<ActionResult> {
    const expected = await readToken(tokenFile);
    if (expected === undefined) {
      return {
        status: 500,
        words: `Nothing was done: page_token_file cannot be read, or has no token of ` +
          `${SHORTEST_TOKEN} characters or more.`,
      };
    }
    if (!isSame(form.get("token") ?? "", expected)) {
      await this.#clock.sleep(AFTER_WRONG_TOKEN_MS);
      return { status: 403, words: "Nothing was done: the token is wrong." };
    }
    const action = NAMES.find((name) => name === form.get("action"));
    if (action === undefined) return { status: 400, words: "Nothing was done: no such action." };
    try {
      return { status: 200, words: await act({ action, comment: form.get("comment") ?? "" }) };
    } catch (error) {
      const why = messageOf(error);
      return { status: 500, words: `Nothing was done: ${why}` };
    }
  }
}

async function readToken(file: string): Promise<string | undefined> {
  const text = await Deno.readTextFile(file).catch(() => "");
  const token = text.split("\n")[0]?.trim() ?? "";
  return token.length < SHORTEST_TOKEN ? undefined : token;
}

/** Takes as long for one that is nearly right as for any other. */
function isSame(one: string, other: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(one.trim()), digest(other));
}
