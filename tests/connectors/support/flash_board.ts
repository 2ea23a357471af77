/** A board whose medium is written over ssh, from an image server, without the rest of muxpi. */
import { assertEquals } from "@std/assert";
import { join } from "node:path";
import * as z from "zod";
import { makeContext } from "../../../connectors/make_context.ts";
import { muxpiConfigShape } from "../../../connectors/muxpi/config.ts";
import { commonShape } from "../../../connectors/support/config.ts";
import { flash } from "../../../connectors/support/image/flash.ts";
import { imageSource, openImage } from "../../../connectors/support/image/source.ts";
import type { WireName } from "../../../connectors/support/image/wire.ts";
import { type Clock, systemClock } from "../../../lib/clock.ts";
import { recordingLog } from "../../support/recording_log.ts";
import { SshServer } from "../../support/sshd.ts";
import { Lab } from "./lab.ts";
import { httpStub } from "./stubs.ts";
import { FORCE_TREE, prepareTree } from "./tree_control_host.ts";

/** How an image is written. */
export interface Writing {
  /** @default "auto" */
  readonly wire?: WireName;
  /** URL of its block map, or `none`. */
  readonly bmap?: string;
  /** @default true */
  readonly verify?: boolean;
  /** @default the file that is the medium */
  readonly device?: string;
}

/** A control host with a file as its medium, and an image server. */
export class FlashBoard implements AsyncDisposable {
  readonly log = recordingLog();
  /** By path: what the server has. */
  readonly served = new Map<
    string,
    Uint8Array<ArrayBuffer> | string | (() => ReadableStream<Uint8Array<ArrayBuffer>>)
  >();
  readonly images = httpStub(({ path }) => {
    const body = this.served.get(path);
    if (body === undefined) return new Response("no", { status: 404 });
    return new Response(typeof body === "function" ? body() : body);
  });
  /** A file on the control host. */
  readonly medium: string;

  protected constructor(readonly lab: Lab, readonly server: SshServer) {
    this.medium = join(server.root, "medium");
  }

  static async open(): Promise<FlashBoard> {
    const board = new FlashBoard(await Lab.open(), await FlashBoard.controlHost());
    await prepareTree(board.server);
    return board;
  }

  protected static controlHost(): Promise<SshServer> {
    return SshServer.open({ forceCommand: FORCE_TREE });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.images[Symbol.asyncDispose]();
    await this.server[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
  }

  /** What a stage of muxpi works with. Its connections end with `putBack.runAll()`. */
  context({ env = {}, clock = systemClock }: {
    readonly env?: Readonly<Record<string, string>>;
    readonly clock?: Clock;
  } = {}): ReturnType<typeof makeContext> {
    const { signal } = new AbortController();
    return makeContext({
      connector: "muxpi",
      stage: "provision",
      config: z.object({ ...commonShape, ...muxpiConfigShape }).parse({
        agent_name: this.server.agentName,
        control_host: "127.0.0.1",
        control_host_ssh_port: this.server.port,
        control_user: this.server.user,
      }),
      configValues: {},
      jobFile: "testflinger.json",
      cwd: this.lab.cwd,
      env: { ...this.server.env, ...env },
      clock,
      limits: systemClock,
      log: this.log,
      signal,
      forceStop: signal,
      print: () => Promise.resolve(),
    });
  }

  /** Writes an image of the server to the medium, as muxpi does. */
  async flash(name: string, writing: Writing = {}): Promise<void> {
    const { wire = "auto", bmap, verify = true, device = this.medium } = writing;
    const { ctx, putBack } = this.context();
    try {
      const data = { url: `${this.images.url}/${name}`, bmap };
      const source = await imageSource(ctx, data, { image_bmap: true });
      await using image = await openImage(ctx, source);
      await flash(ctx, { image, device, wire, verify });
    } finally {
      await putBack.runAll();
    }
  }

  /** What was logged. */
  said(): string {
    return this.log.lines.map(({ message }) => message).join("\n");
  }
}

/** Comparing byte by byte what is large takes `assertEquals` seconds. */
export function assertSame(actual: Uint8Array, expected: Uint8Array, what?: string): void {
  assertEquals(actual.length, expected.length, what);
  assertEquals(actual.findIndex((byte, at) => byte !== expected[at]), -1, what);
}
