#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# Every way of sending and 1, 2 and 4 streams, to and fro; --verify agrees; --bandwidth is kept; what
# went by reference is said as it was: veth copies what io_uring sends.
. "$(dirname "$0")/lib.sh"

ready_hosts
vm_start a web rate=40 ws=64
here=a
for tx in sendfile uring send; do
	for streams in 1 4; do
		there=$(peer_of $here)
		move $here $there web --tx $tx --streams $streams --verify --compress off
		want_completed
		want ".tx == \"$tx\" and .streams == $streams"
		case $tx in
		sendfile) want '.ram.zero_copy_bytes > .ram.raw_bytes / 2' ;;
		*) want '.ram.zero_copy_bytes == 0' ;;
		esac
		vm_verify $there web
		vm_tell $there web go
		here=$there
	done
done
[ "$here" = a ] || fail "six moves should end where they began"
vm_tell a web "rate 4"
move a b web --streams 2 --bandwidth 800Mbit
want_completed
want '.streams == 2'
want '(.ram.wire_bytes * 8 / (.total_ms / 1000)) < 880e6'
vm_verify b web
