#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# How a benchmark ends otherwise than well: refused, cancelled, its daemons and data planes killed, its
# wire cut. What was measured is shown, and nothing is left on either side.
. "$(dirname "$0")/lib.sh"

ready_hosts
DEST=$(socket_of b)

bench_start() {
	on a "$BUILD/tranship" bench "$DEST" --encrypt off --json --memory 32MiB "$@" \
		>"$DIR/bench.json" 2>"$DIR/bench.err" &
	BENCH=$!
}

bench_end() {
	wait $BENCH
	STATUS=$?
	RESULT=$(tail -n 1 "$DIR/bench.json")
	note "bench: $STATUS $(jq -c '[.status, .error.code, .seconds]' <<<"$RESULT")"
}

# A row is under way: its intervals come.
moving() { [ "$(grep -c interval "$DIR/bench.err")" -ge 2 ]; }

nothing_left() {
	local host
	for host in a b; do
		eventually 15 no_dataplane $host || fail "a data plane is left on $host"
		[ -z "$(on $host ss -Hltn)" ] || fail "a listener is left on $host"
		[ -z "$(find "$DIR/$host/lib" -name '*.journal')" ] || fail "a journal is left on $host"
	done
}
no_dataplane() { ! dataplane_pid "$1"; }
sessions_over() {
	on "$1" "$BUILD/tranship" status --json | jq -e '.sessions | map(.terminal) | all'
}

for how in forward --reverse --bidir compressed; do
	case $how in
	forward) options=() ;;
	compressed) options=(--compress zstd:3 --data text --streams 2) ;;
	*) options=("$how") ;;
	esac
	# Ctrl-C: the row ends early, with its figures.
	: >"$DIR/bench.err"
	bench_start --time 60s --interval 100ms "${options[@]}"
	eventually 10 moving || fail "the benchmark does not begin"
	kill -INT "$(host_pids a -x tranship)"
	bench_end
	want_status 130
	want '.status == "cancelled" and .error.code == "cancelled"'
	want '.seconds > 0.1 and .seconds < 30 and .gbytes_per_s > 0 and .rows[0].rx_cpu_s_per_gb > 0'
	nothing_left
	sessions_over b || fail "a session is left on b"
	# The other data plane dies.
	: >"$DIR/bench.err"
	bench_start --time 60s --interval 100ms "${options[@]}"
	eventually 10 moving || fail "the benchmark does not begin"
	kill -KILL "$(dataplane_pid b)"
	bench_end
	want_status 3
	want '.status == "failed"'
	nothing_left
	sessions_over b || fail "a session is left on b"
	# The leader's data plane dies.
	: >"$DIR/bench.err"
	bench_start --time 60s --interval 100ms "${options[@]}"
	eventually 10 moving || fail "the benchmark does not begin"
	kill -KILL "$(dataplane_pid a)"
	bench_end
	want_status 3
	nothing_left
	sessions_over b || fail "a session is left on b"
done

# The leading daemon dies, and the one that is led.
: >"$DIR/bench.err"
bench_start --time 60s --interval 100ms
eventually 10 moving || fail "the benchmark does not begin"
daemon_kill a
bench_end
want_status 3
want '.error.code == "daemon-unreachable"'
daemon_start a
nothing_left
sessions_over b || fail "a session is left on b"
: >"$DIR/bench.err"
bench_start --time 60s --interval 100ms
eventually 10 moving || fail "the benchmark does not begin"
daemon_kill b
bench_end
want_status 3
daemon_start b
nothing_left

# Nobody is there, nobody may, no room.
daemon_kill b
bench_start --time 1s
bench_end
want_status 3
want '.status == "failed" and .error.code == "peer-unreachable"'
daemon_start b --sessions-max 1
: >"$DIR/bench.err"
bench_start --time 60s --interval 100ms
eventually 10 moving || fail "the benchmark does not begin"
RESULT=$(on a "$BUILD/tranship" bench "$DEST" --encrypt off --json)
STATUS=$?
want_status 2
want '.status == "refused" and .error.code == "busy"'
kill -INT "$(host_pids a -x tranship)"
bench_end
want_status 130
on a "$BUILD/tranship" bench "$DEST" --json >"$DIR/bench.json"
STATUS=$?
RESULT=$(cat "$DIR/bench.json")
want_status 2
want '.error.code == "encryption-unavailable"'
nothing_left
