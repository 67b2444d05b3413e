#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 170
# qemu: 7 10
# Ten moves to and fro, every page checked after each, and never two copies. From the first move on
# the VM's RAM is in huge pages, where the kernel gives them; they are split to be tracked.
. "$(dirname "$0")/lib.sh"

ready_hosts
host_huge() { awk '/^ShmemHugePages:/ { print $2 }' /proc/meminfo; }
all_split() { [ "$(mapped_huge "$1" web)" -lt 8192 ]; }
vm_start a web rate=80 ws=64 zero=30 align=2M
beats_start web
[ "$(mapped_huge a web)" = 0 ] || note "huge pages from the start"
here=a
for n in 1 2 3 4 5 6 7 8 9 10; do
	there=$(peer_of $here)
	huge=$(mapped_huge $here web)
	note "move $n, $here to $there, $((huge / 1024)) MiB in huge pages"
	if [ "$n" = 2 ] && [ "$huge" = 0 ]; then
		[ "$(host_huge)" = 0 ] || fail "the VM's huge pages are not mapped as such"
		note "this host gives no huge pages now"
	fi
	if [ "$n" = 4 ]; then
		move_start $here $there web --bandwidth 800Mbit
		eventually 10 in_state $here copying || fail "not copying"
		eventually 5 all_split $here || fail "huge pages are tracked unsplit"
		move_end
	else
		move $here $there web
	fi
	want_completed
	assert_no_vm $here web
	vm_verify $there web
	vm_tell $there web go
	assert_clean $here
	assert_clean $there web
	here=$there
done
beats_stop web
want_beats '.switches | length == 10'
