#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# A device or memory that is plugged in while a VM is copied: the move ends before the pause, and the
# guest runs on. In the moment after the last look it ends in the load, with QEMU's own words.
# shellcheck disable=SC2034,SC2054
. "$(dirname "$0")/lib.sh"

ready_hosts
plug() { # KIND: rng, dimm
	case $1 in
	rng) vm_qmp a web device_add '{"driver":"virtio-rng-pci","id":"rng9"}' ;;
	dimm)
		vm_qmp a web object-add '{"qom-type":"memory-backend-file","id":"ram9","size":67108864,"mem-path":"/dev/shm/web.ram9","share":true}'
		vm_qmp a web device_add '{"driver":"pc-dimm","id":"dimm9","memdev":"ram9"}'
		;;
	esac
}

for kind in rng dimm; do
	note "$kind, while it is copied"
	EXTRA_ARGS=()
	[ $kind = rng ] || EXTRA_ARGS=(-m 192M,slots=2,maxmem=512M)
	vm_start a web rate=20 ram=192
	beats_start web
	move_start a b web --bandwidth 500Mbit
	eventually 10 in_state a copying || fail "not copying"
	note "$(plug $kind)"
	move_end
	want_status 3
	want_code vm-changed
	want '.error.message | test("^Device (rng9|dimm9) .* was plugged in while")'
	want '.downtime_ms == 0 or .downtime_ms == null'
	assert_runs a web
	assert_clean b
	assert_clean a web
	vm_verify a web
	beats_stop web
	want_beats '.switches == []'
	vm_end a web
done

# Between the last look and the pause: the n-th time.
in_the_gap() { [ "$(grep -c 'fault at source.journal.paused.after' "$LOGS/transhipd-a.log")" = "$1" ]; }

EXTRA_ARGS=()
n=0
for qemu in 7 10; do
	[ $qemu = 7 ] || [ -x "$QEMU10" ] || continue
	note "in the moment before the pause, QEMU $qemu"
	daemon_again a source.journal.paused.after:sleep=2000
	vm_start a web rate=20 ram=192 qemu=$qemu
	move_start a b web
	eventually 20 in_the_gap $((++n)) || fail "no pause"
	plug rng
	move_end
	want_status 3
	want_code state-failed
	want '.error.message | test("virtio-rng") and test("load of migration failed")'
	want '.error.hint | test("device")'
	assert_runs a web
	assert_clean b
	assert_clean a web
	vm_verify a web
	vm_end a web
done
