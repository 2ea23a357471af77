/** What jobs print in the tests of the pages: colours, and a failure in the middle. */

/** What a job prints that installs a device. */
export const PROVISION_OUTPUT = "Writing the image to the card\r\n" +
  [25, 50, 75, 100].map((n) => `\x1b[36m${n} %\x1b[0m written\n`).join("");

/** What a job prints that tests one. */
export const TEST_OUTPUT = Array.from({ length: 40 }, (_, n) => {
  const took = `\x1b[2m${((n * 37 % 90) / 10).toFixed(1)} s\x1b[0m`;
  return n === 29
    ? `\x1b[1;31mFAIL\x1b[0m  tests/usb/hotplug_${n}.sh ${took}\n` +
      "      expected 4 devices below \x1b[33m/sys/bus/usb\x1b[0m, found 3\n"
    : `\x1b[32mok\x1b[0m    tests/network/throughput_${n}.sh ${took}\n`;
}).join("") + "\x1b[44m 40 tests \x1b[0m \x1b[7m 1 failed \x1b[0m\n";
