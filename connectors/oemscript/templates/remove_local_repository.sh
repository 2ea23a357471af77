#!/bin/sh
# After the installation: the packages on the recovery partition are no repository any more.
set -eu
rm -rf /etc/apt/sources.list.d/testflinger-recovery.list /var/lib/testflinger-debs
apt-get update || :
