#!/bin/sh
# Becomes systemd, as the first process of namespaces of its own: boot.sh DISK BIND...
# DISK holds upper/, work/ and root/; each BIND is a folder of another filesystem that is shown read-only.
# Nothing outside is written: the root is an overlay, and /tmp, /run, /dev, /proc and /sys are new.
set -eu
disk=$1
shift
root=$disk/root

mount --make-rprivate /
mount -t overlay trainerd-test -o "lowerdir=/,upperdir=$disk/upper,workdir=$disk/work" "$root"
for bind in "$@"; do
    mkdir -p "$root$bind"
    mount --bind "$bind" "$root$bind"
    mount -o remount,bind,ro "$root$bind"
done

mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
# The id of the boot is the kernel's; this is another boot.
cat /proc/sys/kernel/random/uuid > "$disk/boot_id"
mount --bind "$disk/boot_id" "$root/proc/sys/kernel/random/boot_id"
mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"

mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
mkdir "$root/dev/pts" "$root/dev/shm" "$root/dev/mqueue"
for device in null zero full random urandom tty; do
    : > "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"

ip link set lo up 2>/dev/null || true

cd "$root"
mkdir -p .before
pivot_root . .before
umount -l /.before
cd /
exec env -i container=trainerd-test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb \
    /lib/systemd/systemd --unit=multi-user.target --show-status=no --log-target=journal
