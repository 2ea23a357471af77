/** Who can always log in on what MAAS deploys, by the agent's key. */
export const MACHINE_USER = "ubuntu";
