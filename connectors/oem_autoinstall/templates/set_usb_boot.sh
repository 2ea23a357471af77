#!/bin/sh
# Puts USB media first in the EFI boot order; entries of the network are left where they are.
set -eu
entries=$(efibootmgr)
order=$(echo "$entries" | sed -n 's/^BootOrder: //p')
usb=$(echo "$entries" | grep -iE '^Boot[0-9A-F]{4}\*? .*usb' | grep -ivE 'pxe|http|ipv[46]|network|nic' |
  sed -n 's/^Boot\([0-9A-Fa-f]\{4\}\).*/\1/p' | paste -sd, -)
[ -n "$usb" ] || exit 0
rest=$(echo "$order" | tr ',' '\n' | grep -vixF "$(echo "$usb" | tr ',' '\n')" | paste -sd, - || :)
efibootmgr -o "$usb${rest:+,$rest}"
