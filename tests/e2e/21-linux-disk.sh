#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 170
# A disk that both hosts see, read all the time by direct I/O in the guest: what DMA wrote into the
# guest's RAM during the move is there afterwards, with each kind of asynchronous I/O.
. "$(dirname "$0")/lib.sh"

need_linux_guest
ready_hosts
disk=$DIR/shared/disk.raw
truncate -s 32M "$disk"
for options in cache=none,aio=io_uring cache=none,aio=native cache=none,aio=threads cache=writeback; do
	note "$options"
	linux_start a web "disk=$disk" "disk_options=$options" rate=10
	vm_tell a web disk-fill || fail "disk-fill"
	vm_tell a web disk-go
	sleep 0.3
	here=a
	for n in 1 2; do
		there=$(peer_of $here)
		move $here $there web
		want_completed
		answer=$(vm_tell $there web disk-verify) || fail "disk: $answer"
		note "move $n: $answer"
		[[ $answer == "V ok slots="[1-9]* ]] || fail "nothing was read: $answer"
		vm_verify $there web
		vm_tell $there web disk-go
		vm_tell $there web go
		here=$there
	done
	# The check itself finds a block that is not what it was.
	if [ "$options" = cache=writeback ]; then
		vm_tell a web disk-verify >/dev/null || fail "disk"
		printf x | dd of="$disk" bs=1 seek=8192000 conv=notrunc status=none
		vm_tell a web disk-verify && fail "a changed block was not seen"
	fi
	vm_end a web
done
