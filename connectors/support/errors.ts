/**
 * What can go wrong in a connector. The class name of an error is shown to the job's owner
 * (`device-connector-error.json`), so the names are part of the contract.
 */
import { withoutAdvice } from "../../lib/message.ts";

/** Exit status that tells the agent to take itself offline: the device needs a person. */
export const RECOVERY_STATUS = 46;

/** The job's or the image's fault, or an ordinary failure: the device stays in service. */
export class ProvisioningError extends Error {
  override name = "ProvisioningError";
}

/** The device cannot be brought back by automation: exit 46, and the agent goes offline. */
export class RecoveryError extends Error {
  override name = "RecoveryError";
}

/** Firmware could not be updated. */
export class FirmwareUpdateError extends Error {
  override name = "FirmwareUpdateError";
}

/** A storage layout cannot be had on this machine, or MAAS refused it. */
export class MaasStorageError extends ProvisioningError {
  override name = "MaasStorageError";
}

/** The device configuration (the YAML file of `-c`) cannot be used. */
export class ConfigurationError extends Error {
  override name = "ConfigurationError";
}

/** The job file cannot be used. */
export class JobError extends Error {
  override name = "JobError";
}

/** What `AbortSignal`s of a connector carry when the process was asked to stop. */
export class Stopped extends Error {
  override name = "Stopped";

  /** @param signal the name of the signal that asked for it. */
  constructor(readonly signal: "SIGTERM" | "SIGINT" | "SIGHUP") {
    super(`stopped by ${signal}`);
  }
}

/** The message of whatever was thrown. */
export function fullMessageOf(error: unknown): string {
  return withoutAdvice(error instanceof Error ? error.message : String(error));
}
