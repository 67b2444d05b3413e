#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# One session a VM: a second is refused and does not disturb the first.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=5
beats_start web
move_start a b web --bandwidth 80Mbit
eventually 10 in_state a copying || fail "not copying"
# The VM's monitor is held by then: it is refused for the session, not for the monitor, at once.
pid=$(on a pgrep -f 'qemu-system.*guest=web')
for word in web qemu:/run/vm/web.qmp qemu:/run/vm/web.mon "pid:$pid"; do
	for more in --verify --dry-run; do
		second=$(cli a migrate "$word" "$(socket_of b)" --encrypt off --json $more 2>/dev/null)
		[ $? = 2 ] || fail "$word was not refused: $second"
		jq -e '.status == "refused" and .error.code == "vm-busy" and .total_ms < 1500' \
			<<<"$second" >/dev/null || fail "$word: $second"
	done
	rate=$(cli a dirty-rate "$word" --seconds 1 --json 2>/dev/null)
	[ $? = 2 ] || fail "dirty-rate during a session: $rate"
	jq -e '.error.code == "vm-busy"' <<<"$rate" >/dev/null || fail "dirty-rate: $rate"
done
listed=$(cli a list --json)
jq -e '.vms[0] | .migratable == false and .code == "vm-busy"' <<<"$listed" >/dev/null ||
	fail "the list: $listed"
# So is the VM that is being moved to.
vm_start a other ram=64
for more in --verify --dry-run; do
	other=$(cli a migrate other "$(socket_of b)" --encrypt off --json $more \
		--incoming qemu:/run/vm/web.qmp 2>/dev/null)
	[ $? = 2 ] || fail "moved onto a VM that is in a session: $other"
	jq -e '.error.code == "vm-busy"' <<<"$other" >/dev/null || fail "moved onto it: $other"
done
assert_runs a other
vm_end a other
in_state a copying || fail "the first was disturbed"
cli a tune "$(session_id a)" --bandwidth unlimited || fail "tune"
move_end
want_completed
vm_verify b web
beats_stop web
assert_clean a
assert_clean b web
