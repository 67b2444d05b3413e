# SPDX-License-Identifier: MIT
# shellcheck shell=bash disable=SC2034
# What every end-to-end test sources: two hosts, their daemons, VMs, moves and assertions.
#
#   . "$(dirname "$0")/lib.sh"
#   hosts_up
#   daemon_start a; daemon_start b
#   vm_start a web ram=256 rate=50        # ready when it obeys commands
#   beats_start web
#   move a b web --max-downtime 300ms     # $RESULT: the JSON object, $STATUS: the exit code
#   want_status 0
#   want '.status == "completed"'
#   vm_verify b web
#   beats_stop web                        # exactly once: no beat missing, none repeated
#   assert_clean a; assert_clean b web
#
# Everything is undone on exit, however the test ends. Processes are found by the PID namespace of
# their host, never by name alone.
set -u

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
BUILD=$(realpath -m "${BUILD:-$TOP/build}")
CACHE=${TRANSHIP_TEST_CACHE:-/var/cache/tranship-test}
HOSTS=$TOP/tools/two-hosts
BEATCTL=$BUILD/guest/beatctl
QEMU10=$CACHE/qemu10/root/usr/bin/qemu-system-x86_64
QEMU7=/usr/bin/qemu-system-x86_64
# A case may be given the QEMU of its VMs that name none: 15-ten-moves.sh qemu=10
QEMU=7
case ${1:-} in qemu=*) QEMU=${1#qemu=} ;; esac
RESULT='{}'
STATUS=0
# The CLI that move_start began: for tests that interrupt it.
export CLI_PID=
MOVE=
# The host of the guest that crash_at moves.
HERE=a
declare -a VM_ARGS=()
# Words that vm_start and linux_start add to QEMU's command line.
declare -a EXTRA_ARGS=()
declare -A LISTENER=() DAEMON_OPTIONS=()

note() { printf '%s %s\n' "$(date +%T.%3N)" "$*"; }

fail() {
	note "FAIL: $*"
	local i
	for ((i = 1; i < ${#FUNCNAME[@]}; i++)); do
		printf '  at %s:%s %s\n' "${BASH_SOURCE[i]##*/}" "${BASH_LINENO[i - 1]}" "${FUNCNAME[i]}"
	done
	exit 1
}

skip() {
	echo "$*"
	exit 77
}

need_root() { [ "$(id -u)" = 0 ] || skip "needs root"; }

need_qemu10() {
	[ -x "$QEMU10" ] || skip "$(cat "$CACHE/qemu10.reason" 2>/dev/null ||
		echo "QEMU 10 is not unpacked in $CACHE: run tools/install-deps test")"
}

need_linux_guest() {
	[ -s "$BUILD/guest/linux-initramfs" ] || skip "$(cat "$CACHE/kernel.reason" 2>/dev/null ||
		echo "no kernel is unpacked in $CACHE: run tools/install-deps test")"
}

# Waits until a command succeeds: eventually SECONDS COMMAND...
eventually() {
	local end=$((SECONDS + $1)) start=$SECONDS
	shift
	until "$@" >/dev/null 2>&1; do
		[ "$SECONDS" -le "$end" ] || {
			note "not within $((SECONDS - start)) s: $*"
			return 1
		}
		sleep 0.02
	done
}

# --- hosts and daemons ---------------------------------------------------------------------------

hosts_up() {
	need_root
	[ "$QEMU" != 10 ] || need_qemu10
	DIR=$(mktemp -d /tmp/ts.XXXXXX)
	chmod 755 "$DIR"
	LOGS=$DIR/logs
	mkdir "$LOGS"
	trap cleanup EXIT
	trap 'exit 143' TERM INT PIPE
	"$HOSTS" up "$DIR" "$@" || fail "two-hosts up"
}

cleanup() {
	local status=$? f

	trap - EXIT
	trap '' PIPE
	set +e
	if [ "$status" != 0 ] && [ "$status" != 77 ]; then
		for f in "$LOGS"/*.log; do
			[ -s "$f" ] && echo "--- ${f##*/}" && tail -n 25 "$f"
		done
	fi
	[ ${#LISTENER[@]} = 0 ] || kill "${LISTENER[@]}" 2>/dev/null
	[ -z "${PAGES_BEFORE:-}" ] || echo "$PAGES_BEFORE" >/proc/sys/vm/nr_hugepages
	"$HOSTS" down "$DIR" >/dev/null 2>&1
	wait 2>/dev/null
	# Control groups are the machine's: what a host was killed with is left there.
	for f in "$DIR"/?/lib/sessions/*.source.journal; do
		f=${f##*/}
		find /sys/fs/cgroup -depth -type d -path "*/tranship-${f%%.*}*" -exec rmdir {} + 2>/dev/null
	done
	[ -n "${TRANSHIP_KEEP_LOGS:-}" ] && cp -r "$LOGS" "$TRANSHIP_KEEP_LOGS"
	rm -rf "$DIR"
	exit "$status"
}

on() { "$HOSTS" run "$DIR" "$@"; }

# Process numbers of a host as seen from here, by pgrep's options: host_pids a -x transhipd
host_pids() {
	local holder
	holder=$("$HOSTS" pid "$DIR" "$1") || return 1
	shift
	pgrep --ns "$holder" --nslist pid "$@"
}

address_of() { [ "$1" = a ] && echo 10.77.0.1 || echo 10.77.0.2; }
peer_of() { [ "$1" = a ] && echo b || echo a; }
socket_of() { echo "unix:$DIR/$1/run/transhipd.sock"; }

daemon_answers() { on "$1" "$BUILD/tranship" list; }

# daemon_start HOST [OPTIONS]; the options are remembered for the next start.
daemon_start() {
	local host=$1
	shift
	[ $# = 0 ] || DAEMON_OPTIONS[$host]=$*
	# shellcheck disable=SC2086
	on "$host" "$BUILD/transhipd" --allow-plaintext --data-address "$(address_of "$host")" \
		--qemu-binary "$QEMU7" --qemu-binary "$QEMU10" ${DAEMON_OPTIONS[$host]:-} \
		>>"$LOGS/transhipd-$host.log" 2>&1 &
	local started=$!
	disown
	eventually 10 daemon_answers_or_died "$host" "$started"
	daemon_answers "$host" >/dev/null || fail "transhipd on $host does not answer"
}

daemon_answers_or_died() { ! kill -0 "$2" 2>/dev/null || daemon_answers "$1"; }

daemon_pid() { host_pids "$1" -x transhipd; }

daemon_kill() {
	local pid
	pid=$(daemon_pid "$1") || fail "no transhipd on $1"
	kill -KILL "$pid"
	eventually 10 test ! -d "/proc/$pid" || fail "transhipd on $1 does not die"
}

# daemon_again HOST [FAULT]: killed and started, with a fault or without.
daemon_again() {
	daemon_kill "$1"
	TRANSHIP_FAULT=${2:-} daemon_start "$1"
}

dataplane_pid() { host_pids "$1" -x tranship-datapl; }

ready_hosts() {
	hosts_up "$@"
	daemon_start a
	daemon_start b
}

# --- VMs -----------------------------------------------------------------------------------------

vm_socket() { echo "$DIR/$1/vm/$2.$3"; }
vm_pid() { host_pids "$1" -f "^[^ ]*qemu-system-x86_64 .*-name guest=$2(,| )"; }

# One setting of a profile, or its default.
profile() {
	local profile=$1 key=$2 word
	for word in $profile; do
		[ "${word%%=*}" = "$key" ] && echo "${word#*=}" && return
	done
	echo "$3"
}

# vm_start HOST NAME [KEY=VALUE...] starts a bare-metal guest and waits until it obeys.
#   ram=MiB (256)  backing=file|memfd|huge (file)  qemu=7|10 (the case's)  accel=tcg|kvm (tcg)
#   rate=MiB/s (20)  ws=MiB (32)  pattern=seq|rand|zipf (rand)  zero=% (20)  grain=pages (64)
#   plain=% (0)
#   use=MiB (0: all)  beat=ms (2)  spin=0|1 (0)  prealloc=1  disk=PATH  disk_options=...
#   incoming=1 (waits for a migration)  paused=1 (-S)  ram_file=PATH  machine=TYPE
#   align=2M (of its mapping of the RAM file: huge pages can then be mapped whole)
#   EXTRA_ARGS, an array, is added to the command line.
vm_start() {
	local host=$1 name=$2 p
	shift 2
	p="$*"
	vm_command "$host" "$name" "$p"
	on "$host" "${VM_ARGS[@]}" >>"$LOGS/qemu-$host-$name.log" 2>&1 &
	disown
	if [ -n "$(profile "$p" incoming '')$(profile "$p" paused '')" ]; then
		eventually 10 test -S "$(vm_socket "$host" "$name" qmp)" || fail "QEMU does not start"
		return
	fi
	"$BEATCTL" ready --timeout 30 "$(vm_socket "$host" "$name" ctl)" ||
		fail "guest $name does not answer"
}

vm_backend() {
	local name=$1 p=$2 size=$3 more=

	[ -z "$(profile "$p" prealloc '')" ] || more=,prealloc=on
	[ -z "$(profile "$p" align '')" ] || more+=,align=$(profile "$p" align '')
	case $(profile "$p" backing file) in
	file) echo "memory-backend-file,id=ram0,size=$size,mem-path=$(profile "$p" ram_file \
		"/dev/shm/$name.ram"),share=on$more" ;;
	memfd) echo "memory-backend-memfd,id=ram0,size=$size,share=on$more" ;;
	huge) echo "memory-backend-file,id=ram0,size=$size,mem-path=/dev/hugepages/$name.ram,share=on$more" ;;
	private) echo "memory-backend-ram,id=ram0,size=$size" ;;
	esac
}

