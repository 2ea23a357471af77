import { ProvisioningError } from "../support/errors.ts";

/** Linux takes no longer argument than 128 KiB, its name and its end included. */
const ARGUMENT_MAX_BYTES = 128 * 1024 - "user_data=".length - 1;

/** What cloud-init takes begins with a comment that says what it is, or is a MIME message. */
const CLOUD_INIT = /^(?:#|(?:content-type|mime-version):)/i;

/**
 * User data as MAAS wants it: in base64. Jobs in the field have it both ways; what is already the
 * base64 of something that cloud-init takes is not encoded again.
 *
 * @throws ProvisioningError when it is too long for a command line.
 */
export function encodeUserData(text: string): string {
  const packed = text.replaceAll(/\s/g, "");
  const encoded = CLOUD_INIT.test(decoded(packed) ?? "")
    ? packed
    : new TextEncoder().encode(text).toBase64();
  if (encoded.length <= ARGUMENT_MAX_BYTES) return encoded;
  throw new ProvisioningError(
    `The job's 'user_data' is too long: ${encoded.length} bytes in base64, at most ` +
      `${ARGUMENT_MAX_BYTES} can be handed to maas`,
  );
}

/** The text that strict base64 stands for; undefined when it is no base64 or no UTF-8. */
function decoded(base64: string): string | undefined {
  try {
    const bytes = Uint8Array.fromBase64(base64, { lastChunkHandling: "strict" });
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
