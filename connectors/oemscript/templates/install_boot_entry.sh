#!/bin/sh
# Makes the boot entry of the recovery partition, and gives the partition the label that it is known by.
# Runs as root on the device. The entry is the file 99_ubuntu_recovery on the recovery partition.
# Usage: install_boot_entry.sh PARTITION
set -eu
partition=$1
uuid=$(blkid -s UUID -o value "$partition")
[ -n "$uuid" ] || { echo "$partition has no UUID" >&2; exit 1; }
rm -f /etc/grub.d/99_dell_recovery
sed "s/@UUID@/$uuid/" /cdrom/99_ubuntu_recovery > /etc/grub.d/99_ubuntu_recovery
chmod 755 /etc/grub.d/99_ubuntu_recovery
fatlabel "$partition" PQSERVICE
