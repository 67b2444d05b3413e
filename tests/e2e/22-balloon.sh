#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# qemu: 7 10
# The balloon is inflated while RAM is copied, and deflated while it is copied back: holes that
# appear are holes at the destination, pages that return are right, and nothing of the guest's is lost.
# From the first move on the RAM is in huge pages, of which the balloon gives parts back.
. "$(dirname "$0")/lib.sh"

need_linux_guest
ready_hosts
used() { on "$1" du -sk /dev/shm | cut -f1; }
actual() { vm_qmp "$1" web query-balloon | jq .actual; }
balloon_at_most() { [ "$(actual "$1")" -le "$2" ]; }
balloon_at_least() { [ "$(actual "$1")" -ge "$2" ]; }
# move_and_balloon FROM TO BYTES BANDWIDTH: the balloon is told while RAM is copied.
move_and_balloon() {
	move_start "$1" "$2" web --bandwidth "$4"
	eventually 10 in_state "$1" copying || fail "not copying"
	vm_qmp "$1" web balloon "{\"value\":$3}" >/dev/null
	move_end
	want_completed
}

linux_start a web ram=256 use=48 rate=10 align=2M
before=$(used a)
note "populated before: $before KiB"
move_and_balloon a b 167772160 400Mbit
eventually 10 balloon_at_most b 180000000 || fail "the balloon is $(actual b)"
after=$(used b)
note "populated after inflating: $after KiB"
vm_verify b web
vm_tell b web go
move_and_balloon b a 268435456 400Mbit
eventually 10 balloon_at_least a 260000000 || fail "the balloon is $(actual a)"
vm_verify a web
vm_tell a web go
# Inflated before the move: what was discarded is not populated at the destination.
vm_qmp a web balloon '{"value":150000000}' >/dev/null
eventually 10 balloon_at_most a 160000000
source_used=$(used a)
move a b web
want_completed
note "populated: $source_used KiB at the source, $(used b) KiB at the destination"
[ "$(used b)" -lt $((source_used + 20480)) ] || fail "discarded pages were populated again"
vm_verify b web
vm_tell b web go
note "$(($(mapped_huge b web) / 1024)) MiB in huge pages"
# Parts of huge pages are given back while they are copied.
vm_qmp b web balloon '{"value":268435456}' >/dev/null
eventually 10 balloon_at_least b 260000000 || fail "the balloon is $(actual b)"
move b a web
want_completed
vm_verify a web
vm_tell a web go
huge=$(mapped_huge a web)
source_used=$(used a)
move_and_balloon a b 150000000 300Mbit
eventually 10 balloon_at_most b 160000000 || fail "the balloon is $(actual b)"
note "$((huge / 1024)) MiB in huge pages, $source_used KiB populated; then $(used b) KiB"
vm_verify b web
assert_clean a
assert_clean b web
