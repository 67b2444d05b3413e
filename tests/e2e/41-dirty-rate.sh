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
report=$(cli a dirty-rate web --seconds 2 --json) || fail "dirty-rate"
note "$report"
jq -e '.dirty_rate_mib_s > 34 and .dirty_rate_mib_s < 46' <<<"$report" >/dev/null ||
	fail "the guest writes 40 MiB/s"
jq -e '.working_set_bytes / 1048576 | . > 68 and . < 92' <<<"$report" >/dev/null ||
	fail "80 MiB were written in the time"
assert_untracked "$(vm_pid a web)"
report=$(cli a dirty-rate idle --seconds 1 --json) || fail "dirty-rate"
note "$report"
jq -e '.dirty_rate_mib_s < 1' <<<"$report" >/dev/null || fail "the idle guest writes nothing"

note "killed in the middle, it leaves no trace either"
cli a dirty-rate web --seconds 20 >/dev/null 2>&1 &
eventually 5 sh -c "readlink /proc/$(vm_pid a web)/fd/* | grep -q userfaultfd" ||
	fail "it is not tracked"
kill -INT "$(host_pids a -x tranship)"
untracked() { (assert_untracked "$(vm_pid a web)") >/dev/null; }
eventually 30 untracked || fail "the VM is still tracked"
daemon_kill a
daemon_start a
untracked || fail "the VM is still tracked"
beats_stop web

list=$(cli a list --json)
note "$list"
jq -e '.vms | length == 2' <<<"$list" >/dev/null || fail "list"
jq -e '.vms | all(.migratable == true and .state == "running")' <<<"$list" >/dev/null || fail "list"
[ "$(cli b list --json | jq '.vms | length')" = 0 ] || fail "b sees VMs of a"
cli a list | grep -qw web || fail "the table does not name web"
