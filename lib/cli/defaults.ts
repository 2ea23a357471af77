/** What is used where the command line does not say. */

/** JSON with the `refresh_token`. */
export const DEFAULT_TOKEN_FILE = "/var/lib/testflinger-agent/refresh_token";
