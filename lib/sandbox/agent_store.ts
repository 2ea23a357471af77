/** The agents of a sandbox, and the queues and images that they advertise. */
import type { Clock } from "../clock.ts";
import type { AgentUpdate, ProvisionLogEntry } from "../server/schema.ts";

/** What the server keeps of an agent. */
export interface StoredAgent extends Omit<AgentUpdate, "log"> {
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly updatedAt: number;
  /** Of servers with `mode`. */
  readonly modeChangedAt?: number;
  /** The last 100 lines. */
  readonly log: readonly string[];
  /** Of the last provisionings, how many in a row ended alike. */
  readonly provisionStreak?: { type: "pass" | "fail"; count: number };
}

/** An entry of an agent's provision log. */
export interface StoredProvisionLog extends ProvisionLogEntry {
  /** When it arrived, in milliseconds since 1970. */
  readonly at: number;
}

interface AdvertisedQueue {
  description: string;
  /** Undefined where only images were advertised: such a queue is not forgotten. */
  updatedAt?: number;
  images: Record<string, string>;
}

/** The server forgets agents and queues that have not been heard of for so long. */
const FORGOTTEN_AFTER_MS = 7 * 24 * 3600 * 1000;

/** Of an agent's log and of its provision log, so many entries are kept. */
const KEPT_ENTRIES = 100;

/** The agents and queues. */
export class AgentStore {
  #clock: Clock;
  #agents = new Map<string, StoredAgent>();
  #provisionLogs = new Map<string, readonly StoredProvisionLog[]>();
  #queues = new Map<string, AdvertisedQueue>();
  #restricted = new Map<string, readonly string[]>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Merges an update into the agent's record, which is made when there is none. */
  update(name: string, { log = [], ...update }: AgentUpdate): void {
    const before = this.get(name);
    const now = this.#clock.now();
    this.#agents.set(name, {
      ...before,
      ...update,
      ...update.mode !== undefined && update.mode !== before?.mode && { modeChangedAt: now },
      name,
      updatedAt: now,
      log: [...before?.log ?? [], ...log].slice(-KEPT_ENTRIES),
    });
  }

  get(name: string): StoredAgent | undefined {
    const agent = this.#agents.get(name);
    if (agent === undefined || this.#isForgotten(agent.updatedAt)) return undefined;
    return agent;
  }

  all(): StoredAgent[] {
    return [...this.#agents.values()].filter((agent) => !this.#isForgotten(agent.updatedAt));
  }

  onQueue(queue: string): StoredAgent[] {
    return this.all().filter((agent) => agent.queues?.includes(queue));
  }

  forget(name: string): void {
    this.#agents.delete(name);
  }

  /** False when the agent is not known; the entry is kept nevertheless. */
  addProvisionLog(name: string, entry: ProvisionLogEntry): boolean {
    const entries = [...this.provisionLogs(name), { ...entry, at: this.#clock.now() }];
    this.#provisionLogs.set(name, entries.slice(-KEPT_ENTRIES));
    const agent = this.get(name);
    if (agent === undefined) return false;
    const type = entry.exit_code === 0 ? "pass" : "fail";
    const before = agent.provisionStreak;
    const count = before?.type === type ? before.count + 1 : 1;
    this.#agents.set(name, { ...agent, provisionStreak: { type, count } });
    return true;
  }

  provisionLogs(name: string): readonly StoredProvisionLog[] {
    return this.#provisionLogs.get(name) ?? [];
  }

  advertise(queue: string, description: string): void {
    const images = this.images(queue);
    this.#queues.set(queue, { description, images, updatedAt: this.#clock.now() });
  }

  /** All images of a queue; those of before are gone. */
  setImages(queue: string, images: Record<string, string>): void {
    const before = this.#queue(queue) ?? { description: "" };
    this.#queues.set(queue, { ...before, images });
  }

  images(queue: string): Record<string, string> {
    return this.#queue(queue)?.images ?? {};
  }

  /** Queue to description. */
  advertised(): Record<string, string> {
    const queues: Record<string, string> = {};
    for (const name of this.#queues.keys()) {
      const queue = this.#queue(name);
      if (queue !== undefined) queues[name] = queue.description;
    }
    return queues;
  }

  /** Gives a queue owners; without any it is open to all. */
  restrict(queue: string, owners: readonly string[]): void {
    if (owners.length === 0) this.#restricted.delete(queue);
    else this.#restricted.set(queue, owners);
  }

  isRestricted(queue: string): boolean {
    return this.#restricted.has(queue);
  }

  /** Those of the agent's queues that have owners, with them. */
  restrictedTo(agent: StoredAgent): Record<string, readonly string[]> {
    const restricted: Record<string, readonly string[]> = {};
    for (const queue of agent.queues ?? []) {
      const owners = this.#restricted.get(queue);
      if (owners !== undefined) restricted[queue] = owners;
    }
    return restricted;
  }

  #queue(name: string): AdvertisedQueue | undefined {
    const queue = this.#queues.get(name);
    if (queue?.updatedAt !== undefined && this.#isForgotten(queue.updatedAt)) return undefined;
    return queue;
  }

  #isForgotten(updatedAt: number): boolean {
    return this.#clock.now() - updatedAt > FORGOTTEN_AFTER_MS;
  }
}
