#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# The oracle can fail: what the other tests rely on finds a changed byte, a lost page, a page that is
# older than its version, a doubled and a lost heartbeat, and a stale DMA slot.
. "$(dirname "$0")/lib.sh"

hosts_up

# Changes bytes of the guest's RAM behind its back.
poke() {
	local offset=$1
	on a bash -c "head -c ${2:-1} /dev/urandom | dd of=/dev/shm/probe.ram bs=1 seek=$offset \
		conv=notrunc status=none"
}

for qemu in 7 10; do
	[ "$qemu" = 7 ] || [ -x "$QEMU10" ] || continue
	vm_start a probe qemu=$qemu ram=128 rate=30 zero=0
	beats_start probe
	sleep 0.5
	vm_verify a probe
	poke $((0x5123456))
	answer=$(vm_tell a probe verify) && fail "a changed byte was not seen"
	[[ $answer == "V bad "*" 1 0x5123000" ]] || fail "not exactly that page: $answer"
	on a cp /dev/shm/probe.ram /dev/shm/probe.old
	vm_tell a probe go
	sleep 0.5
	vm_tell a probe stop
	# A page as it was before: right content of an older version. Many pages were rewritten since.
	on a bash -c 'dd if=/dev/shm/probe.old of=/dev/shm/probe.ram bs=1M skip=3 seek=3 count=8 \
		conv=notrunc status=none'
	answer=$(vm_tell a probe verify) && fail "older pages were not seen"
	note "$answer"
	[ "$(cut -d' ' -f4 <<<"$answer")" -gt 10 ] || fail "few older pages: $answer"
	beats_stop probe
	vm_end a probe
	on a rm -f /dev/shm/probe.old
done

# Heartbeats from two sockets: a continuous sequence, then one doubled and one lost.
beats_from() {
	local at=$1
	shift
	{
		sleep 0.3
		for n in "$@"; do
			printf 'B %d %d\n' "$n" "$n"
			sleep 0.02
		done
		sleep 0.5
	} | socat -u - "UNIX-LISTEN:$DIR/$at/vm/fake.beat" &
	disown
	eventually 5 test -S "$DIR/$at/vm/fake.beat"
}

hear() { "$BEATCTL" listen --seconds 1.5 "$DIR/a/vm/fake.beat" "$DIR/b/vm/fake.beat"; }

beats_from a 1 2 3
{ sleep 0.15 && beats_from b 4 5 6; } &
hear | tee /dev/stderr | jq -e '.missing == 0 and .repeated == 0 and .beats == 6
	and (.switches | length) == 1' >/dev/null || fail "a good sequence is not good"
rm -f "$DIR"/[ab]/vm/fake.beat
beats_from a 1 2 3
{ sleep 0.15 && beats_from b 3 4 6; } &
hear | tee /dev/stderr | jq -e '.missing == 1 and .repeated == 1' >/dev/null ||
	fail "a doubled and a lost beat were not seen"
rm -f "$DIR"/[ab]/vm/fake.beat
