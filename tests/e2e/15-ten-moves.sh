#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 170
# Ten moves to and fro, every page checked after each, and never two copies.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=80 ws=64 zero=30
beats_start web
here=a
for n in 1 2 3 4 5 6 7 8 9 10; do
	there=$(peer_of $here)
	note "move $n, $here to $there"
	move $here $there web
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
