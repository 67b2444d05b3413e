#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# A destination that waits since an interrupted move, or has been there before: what it holds already
# is not sent again, and what has changed since is.
. "$(dirname "$0")/lib.sh"

ready_hosts

sent_so_far() { [ "$(session_json a | jq '.progress.sent_bytes // 0')" -ge "$1" ]; }

# interrupted VM BYTES OPTIONS...: a move that is cancelled when so many bytes of RAM are sent.
interrupted() {
	local vm=$1 bytes=$2
	shift 2
	move_start a b "$vm" --bandwidth 800Mbit "$@"
	eventually 30 sent_so_far "$bytes" || fail "nothing is sent"
	kill -INT "$CLI_PID"
	move_end
	want_status 130
}

note "a VM of QEMU"
vm_start a web rate=20 ws=16 zero=10
vm_start b web rate=20 incoming=1 ram_file=/dev/shm/web.other
beats_start web
interrupted web 150000000 --incoming qemu:/run/vm/web.qmp
eventually 10 vm_runs a web || fail "the guest does not run on"
[ "$(vm_status b web)" = inmigrate ] || fail "the waiting VM does not wait any more"
move a b web --incoming qemu:/run/vm/web.qmp --verify
want_completed
# of 256 MiB about 90 % is data, and more than half of it had been sent
want '.ram.same_bytes > 60000000 and .ram.verified_chunks == 128'
want '.ram.wire_bytes < .ram.total_bytes - .ram.same_bytes + 60000000'
assert_runs b web
assert_no_vm a web
vm_verify b web
beats_stop web
want_beats '.switches | length == 1'
vm_end b web
on b rm -f /dev/shm/web.other

note "a VMM with libtranship"
synthetic() { on "$1" "$BUILD/tranship-synthetic" "${@:2}"; }
tell() { synthetic "$1" --ctl load "${@:2}"; }
synthetic a --name load --ram 256MiB --working-set 16MiB --dirty-rate 50 --zero 20 \
	>>"$LOGS/synthetic-a.log" 2>&1 &
disown
synthetic b --name load --ram 256MiB --incoming >>"$LOGS/synthetic-b.log" 2>&1 &
disown
eventually 10 tell a stats || fail "no synthetic guest on a"
eventually 10 tell b stats || fail "no synthetic guest on b"
interrupted load 150000000 --incoming tranship:/run/tranship/vmm/load.sock
move a b load --incoming tranship:/run/tranship/vmm/load.sock --verify
want_completed
want '.ram.same_bytes > 60000000'
tell b verify || fail "it is not right: $(tell b verify)"

note "one that has nothing is not asked, and nothing is counted"
vm_start a web rate=20 ws=16
move a b web
want_completed
want '.ram.same_bytes == 0'
vm_verify b web