# Fills VM_ARGS.
vm_command() {
	local name=$2 p=$3 size word append=
	local -a firmware=() disk=()

	size=$(profile "$p" ram 256)M
	VM_ARGS=("$QEMU7")
	if [ "$(profile "$p" qemu "$QEMU")" = 10 ]; then
		VM_ARGS=("$QEMU10")
		firmware=(-L "$CACHE/qemu10/root/usr/share/qemu" -L
			"$CACHE/qemu10/root/usr/share/seabios" -L /usr/share/qemu)
	fi
	for word in "rate=$(profile "$p" rate 20)" "ws=$(profile "$p" ws 32)" \
		"pattern=$(profile "$p" pattern rand)" "zero=$(profile "$p" zero 20)" "grain=$(profile "$p" grain 64)" \
		"plain=$(profile "$p" plain 0)" "ram=$(profile "$p" use 0)" \
		"beat=$(profile "$p" beat 2)" "seed=$(profile "$p" seed 1)" \
		"spin=$(profile "$p" spin 0)"; do
		append="$append $word"
	done
	if [ -n "$(profile "$p" disk '')" ]; then
		disk=(-drive "file=$(profile "$p" disk ''),if=none,id=disk0,format=raw,$(profile "$p" \
			disk_options cache=writeback)" -device "virtio-blk-pci,drive=disk0,id=vblk0")
	fi
	VM_ARGS+=("${firmware[@]}" -name "guest=$name" -machine
		"$(profile "$p" machine pc),memory-backend=ram0,accel=$(profile "$p" accel tcg)"
		-m "$size" -object "$(vm_backend "$name" "$p" "$size")" -nodefaults -display none
		-kernel "$BUILD/guest/beater.elf" -append "${append# }"
		-qmp "unix:/run/vm/$name.qmp,server=on,wait=off"
		-qmp "unix:/run/vm/$name.mon,server=on,wait=off"
		-chardev "socket,id=beat,path=/run/vm/$name.beat,server=on,wait=off" -serial chardev:beat
		-chardev "socket,id=ctl,path=/run/vm/$name.ctl,server=on,wait=off" -serial chardev:ctl
		"${disk[@]}")
	[ -z "$(profile "$p" incoming '')" ] || VM_ARGS+=(-incoming defer)
	[ -z "$(profile "$p" paused '')" ] || VM_ARGS+=(-S)
	VM_ARGS+=("${EXTRA_ARGS[@]}")
}

