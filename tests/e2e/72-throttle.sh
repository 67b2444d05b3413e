#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 170
# A VM that writes faster than can be sent is slowed down within --impact, its processors alone, below
# the groups that a manager made; nothing of that is left when the move ends, is cancelled, when
# transhipd is killed and started again, or the VM itself is killed.
. "$(dirname "$0")/lib.sh"

# A manager's groups, as libvirt makes them, where the cpu hierarchy of version 1 is there.
CPU=$(awk '$3 == "cgroup" && ("," $4 ",") ~ /,cpu,/ { print $2; exit }' /proc/mounts)
MACHINE=
our_groups() { find /sys/fs/cgroup -type d -name "tranship-${1:-*}" 2>/dev/null; }
no_machine() { find "$MACHINE" -depth -type d -exec rmdir {} + && [ ! -d "$MACHINE" ]; }
# As cleanup; the manager's groups can be removed when nothing runs in them any more.
finish() {
	local status=$?

	(
		(exit "$status")
		cleanup
	)
	status=$?
	eventually 5 no_machine || status=1
	exit "$status"
}

vcpu_thread() { vm_qmp a web query-cpus-fast | jq '.[0]["thread-id"]'; }
# The thread's group as it sees itself, of version 1's cpu or of version 2.
vcpu_groups() { on a cat "/proc/$(vm_inner_pid)/task/$VCPU/cgroup"; }
vm_inner_pid() { on a pgrep -f 'qemu-system.*guest=web'; }

# Slow for ever: 5 MB/s against hundreds, and no post-copy.
start_hopeless() {
	HOST=${1:-a}
	move_start "$HOST" "$(peer_of "$HOST")" web --mode precopy --impact 60 --compress off --bandwidth 40Mbit \
		--max-downtime 100ms
	eventually 10 in_state "$HOST" copying || fail "not copying"
	ID=$(session_id "$HOST")
}

throttled() {
	cli "$HOST" status "$ID" --json | jq -e '.progress.throttle_percent > 0'
}

not_throttled() { ! throttled; }

assert_released() {
	[ -z "$(our_groups "$ID")" ] || fail "groups are left: $(our_groups "$ID")"
	[ "$(vcpu_groups)" = "$GROUPS_BEFORE" ] || fail "the processor is not where it was: $(vcpu_groups)"
	if [ -n "$MACHINE" ]; then
		[ "$(cat "$MACHINE/vcpu0/cpu.cfs_quota_us")" = 80000 ] || fail "the manager's quota changed"
	fi
}

ready_hosts
# Small, so that a round is soon over.
vm_start a web ram=64 use=24 rate=400 ws=16 spin=1
VCPU=$(vcpu_thread)
if [ -n "$CPU" ]; then
	MACHINE=$CPU/ts-machine-$$
	trap finish EXIT
	mkdir -p "$MACHINE/emulator" "$MACHINE/vcpu0"
	echo 80000 >"$MACHINE/vcpu0/cpu.cfs_quota_us"
	# shellcheck disable=SC2016
	on a sh -c 'for t in /proc/$1/task/*; do echo ${t##*/} >"$2/emulator/tasks"; done
		echo "$3" >"$2/vcpu0/tasks"' - "$(vm_inner_pid)" "$MACHINE" "$VCPU"
fi
GROUPS_BEFORE=$(vcpu_groups)
beats_start web

note "cancelled while throttled"
start_hopeless
if ! eventually 60 throttled; then
	reason=$(cli a status "$ID" --json | jq -r '.events[].text | select(startswith("not throttled"))')
	[ -z "$reason" ] || skip "$reason"
	fail "not throttled: $(cli a status "$ID")"
fi
group=$(our_groups "$ID")
[ -d "$group/$VCPU" ] || [ "$(find "$group" -mindepth 1 -type d | wc -l)" = 1 ] ||
	fail "not one group for the one processor: $group"
if [ -n "$MACHINE" ]; then
	[ "$group" = "$MACHINE/vcpu0/tranship-$ID" ] || fail "$group is not below the manager's"
	# Of the 80 % that the manager leaves, no less than --impact allows.
	limit=$(cat "$group/cpu.cfs_quota_us")
	period=$(cat "$group/cpu.cfs_period_us")
	((limit * 100 >= period * 80 * 40 / 100 - period && limit * 100 < period * 80)) ||
		fail "the quota is $limit of $period"
	emulator=$(on a cat "/proc/$(vm_inner_pid)/cgroup" | grep ':cpu')
	[[ $emulator == */emulator ]] || fail "QEMU's own thread was moved: $emulator"
fi
cli a cancel "$ID" >/dev/null || fail "cancel"
move_end
want_status 130
want '.throttle_max_percent > 0 and .throttle_max_percent <= 60'
eventually 10 vm_runs a web || fail "it does not run on a"
assert_released
assert_clean a web

note "less impact is allowed at once; none ends it"
start_hopeless
eventually 60 throttled || fail "not throttled"
cli a tune "$ID" --impact 0 >/dev/null || fail "tune"
no_quota() { ! grep -rEv '^(-1|max .*)$' "$(our_groups "$ID")" --include=cpu.cfs_quota_us --include=cpu.max; }
eventually 10 no_quota || fail "still throttled"
eventually 10 not_throttled || fail "it says that it is still throttled"
cli a cancel "$ID" >/dev/null || fail "cancel"
move_end
want_status 130
assert_released

note "transhipd is killed while the VM is throttled"
start_hopeless
eventually 60 throttled || fail "not throttled"
[ -n "$(our_groups "$ID")" ] || fail "no group"
daemon_kill a
move_end
want_status 3
[ -n "$(our_groups "$ID")" ] || fail "nothing was left: not the case that is tested"
# Another transhipd of this machine, which has nothing to do with it, leaves it alone.
daemon_again b
[ -n "$(our_groups "$ID")" ] || fail "removed by another transhipd"
daemon_start a
ended() { cli a status "$ID" --json | jq -e .terminal; }
eventually 20 ended || fail "not recovered"
assert_released
eventually 10 vm_runs a web || fail "it does not run on a"
await_no_vm b 10

note "a move that is throttled ends"
start_hopeless
eventually 60 throttled || fail "not throttled"
cli a tune "$ID" --bandwidth unlimited --max-downtime 1s >/dev/null || fail "tune"
move_end
want_completed
want '.throttle_max_percent > 0 and .throttle_max_percent <= 60'
[ -z "$(our_groups "$ID")" ] || fail "groups are left: $(our_groups "$ID")"
vm_verify b web
beats_stop web
want_beats '.switches | length == 1'
assert_clean a
assert_clean b web
vm_tell b web go

note "the VM is killed while it is throttled"
start_hopeless b
eventually 60 throttled || fail "not throttled"
kill -KILL "$(vm_pid b web)"
move_end
want_status 3
want_code vm-gone
[ -z "$(our_groups "$ID")" ] || fail "groups are left: $(our_groups "$ID")"
