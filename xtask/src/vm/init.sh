#!/bin/busybox sh
# The guest's first program: the machine's files beneath a layer of memory, then what is to be run in there.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys
$b mount -t devtmpfs dev /dev
for module in /modules/*.ko; do
  $b insmod "$module" || echo "not loaded: $module"
done
files="trans=virtio,version=9p2000.L,msize=524288"
$b mount -t 9p -o "$files,ro,cache=loose" host /host || echo "no files"
$b mount -t tmpfs layer /layer
$b mkdir /layer/upper /layer/work
$b mount -t overlay -o lowerdir=/host,upperdir=/layer/upper,workdir=/layer/work root /root || echo "no layer"
$b mount -t proc proc /root/proc
$b mount -t sysfs sysfs /root/sys
$b mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
$b mount -t bpf bpf /root/sys/fs/bpf
$b mount -t tmpfs tmpfs /root/tmp
$b mount -t tmpfs tmpfs /root/run
$b mkdir -p /root/run/out
$b mount -t 9p -o "$files" out /root/run/out || echo "nowhere to write"
$b mount --move /dev /root/dev
$b ip link set lo up
# Before 5.19 the gate needs this; newer kernels keep what their distribution chose.
case $($b uname -r) in 5.1[0-8].*) echo 0 > /proc/sys/kernel/unprivileged_bpf_disabled ;; esac
$b umount /proc /sys
exec $b switch_root /root /bin/sh /run/out/run.sh