# linux_start HOST NAME [KEY=VALUE...]: the Linux guest, until its program answers.
#   ram=MiB (192)  use=MiB (64)  rate (10)  ws (16)  beat=ms (5)  qemu=7|10  net=1 (on guest-net)
#   disk=PATH disk_options=...  machine=TYPE
linux_start() {
	local host=$1 name=$2 p
	shift 2
	p="$*"
	need_linux_guest
	linux_command "$name" "$p"
	on "$host" "${VM_ARGS[@]}" >>"$LOGS/qemu-$host-$name.log" 2>&1 &
	disown
	"$BEATCTL" ready --timeout 60 "$(vm_socket "$host" "$name" ctl)" ||
		fail "Linux guest $name does not answer"
}

linux_command() {
	local name=$1 p=$2 append

	append="console=ttyS2 quiet loglevel=0 mitigations=off nokaslr ts.ram=$(profile "$p" use 64)"
	append+=" ts.ws=$(profile "$p" ws 16) ts.rate=$(profile "$p" rate 10)"
	append+=" ts.beat=$(profile "$p" beat 5) ts.address=10.78.0.2"
	vm_command - "$name" "ram=$(profile "$p" ram 192) $p"
	local -a args=()
	local word next=
	for word in "${VM_ARGS[@]}"; do
		case $next in
		-kernel) word=$CACHE/kernel/vmlinux ;;
		-append) word=$append ;;
		esac
		next=$word
		args+=("$word")
	done
	VM_ARGS=("${args[@]}" -initrd "$BUILD/guest/linux-initramfs"
		-device "virtio-balloon-pci,id=balloon0")
	[ -z "$(profile "$p" net '')" ] || VM_ARGS+=(-netdev
		"tap,id=net0,ifname=tap0,script=no,downscript=no" -device
		"virtio-net-pci,netdev=net0,mac=52:54:00:00:00:01,romfile=")
}

