import type { Log } from "../log.ts";
import type { Answer, Upload } from "./api.ts";
import type { CallFailure } from "./classify.ts";
import { Received } from "./exchange.ts";
import { nodeUpload } from "./node_http.ts";
import { countBytes, multipart, type SendStream } from "./request_body.ts";
import { type Session, TRANSFER_IDLE_MS } from "./session.ts";
import type { Call } from "./transport.ts";

/** Length required; and what a server answers that does not know chunked bodies. */
const WANTS_LENGTH = [411, 501];

/** Uploads artifacts as streams, in whichever way the server takes them. */
export class ArtifactPosts {
  readonly #session: Session;
  readonly #log: Log;
  #wantsLength = false;

  constructor(options: { session: Session; log: Log }) {
    this.#session = options.session;
    this.#log = options.log;
  }

  /** @throws what the upload's own source throws. */
  async post(
    { path, upload, signal }: { path: string; upload: Upload; signal: AbortSignal | undefined },
  ): Promise<Answer<void>> {
    const form = multipart({
      name: "file",
      type: "application/x-gzip",
      open: () => upload.open(),
    });
    const call: Call = {
      method: "POST",
      path,
      body: { type: form.type, content: form.open },
      limitMs: TRANSFER_IDLE_MS,
      idle: true,
      signal,
    };
    const send = (sendStream?: SendStream) => this.#session.post(call, sendStream);

    // 1. Chunked: the archive is made while it is sent, and nobody knows its length beforehand.
    let answer: Received | CallFailure | undefined;
    if (!this.#wantsLength) answer = await send();

    // 2. The server may have answered, 413 for one, and closed the connection without reading on.
    //    `fetch` sees only that it broke.
    if (answer !== undefined && !(answer instanceof Received) && answer.brokenUpload) {
      answer = await send(nodeUpload({ length: undefined, log: this.#log }));
    }

    // 3. The server wants the length: the archive is made twice.
    if (answer === undefined || WANTS_LENGTH.includes(answer.status ?? 0)) {
      this.#wantsLength = true;
      const bytes = await countBytes(upload.open(), signal);
      // The request that follows says so when the signal has aborted.
      const length = bytes === undefined ? undefined : form.frameBytes + bytes;
      answer = await send(nodeUpload({ length, log: this.#log }));
    }

    return answer instanceof Received ? { ok: true, value: undefined } : answer;
  }
}
