#!/bin/sh
# Has the next boot be that of the recovery partition. Runs as root on the device.
set -eu
file=/etc/default/grub.d/automatic-oem-config.cfg
mkdir -p "${file%/*}"
cat >> "$file" <<'END'
GRUB_DEFAULT="ubuntu-recovery restore"
GRUB_TIMEOUT_STYLE=menu
GRUB_TIMEOUT=5
END
update-grub