# A command to the guest itself: vm_tell HOST NAME WORDS
vm_tell() { "$BEATCTL" command --timeout "${TELL_TIMEOUT:-30}" "$(vm_socket "$1" "$2" ctl)" "$3"; }

# Every page right? The guest stops dirtying; resume with vm_tell HOST NAME go.
vm_verify() {
	local answer
	answer=$(vm_tell "$1" "$2" verify) || fail "guest $2 on $1: $answer"
	note "verified on $1: $answer"
}

# One QMP command on the socket that is the tests' own, during a session too; prints what it returns:
# vm_qmp HOST NAME COMMAND [ARGUMENTS]
vm_qmp() {
	"$BEATCTL" qmp --timeout 10 "$(vm_socket "$1" "$2" mon)" \
		"{\"execute\":\"$3\"${4:+,\"arguments\":$4}}" | jq -c '.return // .error'
}

# KiB of a VM's RAM that are mapped as transparent huge pages.
mapped_huge() {
	awk '/^ShmemPmdMapped:/ { n += $2 } END { print n + 0 }' "/proc/$(vm_pid "$1" "$2")/smaps"
}

# huge_pages N: so many of 2 MiB are free, for this case alone; false if the machine has not got them.
huge_pages() {
	exec 8>/run/lock/tranship-hugepages.lock
	flock -w 60 8 || fail "somebody else holds the pool of huge pages"
	PAGES_BEFORE=$(cat /proc/sys/vm/nr_hugepages)
	echo $((PAGES_BEFORE + $1)) >/proc/sys/vm/nr_hugepages
	[ "$(huge_free)" -ge "$1" ]
}
huge_free() { awk '/HugePages_Free/ { print $2 }' /proc/meminfo; }

