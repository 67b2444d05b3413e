# SPDX-License-Identifier: MIT
# shellcheck shell=bash
# What the benchmarks share: the end-to-end tests' hosts and VMs, warm memory, processor time,
# medians, and QEMU's own migration to compare with.
# shellcheck source=tests/e2e/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../tests/e2e/lib.sh"

OUT=$BUILD/bench
mkdir -p "$OUT"

# The first touch of a machine's memory is slow where the machine is itself a VM (8 us a page here
# against 1): touch it once, nearly all, for nobody knows which pages a VM will get. Freed memory goes
# back to the hypervisor within seconds if the kernel reports it: no block is as large as order 11, so
# this keeps it for as long as the benchmark runs.
# bench/run does this once for all and sets BENCH_WARM.
REPORT_ORDER=/sys/module/page_reporting/parameters/page_reporting_order
end_warm() {
	local status=$?

	echo "$REPORT_BEFORE" >$REPORT_ORDER
	[ -n "${DIR:-}" ] || exit $status
	(exit $status) # for cleanup to see
	cleanup
}
warm_memory() {
	local mib
	[ -z "${BENCH_WARM:-}" ] || return 0
	mib=$(awk '/MemAvailable/ {printf "%d", $2 / 1024 * 0.85}' /proc/meminfo)
	if [ -w $REPORT_ORDER ]; then
		REPORT_BEFORE=$(cat $REPORT_ORDER)
		echo 11 >$REPORT_ORDER
		trap end_warm EXIT
	fi
	note "warming $mib MiB of memory"
	dd if=/dev/zero of=/dev/shm/tranship-warm bs=1M count="$mib" status=none
	rm -f /dev/shm/tranship-warm
}

machine() {
	echo "$(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)," \
		"$(awk '/MemTotal/ {printf "%.0f GiB", $2 / 1048576}' /proc/meminfo), Linux $(uname -r)"
}

# quick SHORT FULL: which of the two, by BENCH_QUICK.
quick() { [ "${BENCH_QUICK:-0}" = 0 ] && echo "$2" || echo "$1"; }

# median FILE FIELD: of one number a line of JSON objects.
median() { jq -s "map($2) | sort | .[(length - 1) / 2 | floor]" "$1"; }
spread() { jq -rs "map($2) | sort | \"\(.[0])-\(.[-1])\"" "$1"; }

# Ticks of a process (utime + stime), exited threads included; of one thread.
ticks_of() { awk '{sub(/^.*\) /, ""); print $12 + $13}' "/proc/$1/stat" 2>/dev/null || echo 0; }
thread_ticks() { awk '{sub(/^.*\) /, ""); print $12 + $13}' "/proc/$1/task/$2/stat" 2>/dev/null || echo 0; }

# What a QEMU has used besides running its guest, ms: the process less its vCPU threads.
qemu_overhead_ms() {
	local pid=$1 task total hz
	hz=$(getconf CLK_TCK)
	total=$(ticks_of "$pid")
	for task in /proc/"$pid"/task/*; do
		case $(cat "$task/comm" 2>/dev/null) in
		CPU*) total=$((total - $(thread_ticks "$pid" "${task##*/}"))) ;;
		esac
	done
	echo $((total * 1000 / hz))
}

# A QMP connection kept open: qmp_open NAME SOCKET; qmp NAME COMMAND [ARGUMENTS] prints the return.
declare -A QMP_IN=() QMP_OUT=() QMP_PID=()
qmp_open() {
	local name=$1 socket=$2 line
	mkfifo "$DIR/$name.in" "$DIR/$name.out"
	socat "UNIX-CONNECT:$socket" - <"$DIR/$name.in" >"$DIR/$name.out" &
	QMP_PID[$name]=$!
	exec {QMP_IN[$name]}>"$DIR/$name.in" {QMP_OUT[$name]}<"$DIR/$name.out"
	rm "$DIR/$name.in" "$DIR/$name.out"
	read -r line <&"${QMP_OUT[$name]}"
	qmp "$name" qmp_capabilities >/dev/null
}

qmp() {
	local name=$1 line
	echo "{\"execute\":\"$2\"${3:+,\"arguments\":$3}}" >&"${QMP_IN[$name]}"
	while read -r line <&"${QMP_OUT[$name]}"; do
		case $line in
		'{"return"'*) jq -c .return <<<"$line" && return ;;
		'{"error"'*) fail "QMP $2: $line" >&2 ;;
		esac
	done
	fail "QMP $name ended in $2" >&2
}

qmp_close() {
	exec {QMP_IN[$1]}>&- {QMP_OUT[$1]}<&-
	kill "${QMP_PID[$1]}" 2>/dev/null
	wait "${QMP_PID[$1]}" 2>/dev/null
	unset "QMP_IN[$1]" "QMP_OUT[$1]" "QMP_PID[$1]"
}

vm_end() {
	local host=$1 name=$2 pid
	if pid=$(vm_pid "$host" "$name"); then
		kill -KILL "$pid"
		eventually 10 test ! -d "/proc/$pid" || fail "QEMU does not end"
	fi
	rm -f "$DIR/$host/vm/$name".*
	on "$host" sh -c 'rm -f /dev/shm/*'
}

# As beats_stop of the tests, but without judging.
beats_take() {
	kill -TERM "${LISTENER[$1]}"
	wait "${LISTENER[$1]}"
	unset "LISTENER[$1]"
	BEATS=$(cat "$LOGS/$1.beats")
	note "beats: $BEATS"
}
