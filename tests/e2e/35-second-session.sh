#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# One session a VM: a second is refused and does not disturb the first.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=5
beats_start web
move_start a b web --bandwidth 150Mbit
eventually 10 in_state a copying || fail "not copying"
second=$(cli a migrate web "$(socket_of b)" --encrypt off --json 2>/dev/null)
[ $? = 2 ] || fail "the second was not refused: $second"
jq -e '.status == "refused" and .error.code == "vm-busy"' <<<"$second" >/dev/null ||
	fail "the second: $second"
by_pid=$(cli a migrate "qemu:/run/vm/web.qmp" "$(socket_of b)" --encrypt off --json 2>/dev/null)
[ $? = 2 ] || fail "by another name it was not refused: $by_pid"
cli a dirty-rate web --seconds 1 --json >/dev/null 2>&1 && fail "dirty-rate during a session"
in_state a copying || fail "the first was disturbed"
move_end
want_completed
vm_verify b web
beats_stop web
assert_clean a
assert_clean b web
