#!/bin/sh
# A real systemd as process 1 of namespaces of its own, on this machine's files without touching them:
# whatever is written goes to memory and is gone with it. The caller has made the namespaces:
#   unshare --fork --kill-child --pid --mount --uts --ipc --cgroup --propagation private sh systemd.sh
# With the argument 'probe' it only finds out whether that can be done here; with 'files' it starts no
# systemd, and gives a root of its own to those who enter it.
set -eu
# Seen in these namespaces alone.
memory=/mnt
mount -t tmpfs tmpfs "$memory"
mkdir "$memory/upper" "$memory/work" "$memory/root"
root=$memory/root
mount -t overlay overlay -o "lowerdir=/,upperdir=$memory/upper,workdir=$memory/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
mkdir "$root/sys/fs/cgroup/systemd"
# The old kind of control groups, where the kernel has it: the other one belongs to the host's own
# systemd, if there is one, and only the root of the host may hand out a part of it.
mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
for folder in run tmp dev; do mount -t tmpfs tmpfs "$root/$folder"; done
for device in null zero full random urandom tty; do
  mknod -m 666 "$root/dev/$device" c "$(stat -c 0x%t "/dev/$device")" "$(stat -c 0x%T "/dev/$device")"
done
mkdir "$root/dev/shm"
[ "${1-}" != probe ] || exit 0
[ "${1-}" != files ] || exec chroot "$root" sh -c 'echo ready; exec sleep infinity'

# Nothing that would reach the kernel, which is the host's; the journal alone.
units=$root/lib/systemd/system
rm -rf "$units"/sysinit.target.wants/* "$units"/local-fs.target.wants/* "$root"/etc/systemd/system/*.wants
ln -s ../systemd-journald.service "$units/sysinit.target.wants/"
for unit in systemd-binfmt systemd-modules-load systemd-remount-fs systemd-sysctl systemd-udevd; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit.service"
done
exec chroot "$root" /usr/bin/env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=basic.target --show-status=0
