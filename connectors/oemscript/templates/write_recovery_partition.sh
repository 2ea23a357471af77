#!/bin/sh
# Puts what is on an ISO onto the recovery partition, which stays mounted at /cdrom.
# Runs as root on the device.
# Usage: write_recovery_partition.sh ISO PARTITION
set -eu
iso=$1
partition=$2

umount /cdrom 2>/dev/null || :
umount /mnt 2>/dev/null || :

needed=$(stat -c %s "$iso")
size=$(blockdev --getsize64 "$partition")
if [ "$size" -lt "$needed" ]; then
  echo "$partition has $size bytes, the ISO needs $needed" >&2
  exit 1
fi

mkdir -p /cdrom /var/tmp/rsync
mount -o loop,ro "$iso" /mnt
trap 'umount /mnt' EXIT
mount "$partition" /cdrom
rsync -al --delete --exclude=efi --temp-dir=/var/tmp/rsync /mnt/ /cdrom/
cp /mnt/.disk/ubuntu_dist_channel /cdrom/.disk/ubuntu_dist_channel
sync
