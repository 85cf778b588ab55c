#!/bin/sh
# The first process of the virtual machine: it mounts what programs expect,
# runs what is on the second disk, and switches off.
export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
mountpoint -q /proc || mount -t proc proc /proc
mountpoint -q /sys || mount -t sysfs sysfs /sys
mountpoint -q /dev || mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for at in /dev/shm /tmp /run; do mount -t tmpfs tmpfs $at; done
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
modprobe loop
dmesg -n 3
cd /komainu
echo "vm begins on $(uname -r)"
sh ./run
echo "vm ends $?"
sync
echo o > /proc/sysrq-trigger
sleep 30
