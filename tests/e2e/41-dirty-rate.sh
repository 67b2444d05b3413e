#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# dirty-rate agrees with what the guest does, and leaves no trace; list knows every VM.
. "$(dirname "$0")/lib.sh"

ready_hosts
# Sequential writes that do not come round within a second: every write is another page.
vm_start a web rate=40 ws=128 pattern=seq
vm_start a idle rate=0 ram=64
beats_start web
written() { vm_tell a web stat | sed 's/.*written=\([0-9]*\).*/\1/'; }
before=$(written)
start=$(date +%s%N)
report=$(cli a dirty-rate web --seconds 2 --json) || fail "dirty-rate"
ms=$((($(date +%s%N) - start) / 1000000))
pages=$(($(written) - before))
note "$report; the guest wrote $pages pages in about $ms ms"
# What it wrote in the time around it is more, by as much as that is longer.
jq -e --argjson pages "$pages" '.working_set_bytes / 4096 | . <= $pages and . >= $pages * 0.5' \
	<<<"$report" >/dev/null || fail "the guest wrote $pages pages"
jq -e '.working_set_bytes / 1048576 / .dirty_rate_mib_s | . > 1.7 and . < 2.3' <<<"$report" >/dev/null ||
	fail "rate and working set do not fit"
if [ $((pages * 1000 / ms)) -gt 9700 ]; then # a host with other work does not let it write as fast
	jq -e '.dirty_rate_mib_s > 34 and .dirty_rate_mib_s < 46' <<<"$report" >/dev/null ||
		fail "the guest writes 40 MiB/s"
fi
assert_untracked "$(vm_pid a web)"
report=$(cli a dirty-rate idle --seconds 1 --json) || fail "dirty-rate"
note "$report"
jq -e '.dirty_rate_mib_s < 1' <<<"$report" >/dev/null || fail "the idle guest writes nothing"

untracked() { (assert_untracked "$(vm_pid a web)") >/dev/null; }
tracked() { ! untracked; }
measure() {
	cli a dirty-rate web --seconds 20 --json >"$LOGS/rate" 2>/dev/null &
	MEASURE=$!
	eventually 5 tracked || fail "it is not tracked"
}

note "interrupted or killed in the middle, it leaves no trace either, and at once"
for signal in INT KILL; do
	measure
	kill -$signal "$(host_pids a -x tranship)"
	eventually 1 untracked || fail "the VM is still tracked after $signal"
	wait "$MEASURE" && fail "interrupted, it exits with 0"
	[ "$(cli a status --json | jq '[.sessions[]? | select(.terminal == false)] | length')" = 0 ] ||
		fail "a session is left: $(cli a status --json)"
done
note "stopped by cancel"
measure
id=$(cli a status --json | jq -r '.sessions[] | select(.terminal == false) | .id')
cli a cancel "$id" >/dev/null || fail "cancel"
wait "$MEASURE"
[ $? = 130 ] || fail "cancelled: $(cat "$LOGS/rate")"
jq -e '.error.code == "cancelled"' "$LOGS/rate" >/dev/null || fail "$(cat "$LOGS/rate")"
untracked || fail "the VM is still tracked"
note "the daemon killed"
measure
daemon_kill a
eventually 1 no_pids a -x tranship-datapl || fail "the data plane is left"
daemon_start a
eventually 5 untracked || fail "the VM is still tracked"
wait "$MEASURE"
assert_runs a web
beats_stop web

list=$(cli a list --json)
note "$list"
jq -e '.vms | length == 2' <<<"$list" >/dev/null || fail "list"
jq -e '.vms | all(.migratable == true and .state == "running")' <<<"$list" >/dev/null || fail "list"
[ "$(cli b list --json | jq '.vms | length')" = 0 ] || fail "b sees VMs of a"
cli a list | grep -qw web || fail "the table does not name web"
