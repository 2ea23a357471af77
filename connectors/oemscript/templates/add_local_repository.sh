#!/bin/sh
# Before the installation: the packages on the recovery partition become a repository of apt.
set -eu
debs=/cdrom/debs
[ -d "$debs" ] || exit 0
if [ ! -e "$debs/Packages" ] && [ ! -e "$debs/Packages.gz" ]; then
  (cd "$debs" && apt-ftparchive packages . > /tmp/Packages) || exit 0
  mkdir -p /var/lib/testflinger-debs
  cp -a "$debs/." /var/lib/testflinger-debs/
  mv /tmp/Packages /var/lib/testflinger-debs/Packages
  debs=/var/lib/testflinger-debs
fi
echo "deb [trusted=yes] file:$debs ./" > /etc/apt/sources.list.d/testflinger-recovery.list
apt-get update
