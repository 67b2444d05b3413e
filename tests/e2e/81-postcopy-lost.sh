#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 300
# In post-copy whatever is lost comes back and the guest goes on: the link for 3 s, the source's VMM,
# either data plane, also while the link is down. A cancel after the switch-over is refused with the reason.
. "$(dirname "$0")/lib.sh"

ready_hosts

begin() { # NAME: up to the middle of a post-copy
	vm_start a "$1" ram=128 rate=60 ws=100 grain=16
	beats_start "$1"
	move_start a b "$1" --mode postcopy --bandwidth 300Mbit
	eventually 40 serving || fail "post-copy does not begin"
	id=$(session_id a)
	linger "$1" 10 20Mbit
	sleep 0.5
	serving || fail "post-copy was over too soon to lose anything"
}

finish() { # NAME
	cli a tune "$id" --bandwidth unlimited || note "it is over already"
	move_end
	want_completed
	want '.mode == "postcopy" and .postcopy.complete'
	note "$(jq -c '.postcopy + {downtime_ms, total_ms}' <<<"$RESULT")"
	vm_verify b "$1"
	beats_stop "$1"
	assert_clean a
	assert_clean b "$1"
	vm_end b "$1"
}

note "the link is down for 3 s, and the source's VMM is killed: its RAM is kept"
begin link
! out=$(cli a cancel "$id" 2>&1) || fail "a cancel was accepted after the switch-over"
note "cancel: $out"
[[ $out == *"cannot be cancelled any more: the guest runs at the destination"*"[session-state]"* ]] ||
	fail "a cancel is refused without the reason: $out"
on a ip link set mig0 down
kill -KILL "$(vm_pid a link)"
rm -f "$DIR"/a/vm/link.*
sleep 3
on a ip link set mig0 up
finish link

for side in a b; do
	note "the data plane of $side is killed"
	begin "killed$side"
	[ $side = b ] || on a ip link set mig0 down
	kill -KILL "$(dataplane_pid $side | tail -1)"
	if [ $side = a ]; then
		# only the data link is away: it is tried again, but not without a pause
		sleep 4
		on a ip link set mig0 up
		tries=$(grep -c "post dst ${id:0:8}: info: destination:" "$LOGS/transhipd-b.log")
		note "$tries data planes were started there"
		[ "$tries" -le 8 ] || fail "it is tried again without a pause"
	fi
	eventually 10 grep -q "post-copy goes on" "$LOGS/transhipd-a.log" ||
		fail "it does not go on"
	finish "killed$side"
done
