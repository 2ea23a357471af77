import { assertEquals, assertStringIncludes } from "@std/assert";
import { ActionDesk, type PageAction } from "../../lib/observe/page_actions.ts";
import { FakeClock, settle } from "../support/fake_clock.ts";

const TOKEN = "0123456789abcdef-token";

interface Made {
  clock: FakeClock;
  asked: PageAction[];
  tokenFile: string;
  take(fields: Record<string, string>): ReturnType<ActionDesk["take"]>;
}

async function withDesk(test: (made: Made) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    const tokenFile = `${folder}/token`;
    await Deno.writeTextFile(tokenFile, `${TOKEN}\nanother line\n`);
    const clock = new FakeClock();
    const desk = new ActionDesk(clock);
    const asked: PageAction[] = [];
    const act = (action: PageAction) => {
      asked.push(action);
      return Promise.resolve("done");
    };
    const take = (fields: Record<string, string>) =>
      desk.take(new URLSearchParams(fields), { tokenFile, act });
    await test({ clock, asked, tokenFile, take });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Waits for what the file system does. */
async function until(isSo: () => boolean): Promise<void> {
  while (!isSo()) await new Promise((resolve) => setTimeout(resolve, 1));
}

Deno.test("with the right token what is asked for is done, with its comment", () =>
  withDesk(async ({ take, asked }) => {
    const result = await take({ token: TOKEN, action: "offline", comment: "new card" });
    assertEquals(result, { status: 200, words: "done" });
    assertEquals(asked, [{ action: "offline", comment: "new card" }]);
    assertEquals((await take({ token: TOKEN, action: "reboot" })).status, 400);
    assertEquals((await take({ token: TOKEN })).status, 400);
    assertEquals(asked.length, 1);
  }));

Deno.test("with a wrong token nothing is done, and one try a second is answered", () =>
  withDesk(async ({ take, asked, clock }) => {
    const tries = ["", TOKEN.slice(1), "another line"].map((token) =>
      take({ token, action: "offline" })
    );
    let answered = 0;
    for (const one of tries) one.then(() => answered++);
    for (let n = 1; n <= tries.length; n++) {
      await until(() => clock.sleepers === 1);
      assertEquals(answered, n - 1);
      await clock.advance(1_000);
      await settle();
    }
    for (const one of tries) {
      assertEquals(await one, { status: 403, words: "Nothing was done: the token is wrong." });
    }
    assertEquals(asked, []);
  }));

Deno.test("a token that is missing or can be guessed is never accepted", () =>
  withDesk(async ({ take, tokenFile, asked }) => {
    for (const content of ["", "short\n", undefined]) {
      if (content === undefined) await Deno.remove(tokenFile);
      else await Deno.writeTextFile(tokenFile, content);
      const { status, words } = await take({ token: content?.trim() ?? "", action: "offline" });
      assertEquals(status, 500);
      assertStringIncludes(words, "page_token_file cannot be read, or has no token of 16");
    }
    assertEquals(asked, []);
  }));
