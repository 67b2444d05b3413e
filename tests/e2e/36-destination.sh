#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# A destination that is too small, gone, busy, or does not allow plaintext; a lost link.
. "$(dirname "$0")/lib.sh"

hosts_up
daemon_start a
daemon_start b --sessions-max 1
vm_start a web rate=30
vm_start a two rate=30 ram=128
beats_start web

note "too small: what /proc/meminfo of b says"
sed 's/^\(MemAvailable\|MemFree\): .*/\1:      102400 kB/' /proc/meminfo >"$DIR/meminfo"
on b mount --bind "$DIR/meminfo" /proc/meminfo
move a b web
want_status 2
want_code memory
assert_runs a web
on b umount /proc/meminfo
assert_clean b

note "too small: the file system that RAM would be in"
on b mount -o remount,size=64M /dev/shm
move a b web
want_status 2
want_code memory
assert_runs a web
assert_clean b
for when in before during; do
	note "too small: it is full $when the copy, and the checks could not know"
	[ $when = before ] || on b mount -o remount,size=4G /dev/shm
	move_start a b web --bandwidth 300Mbit --skip-check memory
	eventually 10 in_state a copying || fail "not copying"
	[ $when = before ] || on b mount -o "remount,size=$(($(on b df -k --output=used /dev/shm |
		tail -n 1) + 16384))k" /dev/shm
	move_end
	want_status 3
	want_code memory
	want '.error.message | test("destination has no memory .*No space left on device")'
	want '.error.hint | length > 0'
	assert_runs a web
	await_no_vm b 10
	assert_clean b
done
on b mount -o remount,size=4G /dev/shm

for when in copying loading; do
	note "its transhipd is told to end, $when"
	[ $when = copying ] && limit=300Mbit || limit=2Gbit
	move_start a b web --bandwidth $limit
	[ $when = loading ] || eventually 10 in_state a copying || fail "not copying"
	[ $when = copying ] || eventually 20 grep -q "fault at destination.load" "$LOGS/transhipd-b.log" ||
		fail "it does not load"
	kill -TERM "$(daemon_pid b)"
	move_end
	want_status 3
	want_code peer-failed
	want '.error.message == "The destination'"'"'s transhipd ends."'
	assert_runs a web
	eventually 10 no_pids b -x transhipd || fail "transhipd on b does not end"
	assert_clean b
	[ $when = copying ] || fault=
	TRANSHIP_FAULT=${fault-destination.load:sleep=500} daemon_start b
done

note "given up there"
move_start a b web --bandwidth 300Mbit
eventually 10 in_state a copying || fail "not copying"
cli b resolve "$(session_id b)" --give-up >/dev/null || fail "give-up"
move_end
want_status 3
want_code peer-failed
want '.error.message | test("person")'
assert_runs a web
assert_clean b

note "busy"
move_start a b web --bandwidth 100Mbit
eventually 10 in_state a copying || fail "not copying"
second=$(cli a migrate two "$(socket_of b)" --encrypt off --json 2>/dev/null)
status=$?
note "exit $status: $second"
jq -e '.error.code == "busy"' <<<"$second" >/dev/null || fail "not busy: $second"
vm_runs a two || fail "the refused VM does not run"

note "the link goes"
"$HOSTS" link "$DIR" down
move_end
want_status 3
assert_runs a web
"$HOSTS" link "$DIR" up
await_no_vm b
assert_clean b

note "it does not answer: the time limit counts before anything is copied"
daemon=$(daemon_pid b)
kill -STOP "$daemon"
move a b web --timeout 3s
# nsenter, which waits for it, stops with it
kill -CONT "$daemon" "$(awk '/^PPid:/ { print $2 }' "/proc/$daemon/status")"
want_status 3
want_code timeout
assert_runs a web
await_no_vm b 30

note "the link carries nothing: likewise"
"$HOSTS" link "$DIR" mute
move a b web --timeout 2s
want_status 3
want_code timeout
assert_runs a web
"$HOSTS" link "$DIR" up
await_no_vm b 30
assert_clean b

note "gone"
daemon_kill b
move a b web
want_status 3
want_code peer-unreachable
assert_runs a web
assert_clean a "(web|two)"

note "plaintext is not allowed there"
on b "$BUILD/transhipd" --data-address 10.77.0.2 >>"$LOGS/transhipd-b.log" 2>&1 &
disown
eventually 10 daemon_answers b || fail "no daemon"
move a b web
want_status 2
want_code plaintext-refused
assert_runs a web
beats_stop web