vm_status() { vm_qmp "$1" "$2" query-status | jq -r .status; }

# The guest runs here: it answers, and QEMU says so.
vm_runs() { [ "$(vm_status "$1" "$2")" = running ] && TELL_TIMEOUT=5 vm_tell "$1" "$2" ping >/dev/null; }
assert_runs() { vm_runs "$1" "$2" || fail "guest $2 does not run on $1: $(vm_status "$1" "$2")"; }

assert_no_vm() {
	local pid
	if pid=$(vm_pid "$1" "$2"); then
		fail "VM $2 is still on $1 (pid $pid)"
	fi
}

# --- heartbeats ----------------------------------------------------------------------------------

# beats_start NAME: listens on both hosts; returns when the first beat was heard.
beats_start() {
	"$BEATCTL" listen --started "$LOGS/$1.started" --trace "$LOGS/$1.trace" \
		"$(vm_socket a "$1" beat)" "$(vm_socket b "$1" beat)" >"$LOGS/$1.beats" &
	LISTENER[$1]=$!
	eventually 10 test -e "$LOGS/$1.started" || fail "no beat from $1"
}

# beats_stop NAME: BEATS is what was heard; the guest ran exactly once at every time.
beats_stop() {
	kill -TERM "${LISTENER[$1]}"
	wait "${LISTENER[$1]}"
	unset "LISTENER[$1]"
	BEATS=$(cat "$LOGS/$1.beats")
	note "beats of $1: $BEATS"
	jq -e '.missing == 0 and .repeated == 0' <<<"$BEATS" >/dev/null ||
		fail "beats of $1 were lost, or two copies ran"
}

want_beats() { jq -e "$1" <<<"$BEATS" >/dev/null || fail "beats: not $1: $BEATS"; }

# --- moves ---------------------------------------------------------------------------------------

cli() {
	local host=$1
	shift
	on "$host" "$BUILD/tranship" "$@"
}

# move FROM TO VM [OPTIONS]: waits for the end; $RESULT and $STATUS.
move() {
	local from=$1 to=$2 vm=$3
	shift 3
	STATUS=0
	cli "$from" migrate "$vm" "$(socket_of "$to")" --encrypt off --json "$@" \
		>"$LOGS/result" 2>>"$LOGS/progress-$from.log" || STATUS=$?
	take_result
}

# The same in the background; move_end waits. The CLI itself is CLI_PID.
move_start() {
	local from=$1 to=$2 vm=$3
	shift 3
	: >"$LOGS/result"
	cli "$from" migrate "$vm" "$(socket_of "$to")" --encrypt off --json "$@" \
		>"$LOGS/result" 2>>"$LOGS/progress-$from.log" &
	MOVE=$!
	MOVE_FROM=$from
	eventually 10 cli_running || note "the CLI ended at once"
}

cli_running() { CLI_PID=$(host_pids "$MOVE_FROM" -x tranship); }

move_end() {
	STATUS=0
	wait "$MOVE" || STATUS=$?
	take_result
}

take_result() {
	[ "$(wc -l <"$LOGS/result")" = 1 ] || fail "not one line of result: $(cat "$LOGS/result")"
	RESULT=$(cat "$LOGS/result")
	jq -e . <<<"$RESULT" >/dev/null || fail "no JSON: $RESULT"
	note "exit $STATUS: $(jq -c '{status, total_ms, downtime_ms, rounds: (.rounds // [] | length),
		wire: .ram.wire_bytes, error: .error.code, message: .error.message}' <<<"$RESULT")"
}

want_status() { [ "$STATUS" = "$1" ] || fail "exit $STATUS, not $1: $RESULT"; }
want() { jq -e "$1" <<<"$RESULT" >/dev/null || fail "not $1: $RESULT"; }
want_code() { want ".error.code == \"$1\""; }

