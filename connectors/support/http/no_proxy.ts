/** Both spellings that programs know. */
const VARIABLES = ["no_proxy", "NO_PROXY"];

/** All addresses, as networks. */
const ALL_ADDRESSES = "0.0.0.0/0,::/0";

/**
 * Has this process use no proxy at all where `no_proxy` is `*`. The runtime takes that for all host
 * names, but not for addresses, which devices and control hosts mostly go by. It has an effect only
 * before the first request. Programs that are run get the variables as they were: not all of them
 * understand networks.
 */
export function honourNoProxy(env: Pick<typeof Deno.env, "get" | "set"> = Deno.env): void {
  for (const name of VARIABLES) {
    const value = env.get(name);
    if (value?.split(",").some((item) => item.trim() === "*")) {
      env.set(name, `${value},${ALL_ADDRESSES}`);
    }
  }
}
