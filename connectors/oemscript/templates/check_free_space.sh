#!/bin/sh
# Looks whether the device has room for a download. Runs on the device. Exit status 28: it has not.
# Where nobody says how large it is, or how much room there is, the download is to show it.
# Usage: check_free_space.sh URL FILE [OPTION_OF_WGET]...
set -u
url=$1
file=$2
shift 2

# Of several answers, as after a redirection, the last one counts.
size=$(wget --spider --server-response --tries=1 --timeout=30 "$@" "$url" 2>&1 |
  sed -n 's/^ *[Cc]ontent-[Ll]ength: *\([0-9][0-9]*\).*/\1/p' | tail -n 1)
# Also what is kept for root, who downloads; and what is there under the name is overwritten.
folder=$(dirname "$file")
blocks=$(stat -f -c %f "$folder" 2>/dev/null)
block_size=$(stat -f -c %S "$folder" 2>/dev/null)
old=$(du -B1 "$file" 2>/dev/null | cut -f1)
if [ -z "$size" ] || [ -z "$blocks" ] || [ -z "$block_size" ]; then exit 0; fi
free=$((blocks * block_size + ${old:-0}))
if [ "$free" -lt "$size" ]; then
  echo "the ISO has $size bytes, and there is room for $free in $folder" >&2
  exit 28
fi
