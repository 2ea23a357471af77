/** Bytes of the telnet protocol (RFC 854). */
const IAC = 255;
const DONT = 254;
const WILL = 251;
const SB = 250;
const SE = 240;

type State = "data" | "command" | "option" | "subnegotiation" | "subnegotiation command";

/** Makes a function that takes the negotiation out of a telnet stream, whatever the chunking. */
export function telnetStripper(): (bytes: Uint8Array) => Uint8Array {
  let state: State = "data";
  return (bytes) => {
    const kept = new Uint8Array(bytes.length);
    let length = 0;
    for (const byte of bytes) {
      switch (state) {
        case "data":
          if (byte === IAC) state = "command";
          else kept[length++] = byte;
          break;
        case "command":
          if (byte === IAC) kept[length++] = byte;
          state = byte === SB ? "subnegotiation" : byte >= WILL && byte <= DONT ? "option" : "data";
          break;
        case "option":
          state = "data";
          break;
        case "subnegotiation":
          if (byte === IAC) state = "subnegotiation command";
          break;
        case "subnegotiation command":
          state = byte === SE ? "data" : "subnegotiation";
          break;
      }
    }
    return kept.subarray(0, length);
  };
}
