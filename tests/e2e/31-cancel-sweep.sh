#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 170
# Cancelled at moments spread over the whole move, the hand-over among them: it either is cancelled
# and the source runs, or it completes and the destination runs; exactly one of them, each time.
# shellcheck disable=SC2034
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web ram=96 rate=40 ws=32
beats_start web
move a b web
want_completed
whole=$(jq '.total_ms | floor' <<<"$RESULT")
note "a whole move takes $whole ms"
here=b
cancelled=0
completed=0
for n in $(seq 0 19); do
	there=$(peer_of $here)
	: >"$LOGS/result"
	cli $here migrate web "$(socket_of $there)" --encrypt off --json >"$LOGS/result" \
		2>>"$LOGS/progress-$here.log" &
	MOVE=$!
	# The last third densely: there lies the hand-over.
	delay=$((n < 6 ? whole * n / 9 : whole * (60 + (n - 6) * 4) / 100))
	sleep "$(printf '%d.%03d' $((delay / 1000)) $((delay % 1000)))"
	pid=$(host_pids $here -x tranship) && kill -INT "$pid"
	move_end
	case $STATUS in
	0)
		completed=$((completed + 1))
		assert_runs $there web
		assert_no_vm $here web
		here=$there
		;;
	130)
		cancelled=$((cancelled + 1))
		assert_runs $here web
		eventually 10 no_pids $there -f '^[^ ]*qemu-system' || fail "a VM is left on $there"
		;;
	*) fail "neither cancelled nor completed" ;;
	esac
	assert_clean "$(peer_of $here)"
	assert_clean $here web
	vm_verify $here web
	vm_tell $here web go >/dev/null
done
note "$cancelled cancelled, $completed completed"
[ "$cancelled" -gt 0 ] && [ "$completed" -gt 0 ] || fail "the sweep saw one outcome only"
beats_stop web
