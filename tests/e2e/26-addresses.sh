#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# A destination with several data addresses: streams take turns over them, to and fro, and all
# listeners close when the streams are there.
. "$(dirname "$0")/lib.sh"

ready_hosts
on b ip address add 10.77.0.3/24 dev mig0
daemon_kill b
daemon_start b --data-address 10.77.0.3
vm_start a web rate=4

# Streams from here to an address.
streams_to() { on a ss -Htn state established dst "$1" | wc -l; }
both_carry() { [ "$(streams_to 10.77.0.2)" = 3 ] && [ "$(streams_to 10.77.0.3)" = 2 ]; }

move_start a b web --streams 5 --bandwidth 400Mbit --compress off --verify
eventually 20 both_carry || fail "the streams are not spread over both addresses"
[ -z "$(on b ss -Hltn)" ] || fail "a listener is left on b"
move_end
want_completed
want '.streams == 5 and .addresses == ["10.77.0.2", "10.77.0.3"]'
assert_runs b web
vm_verify b web
vm_tell b web go

# Fewer streams than addresses; and a destination with one.
move b a web --streams 1 --verify
want_completed
want '.addresses == ["10.77.0.1"]'
assert_runs a web
vm_verify a web
vm_tell a web go
move a b web --streams 1 --verify
want_completed
assert_runs b web
vm_verify b web

# One that is not this host's is found out before anything is touched.
vm_tell b web go
daemon_kill a
daemon_start a --data-address 192.0.2.1
move b a web
want_status 3
want_code data-connect
assert_runs b web
assert_clean b web
assert_clean a
