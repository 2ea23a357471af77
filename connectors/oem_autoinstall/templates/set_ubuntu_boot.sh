#!/bin/sh
# Puts the installed Ubuntu first in the EFI boot order.
set -eu
entries=$(efibootmgr)
order=$(echo "$entries" | sed -n 's/^BootOrder: //p')
ubuntu=$(echo "$entries" | sed -n 's/^Boot\([0-9A-Fa-f]\{4\}\)\*\{0,1\} [Uu]buntu.*/\1/p' | head -n 1)
[ -n "$ubuntu" ] || { echo "there is no boot entry of Ubuntu" >&2; exit 1; }
rest=$(echo "$order" | tr ',' '\n' | grep -vix "$ubuntu" | paste -sd, - || :)
efibootmgr -o "$ubuntu${rest:+,$rest}"
