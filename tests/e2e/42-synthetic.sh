#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# The synthetic guest on libtranship moves to and fro without a VMM, and checks itself.
. "$(dirname "$0")/lib.sh"

ready_hosts
synthetic() { on "$1" "$BUILD/tranship-synthetic" "${@:2}"; }
tell() { synthetic "$1" --ctl load "${@:2}"; }

for backing in memfd file:/dev/shm/load.ram; do
	note "$backing"
	synthetic a --name load --ram 256MiB --working-set 64MiB --dirty-rate 50 --zero 20 \
		--backing "$backing" >>"$LOGS/synthetic-a.log" 2>&1 &
	disown
	synthetic b --name load --ram 256MiB --backing "${backing}" --incoming \
		>>"$LOGS/synthetic-b.log" 2>&1 &
	disown
	eventually 10 tell a stats || fail "no synthetic guest on a"
	eventually 10 tell b stats || fail "no synthetic guest on b"
	move a b load --incoming tranship:/run/tranship/vmm/load.sock
	want_completed
	tell b verify || fail "it is not right: $(tell b verify)"
	tell b pause
	tell b corrupt 4096
	tell b verify && fail "its check finds nothing"
	host_pids b -x tranship-synthe >/dev/null && kill -TERM "$(host_pids b -x tranship-synthe)"
	eventually 5 no_pids b -x tranship-synthe
	eventually 5 no_pids a -x tranship-synthe || fail "the source is left"
	on b rm -f /dev/shm/load.ram
done
