#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# QEMU 10: RAM in a named file on both machine types, several rates and patterns; huge pages; a Linux
# guest with a disk read by direct I/O. Cases that say "qemu: 7 10" at their head are run with it too.
. "$(dirname "$0")/lib.sh"

need_qemu10
ready_hosts
checked_move web "qemu=10 rate=50"
vm_end b web
checked_move seq "qemu=10 rate=5 pattern=seq machine=q35 grain=1"
vm_end b seq

checked_move zipf "qemu=10 rate=150 ws=64 pattern=zipf"
vm_end b zipf

if [ -s "$BUILD/guest/linux-initramfs" ]; then
	note "Linux guest"
	disk=$DIR/shared/disk.raw
	truncate -s 16M "$disk"
	linux_start a web qemu=10 "disk=$disk" disk_options=cache=none,aio=io_uring
	vm_tell a web disk-fill || fail "disk-fill"
	vm_tell a web disk-go
	beats_start web
	move a b web
	want_completed
	vm_tell b web disk-verify || fail "the disk's pages are not right"
	vm_verify b web
	beats_stop web
	assert_clean a
	assert_clean b web
	vm_end b web
fi

exec 8>/run/lock/tranship-hugepages.lock
flock 8
PAGES_BEFORE=$(cat /proc/sys/vm/nr_hugepages)
echo $((PAGES_BEFORE + 66)) >/proc/sys/vm/nr_hugepages
if [ "$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)" -ge 66 ]; then
	checked_move huge "qemu=10 backing=huge ram=64 rate=20 ws=16"
	vm_end b huge
else
	note "the machine has no 66 free huge pages: not tried with QEMU 10"
fi