# The whole contract of a completed move's result.
want_completed() {
	want_status 0
	want '.status == "completed" and .error == null
		and (.id | type == "string") and (.vm | type == "string") and (.mode | type == "string")
		and (.transport | type == "string") and (.tx | type == "string")
		and .encrypt == "off" and (.streams >= 1) and (.tracker | type == "string")
		and (.total_ms > 0) and (.setup_ms >= 0) and (.downtime_ms > 0)
		and (.downtime | has("pause_ms") and has("final_copy_ms") and has("state_ms")
			and has("resume_ms"))
		and (.rounds | length >= 1) and all(.rounds[]; has("n") and has("pages")
			and has("wire_bytes") and has("ms"))
		and (.ram | .total_bytes > 0 and .wire_bytes > 0 and has("zero_bytes")
			and has("raw_bytes") and has("zstd_in_bytes") and has("zstd_out_bytes")
			and has("delta_in_bytes") and has("delta_out_bytes") and has("zero_copy_bytes"))
		and (.cpu_ms | has("source") and has("destination"))
		and has("disks") and has("throttle_max_percent")'
}

# The plain case with everything that must hold after it: checked_move NAME PROFILE [MOVE OPTIONS]
checked_move() {
	local name=$1 p=$2
	shift 2
	# shellcheck disable=SC2086
	vm_start a "$name" $p
	beats_start "$name"
	move a b "$name" "$@"
	want_completed
	want ".ram.total_bytes == $(profile "$p" ram 256) * 1048576"
	assert_runs b "$name"
	assert_no_vm a "$name"
	vm_verify b "$name"
	beats_stop "$name"
	want_beats '.switches | length == 1 and .[0].step == 1'
	assert_clean a
	assert_clean b "$name"
}

# A move of VM from $HERE to the other host, in which the daemon that SITE belongs to is killed there
# and started again; the guest is then where it was or not, and HERE follows it:
# crash_at SITE here|there VM [MOVE OPTIONS]
crash_at() {
	local site=$1 where=$2 vm=$3 there victim host pid
	shift 3

	there=$(peer_of "$HERE")
	case $site in source.*) victim=$HERE ;; *) victim=$there ;; esac
	for host in a b; do
		daemon_pid $host >/dev/null && daemon_kill $host
		case $host in
		"$victim") TRANSHIP_FAULT=$site:kill daemon_start $host ;;
		*) TRANSHIP_FAULT='' daemon_start $host ;;
		esac
	done
	pid=$(daemon_pid "$victim")
	move_start "$HERE" "$there" "$vm" "$@"
	eventually 30 died "$pid" || fail "$site was not reached"
	for host in a b; do
		daemon_pid $host >/dev/null || TRANSHIP_FAULT='' daemon_start $host
	done
	move_end
	for host in a b; do
		eventually 60 all_over $host || fail "open at $host: $(sessions $host)"
	done
	[ "$where" = here ] || HERE=$there
	eventually 5 vm_runs "$HERE" "$vm" || fail "the guest does not run on $HERE"
	assert_no_vm "$(peer_of "$HERE")" "$vm"
	vm_verify "$HERE" "$vm"
	vm_tell "$HERE" "$vm" go
	assert_clean "$(peer_of "$HERE")"
	assert_clean "$HERE" "$vm"
}

died() { ! kill -0 "$1" 2>/dev/null; }
sessions() { cli "$1" status --json | jq -c '[.. | objects | select(has("id") and has("state"))]'; }
all_over() { sessions "$1" | jq -e 'all(.[]; .terminal and (.state | ascii_downcase != "unresolved"))'; }

vm_end() {
	vm_qmp "$1" "$2" quit >/dev/null
	eventually 10 no_pids "$1" -f "^[^ ]*qemu-system-x86_64 .*-name guest=$2(,| )"
	on "$1" sh -c "rm -f /dev/shm/$2.ram* /dev/hugepages/$2.ram*"
}

