#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 600
# Synthetic guests of 1, 4 and 10 GiB move within the memory limits, and a GiB costs what it cost.
#
# SCALE_SIZES="1 4" for others. The times are printed, not judged: they are the machine's; judged is
# the processor time per GiB, roughly, which would grow with the guest if a step were quadratic.
. "$(dirname "$0")/lib.sh"

SIZES=${SCALE_SIZES:-1 4 10}
NEED_GIB=22
FIRST_CPU=

# Two guests of the largest size, and room for the rest.
enough_memory() {
	awk -v need=$NEED_GIB '/^MemAvailable:/ { exit $2 < need * 1048576 }' /proc/meminfo
}
[ -n "${SCALE_SIZES:-}" ] || enough_memory || skip "needs $NEED_GIB GiB of available memory"

synthetic() { on "$1" "$BUILD/tranship-synthetic" "${@:2}"; }
tell() { synthetic "$1" --ctl load "${@:2}"; }

# The most anonymous memory, KiB, that each data plane was seen with, until $LOGS/sampling is gone.
sample_memory() {
	local host pid kib
	local -A most=([a]=0 [b]=0)

	while [ -e "$LOGS/sampling" ]; do
		for host in a b; do
			pid=$(dataplane_pid $host) || continue
			kib=$(awk '/^RssAnon:/ { print $2 }' "/proc/$pid/status" 2>/dev/null)
			[ "${kib:-0}" -le "${most[$host]}" ] || most[$host]=$kib
		done
		echo "${most[a]} ${most[b]}" >"$LOGS/memory.new"
		mv "$LOGS/memory.new" "$LOGS/memory"
		sleep 0.1
	done
}

# The debug log's scans of the move, each with what its parts took.
print_scans() {
	note "scans of $1 GiB:"
	sed -n "$2,\$s/.*debug: \\(scan: .*\\)/    \\1/p" "$LOGS/transhipd-a.log"
}

move_one() {
	local gib=$1 limit from cpu source destination

	from=$(($(wc -l <"$LOGS/transhipd-a.log") + 1))
	synthetic a --name load --ram "${gib}GiB" --working-set 64MiB --dirty-rate 50 --zero 10 \
		--threads 2 >>"$LOGS/synthetic-a.log" 2>&1 &
	disown
	synthetic b --name load --ram "${gib}GiB" --threads 2 --incoming >>"$LOGS/synthetic-b.log" 2>&1 &
	disown
	eventually 60 tell a stats || fail "no synthetic guest on a"
	eventually 10 tell b stats || fail "no synthetic guest on b"
	touch "$LOGS/sampling"
	sample_memory &
	move a b load --incoming tranship:/run/tranship/vmm/load.sock
	rm "$LOGS/sampling"
	wait $!
	want_completed
	print_scans "$gib" "$from"
	read -r source destination <"$LOGS/memory"
	limit=$((64 * 1024 + gib * 1024 * 1024 / 1000))
	note "$gib GiB: anonymous memory at most $source KiB here, $destination KiB there; limit $limit"
	[ "$source" -gt 0 ] && [ "$destination" -gt 0 ] || fail "no data plane was seen"
	[ "$source" -le $limit ] && [ "$destination" -le $limit ] || fail "more than the limit"
	note "$(jq -c --argjson gib "$gib" '{gib: $gib, downtime_ms, ms_per_gib: (.total_ms / $gib),
		source_cpu_ms_per_gib: (.cpu_ms.source / $gib),
		destination_cpu_ms_per_gib: (.cpu_ms.destination / $gib)}' <<<"$RESULT")"
	cpu=$(jq --argjson gib "$gib" '(.cpu_ms.source + .cpu_ms.destination) / $gib' <<<"$RESULT")
	FIRST_CPU=${FIRST_CPU:-$cpu}
	jq -en "$cpu <= 3 * $FIRST_CPU" >/dev/null ||
		fail "a GiB of $gib costs $cpu ms of processor, of the first $FIRST_CPU"
	tell b verify || fail "it is not right: $(tell b verify)"
	kill -TERM "$(host_pids b -x tranship-synthe)"
	eventually 30 no_pids b -x tranship-synthe || fail "the guest does not end"
	eventually 30 no_pids a -x tranship-synthe || fail "the source is left"
}

hosts_up
daemon_start a --verbose
daemon_start b --verbose
for gib in $SIZES; do
	move_one "$gib"
done
