#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 300
# Either transhipd is killed in post-copy, or the destination's told to end, and started again: the
# guest waits, and then goes on. So it does if the source's VMM was killed too: its RAM is still there.
. "$(dirname "$0")/lib.sh"

ready_hosts
done_on() { cli "$1" status --json | jq -e --arg id "$2" '[.. | objects | select(.id? == $id)] |
	first | .terminal and .state == "done"' >/dev/null; }

# shows HOST FILTER: of the session, which is SHOWN.
shows() {
	SHOWN=$(cli "$1" status "$id" --json) && jq -e "$2" <<<"$SHOWN" >/dev/null
}

for what in b b-is-told a a-and-its-vm; do
	side=${what%%-*}
	note "transhipd of $side is killed ($what)"
	vm_start a "vm$side" ram=128 rate=40 ws=100 grain=16
	beats_start "vm$side"
	move_start a b "vm$side" --mode postcopy --bandwidth 300Mbit
	eventually 40 serving || fail "post-copy does not begin"
	id=$(session_id a)
	linger "vm$side" 10 40Mbit
	eventually 5 shows a '.goals.bandwidth == 5000000' || fail "not tuned"
	sleep 0.5
	serving || fail "post-copy was over too soon"
	if [ "$what" = b-is-told ]; then
		kill -TERM "$(daemon_pid b)"
		eventually 10 no_pids b -x transhipd || fail "transhipd on b does not end"
	else
		daemon_kill $side
	fi
	if [ "$what" = a-and-its-vm ]; then
		kill -KILL "$(vm_pid a "vm$side")"
		rm -f "$DIR/a/vm/vm$side".*
	fi
	sleep 1
	daemon_start $side
	# what is left is known at once, and what was asked for still counts
	if [ $side = b ]; then
		shows b '.terminal or (.progress | .total_bytes == 134217728 and .pending_bytes > 0
			and .percent > 0 and .percent < 100)' || fail "the destination shows $SHOWN"
	fi
	eventually 5 shows a '.goals.bandwidth == 5000000' || fail "forgotten: $SHOWN"
	if [ "$what" = a ]; then
		# and the one that took it over is told to end: with a second word, at once
		until no_pids a -x transhipd; do
			kill -TERM "$(daemon_pid a)" 2>/dev/null
			sleep 0.1
		done
		! grep -q "${id:0:8} unresolved" "$LOGS/transhipd-a.log" || fail "nothing is unresolved"
		daemon_start a
	fi
	# the rest sooner, and not so soon that nothing is to be told of it
	cli a tune "$id" --bandwidth 150Mbit || note "it is over already"
	STATUS=0
	wait "$MOVE" || STATUS=$?
	eventually 60 done_on a "$id" || fail "the source does not come to its end"
	eventually 20 done_on b "$id" || fail "the destination does not come to its end"
	[ $side = a ] || [ "$STATUS" = 0 ] || fail "exit $STATUS"
	shows a '.result | .status == "completed" and (.rounds | length) >= 1 and .downtime_ms > 1
		and .downtime.pause_ms > 0 and .total_ms > 1500 and .setup_ms > 0
		and .ram.wire_bytes > 1000000 and .ram.total_bytes == 134217728
		and .tracker == "pagemap" and .cpu_ms.source > 0 and .cpu_ms.destination > 0' ||
		fail "the account: $(jq -c .result <<<"$SHOWN")"
	shows a '.result.postcopy | .complete and .faults > 0
		and .interruptions >= 1 and .interrupted_ms >= 900' ||
		fail "the outage is not in it: $(jq -c .result.postcopy <<<"$SHOWN")"
	[ $side = b ] || shows a '.result.restarted' || fail "transhipd was restarted"
	note "$(jq -c '.result | {total_ms, downtime_ms, postcopy}' <<<"$SHOWN")"
	cli b status "$id" | grep -q "vm$side has arrived" || fail "$(cli b status "$id" 2>&1)"
	assert_runs b "vm$side"
	assert_no_vm a "vm$side"
	vm_verify b "vm$side"
	beats_stop "vm$side"
	assert_clean a
	assert_clean b "vm$side"
	vm_end b "vm$side"
done

note "transhipd of b is told to end when all has come, and nobody has said so: the guest is not left alone"
daemon_kill b
TRANSHIP_FAULT=destination.journal.running.before:sleep=2500 daemon_start b
vm_start a all ram=64 ws=16
beats_start all
move_start a b all --mode postcopy
eventually 40 session_says a '.state == "running" and .progress.pending_bytes == 0' ||
	fail "not all is sent: $SESSION"
id=$(session_id a)
kill -TERM "$(daemon_pid b)"
eventually 10 no_pids b -x transhipd || fail "transhipd on b does not end"
TRANSHIP_FAULT='' daemon_start b
move_end
want_completed
vm_verify b all
beats_stop all
# Who waits for its word, if that was lost, waits 10 s. It may have been given before the end.
want_beats '.longest_gap_ms < 8000 and (.switches | length == 1) and .missing == 0 and .repeated == 0'
assert_clean a
assert_clean b all
