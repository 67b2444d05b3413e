#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 240
# The transport benchmark between two daemons and on one host: every way of sending and placing,
# both directions, what arrives is what was sent, and nothing is left behind.
. "$(dirname "$0")/lib.sh"

ready_hosts
DEST=$(socket_of b)

# bench HOST ARGUMENTS...: $RESULT and $STATUS, as move has them.
bench() {
	local host=$1
	shift
	RESULT=$(on "$host" "$BUILD/tranship" bench --json "$@" 2>"$LOGS/bench.log")
	STATUS=$?
	note "bench $*: $STATUS $(jq -c '[.status, .gbit_per_s, .error.code]' <<<"$RESULT")"
}

want_measured() {
	want_status 0
	want '.status == "completed" and .error == null'
	want '.gbytes_per_s > 0 and .tx_cpu_s_per_gb > 0 and .rx_cpu_s_per_gb > 0'
	want '[.rows[] | .gbytes_per_s > 0 and .tx_cpu_s_per_gb > 0 and .rx_cpu_s_per_gb > 0] | all'
}

want_verified() {
	want_measured
	want '[.rows[] | .verified_chunks > 0 and .mismatched_chunks == 0 and
		.verified_chunks * 2097152 == .bytes] | all'
}

nothing_left() {
	local host
	for host in a b; do
		eventually 10 test -z "$(dataplane_pid $host)" || fail "a data plane is left on $host"
		on $host ss -Hltn | grep -q . && fail "a listener is left on $host"
		[ -z "$(find "$DIR/$host/lib" -name '*.journal')" ] || fail "a journal is left on $host"
	done
	return 0
}

for tx in sendfile uring send; do
	for rx in map pwrite new; do
		bench a "$DEST" --encrypt off --tx $tx --rx $rx --verify --streams 2 \
			--memory 32MiB --size 4KiB,64KiB,2MiB --bytes 40MiB
		want_verified
		want ".tx == \"$tx\" and (.rows | length) == 3 and .streams == 2"
		want '.rows | map(.size) == [4096, 65536, 2097152]'
	done
done
nothing_left

# Directions; a row each with --bidir, and streams of their own.
bench a "$DEST" --encrypt off --reverse --verify --streams 2 --memory 32MiB --time 300ms
want_verified
want '.rows | map(.direction) == ["reverse"]'
bench a "$DEST" --encrypt off --bidir --verify --reuse --memory 32MiB --time 300ms --size 64KiB,2MiB
want_verified
want '.rows | map(.direction) == ["forward", "reverse", "forward", "reverse"]'
for kind in zero text; do
	bench a "$DEST" --encrypt off --data $kind --verify --memory 16MiB --bytes 64MiB
	want_verified
	want ".data == \"$kind\""
done
head -c 3000000 /dev/urandom >"$DIR/shared.bytes"
bench a "$DEST" --encrypt off --data "$DIR/shared.bytes" --verify --memory 16MiB --bytes 64MiB
want_verified
want '.data == "file"'

# Compressed: as a migration's pages are, in both directions, whatever arrives is what was sent.
for compress in auto zstd zstd:1; do
	bench a "$DEST" --encrypt off --data text --compress $compress --verify --streams 2 --bidir \
		--memory 16MiB --size 4KiB,2MiB --bytes 32MiB
	want_verified
	want ".compress == \"${compress/%zstd/zstd:3}\" and (.rows | length) == 4"
	[ $compress = auto ] ||
		want '[.rows[] | .compress_ratio > 0.2 and .compress_ratio < 0.5] | all'
done
want '.rows | map(.wire_bytes < .bytes / 2 and .zero_copy_share == 0) | all'
bench a "$DEST" --encrypt off --data "$DIR/shared.bytes" --compress zstd --verify --reuse \
	--memory 16MiB --bytes 32MiB --size 64KiB,2MiB --rx new
want_verified
want '.compress_ratio > 1 and .compress_ratio < 1.01'
bench a "$DEST" --encrypt off --data text --compress auto --bandwidth 200Mbit --reverse --time 2s \
	--memory 32MiB
want_measured
want '.compress_ratio < 0.9 and .gbit_per_s > 0.21'
want '.wire_bytes * 8 / .seconds < 240e6'
bench a "$DEST" --encrypt off --compress auto --latency
want_status 2
want '.status == "refused" and .error.code == "unsupported-option"'

# Time, what is omitted of it, intervals, limits.
bench a "$DEST" --encrypt off --time 1s --omit 300ms --interval 200ms --memory 32MiB
want_measured
want '.seconds >= 0.99 and .seconds < 5'
want '.rows[0].intervals | length >= 1 and length <= 6'
want '.rows[0].intervals | map(.gbytes_per_s > 0 and .tx_cpu_s_per_gb > 0) | all'
want '.rows[0].intervals[0].rx_cpu_s_per_gb > 0'
want '.rows[0] | [.intervals[].bytes] as $each | ($each | add) <= .bytes'
want '.rows[0].intervals | [.[:-1], .[1:]] | transpose | map(.[0].end_s == .[1].start_s) | all'
bench a "$DEST" --encrypt off --time 1s --bandwidth 400Mbit --streams 3 --memory 32MiB --size 64KiB
want_measured
want '.gbit_per_s > 0.1 and .gbit_per_s < 0.44'
bench a "$DEST" --encrypt off --bytes 100MiB --memory 32MiB
want_measured
want '.bytes == 104857600 and .compress == "off" and .compress_ratio > 1'

# Latency: of a header, and of pages that are in place when they are acknowledged.
bench a "$DEST" --encrypt off --latency --time 300ms --size 4KiB,64KiB
want_status 0
want '.rows | map(.kind == "latency" and (.latency_us | .count > 10 and .min > 0 and .min <= .p50
	and .p50 <= .p99 and .p99 <= .p99_9 and .p99_9 <= .max)) | all'
bench a "$DEST" --encrypt off --latency --time 300ms --reverse
want_status 0
want '.latency_us.count > 10 and .rows[0].size == 0'

# What goes into the packets, and where the threads run.
bench a "$DEST" --encrypt off --time 200ms --memory 16MiB --tos af21 --congestion cubic --affinity 0/1
want_measured
want '.congestion == "cubic" and .tos == 72'
bench a "$DEST" --encrypt off --time 200ms --congestion nonesuch
want_status 2
want '.status == "refused" and .error.code == "unsupported-option" and (.rows | length) == 0'

# Several addresses: streams are spread over them.
on b ip address add 10.77.0.3/24 dev mig0
daemon_kill b
daemon_start b --data-address 10.77.0.3
bench a "$DEST" --encrypt off --time 500ms --streams 4 --memory 32MiB
want_measured
want '.addresses == ["10.77.0.2", "10.77.0.3"]'

# Without a daemon.
bench a --local --bytes 64MiB --memory 16MiB --verify --bidir
want_verified
bench a --local --bytes 32MiB --memory 16MiB --verify --data text --compress zstd:1
want_verified
want '.compress_ratio < 0.5'
nothing_left
