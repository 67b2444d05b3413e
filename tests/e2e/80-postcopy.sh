#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# Post-copy of a guest that writes faster than the link carries: it runs at the destination after one
# pass, nothing is lost, and the result says what its faults cost, also when what is pushed is
# compressed. With QEMU 7.2 and, where it is unpacked, 10; RAM in a named file and in huge pages.
. "$(dirname "$0")/lib.sh"

ready_hosts
post_copied() { # NAME PROFILE [MOVE OPTIONS]
	local name=$1
	checked_move "$@" --mode postcopy
	want '.mode == "postcopy" and .status == "completed"'
	want '.postcopy | .complete and .faults > 0 and .p50_us > 0 and .p99_us >= .p50_us'
	want '.postcopy.complete_ms > 0 and .postcopy.push_bytes + .postcopy.demand_bytes > 0'
	want '.postcopy.wire_bytes > 0
		and .ram.wire_bytes >= .postcopy.wire_bytes + ([.rounds[].wire_bytes] | add)
		and .ram.raw_bytes >= .postcopy.raw_bytes and .ram.zstd_in_bytes >= .postcopy.zstd_in_bytes'
	note "$(jq -c '.postcopy + {downtime_ms, total_ms}' <<<"$RESULT")"
	vm_end b "$name"
	assert_clean b
}
post_copied web 'rate=300 ws=200' --bandwidth 800Mbit
want '.postcopy.push_bytes > 0'
post_copied squeezed 'rate=200 ws=150 plain=70' --bandwidth 400Mbit --compress zstd:1
want '.postcopy | .zstd_in_bytes > 4194304 and .zstd_out_bytes < .zstd_in_bytes / 2'
post_copied pre 'rate=200 ws=100 prealloc=1' --bandwidth 800Mbit
if [ -x "$QEMU10" ]; then
	post_copied ten 'rate=200 ws=100 qemu=10' --bandwidth 800Mbit
fi

note "huge pages"
if huge_pages 130; then
	post_copied huge 'rate=60 ws=48 ram=128 backing=huge' --bandwidth 400Mbit
else
	note "no memory for huge pages: not tried"
fi
