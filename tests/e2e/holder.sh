#!/bin/sh
# The first process of a test host: run by unshare in new mount, process and host-name namespaces, it makes the host's view of
# the file system and then waits until its standard input ends. With it ends, by the kernel, every process of the host: closing
# that pipe, or the death of the test that holds it, is the host's power cut.
#
#     holder.sh NAME WORKDIR VISIBLE...
#
# The host sees the machine's root read-only below a memory file system that takes what it writes; what has to survive a power
# cut lies in WORKDIR/disk. VISIBLE folders appear at their own paths. PERSISTENT comes from the environment.
set -eu
name=$1 work=$2
shift
read -r holder _ </proc/self/stat # as numbered outside: /proc is still the machine's

hostname "$name"
mount -t tmpfs -o mode=755 tmpfs "$work/memory"
mkdir "$work/memory/upper" "$work/memory/work"
chmod 755 "$work/memory/upper"
mount -t overlay -o "lowerdir=/,upperdir=$work/memory/upper,workdir=$work/memory/work" overlay "$work/root"
cd "$work/root"
mount --rbind /dev dev
mount --rbind /sys sys
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock run/docker/plugins
for folder in $PERSISTENT; do
    mkdir -p "$work/disk$folder" ".$folder"
    mount --bind "$work/disk$folder" ".$folder"
done
chmod 1777 tmp
for folder in "$@"; do
    mkdir -p ".$folder"
    mount --bind "$folder" ".$folder"
done

# Its own kernel and machine identity, as another computer (and another boot) would have.
cat /proc/sys/kernel/random/uuid >"run/boot_id"
mount --bind run/boot_id proc/sys/kernel/random/boot_id
[ -s "$work/disk/machine-id" ] || tr -d - </proc/sys/kernel/random/uuid >"$work/disk/machine-id"
cat "$work/disk/machine-id" >etc/machine-id
echo "$name" >etc/hostname

pivot_root . .
umount -l .
cd /
mount --make-rshared / # as systemd does on a real host
ip link set lo up

echo "ready $holder"
exec env --ignore-signal=CHLD cat >/dev/null # the kernel reaps the orphans of who ignores SIGCHLD
