#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 180
# A data plane hangs in the pause (it lives, its sockets are alive, and it does nothing): nobody waits
# for it longer than seconds, and the guest runs on at the source.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=128 rate=100 ws=64
beats_start web
for side in a b; do
	note "the data plane of $side hangs"
	# However little the last rounds leave, the pause can be seen.
	daemon_again a source.final-copy:sleep=2000
	move_start a b web --bandwidth 400Mbit --max-downtime 3s
	eventually 20 in_state a paused || fail "the pause is not reached"
	pid=$(dataplane_pid $side)
	kill -STOP "$pid"
	start=$SECONDS
	move_end
	took=$((SECONDS - start))
	want_status 3
	want_code pause-limit
	note "it took $took s"
	# the limit of 3 s and 3 s of grace
	[ $took -le 11 ] || fail "the guest stood still for $took s"
	assert_runs a web
	kill -CONT "$pid" 2>/dev/null
	await_no_vm b
	assert_clean b
	assert_clean a web
done
move a b web
want_completed
vm_verify b web
beats_stop web