# The session that runs on a host now, from its daemon: session_field HOST state
session_json() { cli "$1" status --json | jq -ce '[.. | objects | select(has("state") and has("id"))]
	| map(select(.terminal != true and (.state | IN("DONE", "CANCELLED", "FAILED") | not)))
	| first // empty'; }
session_state() { session_json "$1" | jq -r .state; }
session_id() { session_json "$1" | jq -r .id; }
in_state() { [ "$(session_state "$1")" = "$2" ]; }
# Of that session, which is SESSION: session_says HOST FILTER
session_says() {
	SESSION=$(session_json "$1") || return 1
	SESSION=$(cli "$1" status "$(jq -r .id <<<"$SESSION")" --json)
	jq -e "$2" <<<"$SESSION" >/dev/null
}
# It is served from a at b, in post-copy.
serving() { in_state a running && [ "$(dataplane_pid b | wc -l)" -ge 1 ]; }
# It lasts, until it is tuned again: its guest asks for little, and little else comes.
# linger VM MIB_A_SECOND BANDWIDTH
linger() {
	cli a tune "$(session_id a)" --bandwidth "$3" >/dev/null || fail "tune"
	vm_tell b "$1" "rate $2" >/dev/null || fail "the guest does not answer"
}

# in_the_pause HOST: the session that copies there pauses its guest when its first pass is over, with all
# that the guest wrote meanwhile left to be sent. Further rounds would make the pause shorter than
# anybody can see, if the guest is slow on a busy machine.
in_the_pause() {
	eventually 20 in_state "$1" copying || fail "it does not copy"
	cli "$1" switch "$(session_id "$1")" || fail "switch"
	eventually 20 in_state "$1" paused || fail "the pause is not reached"
}

# --- nothing is left -----------------------------------------------------------------------------

# assert_clean HOST [VM that may be there]: no process, RAM file, socket or tracking is left.
assert_clean() {
	local host=$1 vm=${2:-} pid left

	eventually 5 no_pids "$host" -x tranship-datapl || fail "a data plane is left on $host"
	eventually 5 no_pids "$host" -x tranship-guard || fail "a guard is left on $host"
	left=$(on "$host" ls -A /dev/shm /dev/hugepages 2>/dev/null | grep -vE '^(/dev/.*:)?$' |
		grep -vE "^(${vm:-\$none})[.]" || :)
	[ -z "$left" ] || fail "RAM files are left on $host: $left"
	left=$(find "$DIR/$host/vm" -mindepth 1 | grep -vE "/(${vm:-\$none})[.][a-z]+$" || :)
	[ -z "$left" ] || fail "left in the runtime directory of $host: $left"
	if [ -z "$vm" ]; then
		# one that is ending has no command line any more, and pgrep takes its short name then
		eventually 5 no_pids "$host" -f '^[^ ]*qemu-system' || fail "a QEMU is left on $host"
		return 0
	fi
	for pid in $(vm_pid "$host" "$vm"); do
		assert_untracked "$pid"
	done
}

no_pids() { ! host_pids "$@"; }

# await_no_vm HOST [SECONDS (20)]: the VMs that a session has launched there end.
await_no_vm() { eventually "${2:-20}" no_pids "$1" -f '^[^ ]*qemu-system' || fail "a VM is left on $1"; }

# No userfaultfd in the VMM, no mapping still registered with one.
assert_untracked() {
	local pid=$1

	! readlink "/proc/$pid"/fd/* 2>/dev/null | grep -q userfaultfd ||
		fail "a userfaultfd is left in $pid"
	! grep -qE '^VmFlags:.* (uw|um|ui)( |$)' "/proc/$pid/smaps" ||
		fail "a mapping of $pid is still write-protected"
	! grep -qE '^TracerPid:[[:space:]]*[1-9]' "/proc/$pid/status" || fail "$pid is still traced"
}
