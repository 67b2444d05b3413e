#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# qemu: 7 10
# A disk image that the destination cannot lock: the move rolls back, and the guest runs on at the
# source with its disk. And a disk that is not the same file on both hosts is refused before.
. "$(dirname "$0")/lib.sh"

need_linux_guest
ready_hosts
disk=$DIR/shared/disk.raw
truncate -s 16M "$disk" "$DIR/shared/other.raw"
linux_start a web "disk=$disk"
vm_tell a web disk-fill || fail "disk-fill"
vm_tell a web disk-go

# On b another file lies in its place.
on b mount --bind "$DIR/shared/other.raw" "$disk"
move a b web
want_status 2
want_code disk-not-shared
assert_clean b
assert_clean a web

# Somebody writes to it there, and holds its lock.
on b sh -c "sleep 1000 | qemu-io -f raw $disk" >"$LOGS/locker.log" 2>&1 &
disown
eventually 5 host_pids b -x qemu-io || fail "no locker"
sleep 0.3
beats_start web
move a b web --skip-check disk
want_status 3
want '.status == "failed"'
want_code disk-locked
assert_runs a web
vm_tell a web disk-verify || fail "the disk is not right"
vm_tell a web disk-fill || fail "the disk cannot be written any more"
assert_no_vm b web
assert_clean b
assert_clean a web
beats_stop web
kill -KILL "$(host_pids b -x qemu-io)"
# busy until it has ended
eventually 5 on b umount "$disk" || fail "umount"

# Without the locker it moves.
vm_tell a web disk-go
move a b web
want_completed
vm_tell b web disk-verify || fail "the disk is not right"
vm_verify b web
