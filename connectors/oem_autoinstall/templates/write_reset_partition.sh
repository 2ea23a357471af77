#!/bin/sh
# Makes the reset partition an installation medium of what is on an ISO. Runs as root on the device.
# Nothing is formatted before the ISO has been looked at, and a step that fails ends it.
# Usage: write_reset_partition.sh HOME ISO RESET_PARTITION EFI_PARTITION PARTUUID
set -eu
home=$1
iso=$2
reset=$3
efi=$4
partuuid=$5

mkdir -p "$home/iso" "$home/reset"
umount "$home/iso" 2>/dev/null || :
umount "$home/reset" 2>/dev/null || :
trap 'umount "$home/reset" 2>/dev/null; umount "$home/iso" 2>/dev/null' EXIT

mount -o loop,ro "$iso" "$home/iso"
# A file system of the FAT family takes no larger ones.
large=$(find "$home/iso" -type f -size +4194303k | head -n 1)
if [ -n "$large" ]; then
  echo "$large is larger than 4 GiB, which the reset partition cannot hold" >&2
  exit 1
fi
needed=$(du -s -B1 "$home/iso" | cut -f1)
size=$(blockdev --getsize64 "$reset")
if [ "$size" -lt "$needed" ]; then
  echo "$reset has $size bytes, the contents of the ISO need $needed" >&2
  exit 1
fi

for partition in "$reset" "$efi"; do
  while findmnt -n -S "$partition" >/dev/null; do umount "$partition"; done
  mkfs.vfat "$partition"
done
mount "$reset" "$home/reset"
rsync -rtL "$home/iso/" "$home/reset/"
for file in casper/vmlinuz casper/initrd; do
  cmp "$home/iso/$file" "$home/reset/$file"
done
mkdir -p "$home/reset/cloud-configs" "$home/reset/boot/grub"
cp -r "$home/redeploy/cloud-configs/." "$home/reset/cloud-configs/"
sed "s/RP_PARTUUID/$partuuid/g" "$home/redeploy/cloud-configs/grub/redeploy.cfg" \
  > "$home/reset/boot/grub/grub.cfg"
if [ -e "$home/redeploy/authorized_keys" ]; then
  mkdir -p "$home/reset/ssh-config"
  cp "$home/redeploy/authorized_keys" "$home/reset/ssh-config/authorized_keys"
fi
sync
umount "$home/reset"
