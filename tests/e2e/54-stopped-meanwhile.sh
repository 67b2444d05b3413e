#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# A VM that its user stops while it is copied stays stopped: at the destination, where a barrier
# against DMA in flight would run it on, and at the source when the move fails.
. "$(dirname "$0")/lib.sh"

ready_hosts
stopped_in_copying() {
	move_start a b web --bandwidth 500Mbit
	# not in the milliseconds in which the barrier has stopped it: see transhipd(8), LIMITATIONS
	eventually 10 session_says a '.progress.sent_bytes > 0' || fail "not copying: $SESSION"
	vm_qmp a web stop >/dev/null
	[ "$(vm_status a web)" = paused ] || fail "it is $(vm_status a web)"
}
goes_on() {
	vm_qmp "$1" web cont >/dev/null
	assert_runs "$1" web
	vm_verify "$1" web
	assert_clean "$1" web
}

vm_start a web rate=20 ram=192
stopped_in_copying
move_end
want_completed
[ "$(vm_status b web)" = paused ] || fail "at the destination it is $(vm_status b web)"
goes_on b
vm_end b web

note "with direct I/O"
truncate -s 16M "$DIR/disk.img"
vm_start a web rate=20 ram=192 disk="$DIR/disk.img" disk_options=cache=none,aio=native
stopped_in_copying
for _ in $(seq 20); do
	[ -z "$(vm_pid a web)" ] || case $(vm_status a web 2>/dev/null) in
	running) fail "it was run on while it was copied" ;;
	esac
	sleep 0.1
done
move_end
want_completed
[ "$(vm_status b web)" = paused ] || fail "at the destination it is $(vm_status b web)"
goes_on b
vm_end b web

note "and the move fails after that"
daemon_again a source.load:error
vm_start a web rate=20 ram=192
stopped_in_copying
move_end
want_status 3
case $(vm_status a web) in
paused | postmigrate) ;;
*) fail "at the source it is $(vm_status a web)" ;;
esac
goes_on a
assert_clean b

note "stopped before"
vm_qmp a web stop >/dev/null
move a b web
want_completed
[ "$(vm_status b web)" = paused ] || fail "at the destination it is $(vm_status b web)"
goes_on b
