#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# qemu: 7 10
# kill -9 of either data plane or either daemon while RAM is copied: the source runs on, exit 3,
# nothing is left, and the next try succeeds. The same for the VM that is to arrive.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=50 ws=32
beats_start web
here=a
victims="dataplane-source dataplane-destination vm-destination"
[ "$QEMU" != 7 ] || victims+=" daemon-source daemon-destination"
for victim in $victims; do
	note "kill $victim"
	there=$(peer_of $here)
	move_start $here $there web --bandwidth 300Mbit
	eventually 20 in_state $here copying || fail "not copying"
	sleep 0.3
	case $victim in *-source) host=$here ;; *) host=$there ;; esac
	case $victim in
	daemon-*) pid=$(daemon_pid "$host") ;;
	dataplane-*) pid=$(dataplane_pid "$host") ;;
	vm-*) pid=$(vm_pid "$host" web) ;;
	esac
	kill -KILL "$pid"
	move_end
	want_status 3
	want '.status == "failed"'
	want '(.error.code | length > 0) and (.error.message | length > 0)'
	[ $victim != daemon-destination ] || want '.error.hint | test("transhipd does not answer")'
	[ $victim != vm-destination ] || want_code vm-gone
	[ $victim != dataplane-destination ] || want_code dataplane-died
	case $victim in *plane-destination | vm-*) want '.error.message | test("destination")' ;; esac
	case $victim in daemon-*) daemon_start "$host" ;; esac
	assert_runs $here web
	eventually 15 no_pids $there -f '^[^ ]*qemu-system' || fail "a VM is left on $there"
	assert_clean $there
	assert_clean $here web
	move $here $there web
	want_completed
	vm_verify $there web
	vm_tell $there web go
	here=$there
done
beats_stop web
want_beats ".switches | length == $(wc -w <<<"$victims")"

note "the VM itself ends while it is copied"
move_start $here "$(peer_of $here)" web --bandwidth 300Mbit
eventually 20 in_state $here copying || fail "not copying"
kill -KILL "$(vm_pid $here web)"
move_end
want_status 3
want_code vm-gone
assert_no_vm "$(peer_of $here)" web
assert_clean "$(peer_of $here)"
