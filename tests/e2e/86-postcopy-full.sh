#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# Post-copy where the destination's state directory has no room for what is missing: said before the
# pause. Where it fills up afterwards, what was asked for is there.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=96 rate=20 ws=30 grain=16
beats_start web
STATE=/var/lib/tranship

# The file takes 64 KiB; a session's journal a few.
daemon_kill b
on b mount -t tmpfs -o size=48k none $STATE
daemon_start b
move a b web --mode postcopy --bandwidth 400Mbit --compress off
want_status 3
want_code state-dir-full
want '(.error.message | contains("/postcopy/")) and .downtime_ms == null'
assert_runs a web
on b sh -c "! ls $STATE/postcopy/* 2>/dev/null" || fail "a file is left"
daemon_kill b
on b umount $STATE

# Full from when post-copy has been prepared: nobody dies of it, and the guest runs somewhere, whole.
on b mount -t tmpfs -o size=256k none $STATE
TRANSHIP_FAULT=destination.postcopy:sleep=2000 daemon_start b
move_start a b web --mode postcopy --bandwidth 400Mbit --compress off
eventually 30 on b sh -c "ls $STATE/postcopy/*" || fail "post-copy is not prepared"
on b sh -c "cat /dev/zero >$STATE/fill 2>/dev/null; true"
move_end
grep -q "dataplane-died\|ended unexpectedly" "$LOGS/transhipd-b.log" && fail "a data plane died"
case $STATUS in
0)
	want_completed
	assert_runs b web
	vm_verify b web
	;;
*)
	want_status 3
	want '.error.code | IN("journal", "peer-failed")'
	assert_runs a web
	vm_verify a web
	;;
esac
on b rm -f $STATE/fill
beats_stop web
