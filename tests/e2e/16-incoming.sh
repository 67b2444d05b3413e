#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# A VMM that waits at the destination already, with and without -S; its name may differ.
. "$(dirname "$0")/lib.sh"

ready_hosts
for paused in "" paused=1; do
	name=web$paused
	name=${name%=1}
	vm_start a "$name" rate=40
	# shellcheck disable=SC2086
	vm_start b "$name" rate=40 incoming=1 $paused ram_file=/dev/shm/$name.other
	beats_start "$name"
	move a b "$name" --incoming "qemu:/run/vm/$name.qmp"
	want_completed
	assert_runs b "$name"
	assert_no_vm a "$name"
	vm_verify b "$name"
	beats_stop "$name"
	want_beats '.switches | length == 1'
	assert_clean a
	vm_end b "$name"
	on b rm -f "/dev/shm/$name.other"
done

note "one whose RAM is of another size is refused, and left waiting"
vm_start a web rate=40
vm_start b web ram=128 incoming=1
move a b web --incoming qemu:/run/vm/web.qmp
want_status 2
want_code ram-layout
assert_runs a web
[ "$(vm_status b web)" = inmigrate ] || fail "the waiting VM does not wait any more"
assert_clean a web
