#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# Compression end to end: fixed levels, auto on a slow link, differences of hot pages, none at all.
. "$(dirname "$0")/lib.sh"

ready_hosts
synthetic() { on "$1" "$BUILD/tranship-synthetic" "${@:2}"; }
tell() { synthetic "$1" --ctl load "${@:2}"; }

# The synthetic guest, half of it compressible, writes and moves with these options, and is right.
move_synthetic() {
	note "$*"
	synthetic a --name load --ram 192MiB --working-set 32MiB --dirty-rate 20 --zero 20 \
		--compressible 60 --backing memfd >>"$LOGS/synthetic-a.log" 2>&1 &
	disown
	synthetic b --name load --ram 192MiB --backing memfd --incoming \
		>>"$LOGS/synthetic-b.log" 2>&1 &
	disown
	eventually 10 tell a stats || fail "no synthetic guest on a"
	eventually 10 tell b stats || fail "no synthetic guest on b"
	move a b load --incoming tranship:/run/tranship/vmm/load.sock --max-downtime 1s "$@"
	want_completed
	tell b verify || fail "it is not right: $(tell b verify)"
	kill -TERM "$(host_pids b -x tranship-synthe)"
	eventually 5 no_pids b -x tranship-synthe
	eventually 5 no_pids a -x tranship-synthe || fail "the source is left"
}

move_synthetic --compress zstd:1 --delta-cache 0
want '.compress == "zstd:1" and .encode.level == 1 and .encode.cpu_ms > 0
	and .ram.zstd_in_bytes > 40 * 1048576
	and .ram.zstd_out_bytes < .ram.zstd_in_bytes * 0.7 and .ram.delta_in_bytes == 0'

move_synthetic --compress zstd --delta-cache 64MiB
want '.encode.level == 3 and .ram.zstd_out_bytes < .ram.zstd_in_bytes * 0.7'

move_synthetic --compress off
want '.ram.zstd_in_bytes == 0 and .ram.delta_in_bytes == 0 and .encode.level == 0
	and .encode.cpu_ms == 0'

# On 400 Mbit/s three quarters of what carries data shrink to a fifth: auto must have found out.
move_synthetic --compress auto --bandwidth 400Mbit
want '.compress == "auto" and .ram.zstd_in_bytes > 20 * 1048576
	and .ram.zstd_out_bytes < .ram.zstd_in_bytes * 0.7'

# QEMU, pages of which most stays as it was: they go as differences.
note "QEMU"
vm_start a web ram=128 rate=40 ws=24 plain=50
beats_start web
move a b web --compress zstd:1 --delta-cache 64MiB --max-downtime 300ms
want_completed
want '.ram.zstd_in_bytes > 10 * 1048576'
vm_verify b web
beats_stop web
