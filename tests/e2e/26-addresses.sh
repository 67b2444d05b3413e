#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 150
# A destination with several data addresses: streams take turns over them, to and fro, and all
# listeners close when the streams are there. Those of post-copy too, also after a loss, and when one
# of the addresses is gone.
. "$(dirname "$0")/lib.sh"

ready_hosts
on b ip address add 10.77.0.3/24 dev mig0
daemon_kill b
daemon_start b --data-address 10.77.0.3
vm_start a web rate=4

# Streams of the newest data plane here to an address: that of pre-copy may stay beside post-copy's.
streams_to() { on a ss -Htnp state established dst "$1" | grep -c "pid=$(on a pgrep -nx tranship-datapl),"; }
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

# Post-copy: streams of its own, faults on the first address.
vm_tell b web go
vm_end b web
vm_start a post ram=128 rate=60 ws=100 grain=16
beats_start post
post_carries() { in_state a running && [ "$(streams_to 10.77.0.2)" = "$1" ] && [ "$(streams_to 10.77.0.3)" = "$2" ]; }
move_start a b post --mode postcopy --streams 4 --bandwidth 300Mbit --compress off
eventually 60 in_state a running || fail "post-copy does not begin"
linger post 5 20Mbit
eventually 20 post_carries 3 2 || fail "post-copy's streams are not spread over both addresses"
[ -z "$(on b ss -Hltn)" ] || fail "a listener is left on b"
note "the data plane of b is killed"
kill -KILL "$(dataplane_pid b | tail -1)"
eventually 10 grep -q "post-copy goes on" "$LOGS/transhipd-a.log" || fail "it does not go on"
eventually 5 post_carries 3 2 || fail "they are not spread after a loss"
note "and again, and an address is gone"
on b ip address del 10.77.0.3/24 dev mig0
kill -KILL "$(dataplane_pid b | tail -1)"
eventually 20 post_carries 5 0 || fail "it does not go on with the address that is left"
cli a tune "$(session_id a)" --bandwidth unlimited
move_end
want_completed
want '.mode == "postcopy" and .postcopy.complete and .addresses == ["10.77.0.2", "10.77.0.3"]'
vm_verify b post
beats_stop post
assert_clean a
assert_clean b post
on b ip address add 10.77.0.3/24 dev mig0

# One that is not this host's is found out before anything is touched.
vm_tell b post go
daemon_kill a
daemon_start a --data-address 192.0.2.1
move b a post
want_status 3
want_code data-connect
assert_runs b post
assert_clean b post
assert_clean a
