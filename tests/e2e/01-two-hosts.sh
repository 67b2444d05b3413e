#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 60
# The two hosts are hosts: apart where they must be, joined where they must be, and gone afterwards.
. "$(dirname "$0")/lib.sh"

before=$(ip -brief link | cut -d' ' -f1)
hosts_up --shm 64M --shm-b 32M
on a touch /run/tranship/from-a /dev/shm/only-a /run/vm/vm-a
[ -e "$DIR/a/run/from-a" ] || fail "the runtime directory is not seen from outside"
on b test ! -e /dev/shm/only-a || fail "/dev/shm is shared"
on b test ! -e /run/vm/vm-a || fail "/run/vm is shared"
on b test -e "$DIR/a/run/from-a" || fail "b does not see a's runtime directory"
[ ! -e /run/tranship/from-a ] || fail "the machine's own /run was written"
[ "$(on b df --output=size -k /dev/shm | tail -n 1)" -eq 32768 ] || fail "/dev/shm of b is not 32M"
[ "$(on a sh -c 'ls -d /proc/[0-9]* | wc -l')" -lt 10 ] || fail "a sees the machine's processes"

# The wire: there, shaped, pulled.
send() { # MiB; how long it takes, in ms
	on b socat -u TCP-LISTEN:5000,reuseaddr OPEN:/dev/null &
	eventually 5 on b sh -c 'grep -q ":1388 " /proc/net/tcp'
	local start
	start=$(date +%s%N)
	head -c "$1M" /dev/zero | on a timeout 10 socat -u - TCP:10.77.0.2:5000 || return 1
	wait $! || return 1
	TOOK=$((($(date +%s%N) - start) / 1000000))
}
send 4 || fail "no wire"
"$HOSTS" shape "$DIR" 40mbit
send 4
note "4 MiB at 40 Mbit/s: $TOOK ms"
# 4 MiB less the bucket of 1 MiB takes 630 ms.
[ "$TOOK" -gt 500 ] || fail "the wire is not shaped: $TOOK ms"
"$HOSTS" shape "$DIR" off
"$HOSTS" link "$DIR" down
on a timeout 1 socat -u /dev/null TCP:10.77.0.2:5000,connect-timeout=0.5 2>/dev/null &&
	fail "the link is not down"
"$HOSTS" link "$DIR" up
send 1 || fail "the link does not come back"
"$HOSTS" link "$DIR" mute
before_ns=$(date +%s%N)
on a timeout 2 socat -u /dev/null TCP:10.77.0.2:5000 2>/dev/null && fail "the link is not mute"
[ $((($(date +%s%N) - before_ns) / 1000000)) -gt 1500 ] || fail "a mute link answers"
"$HOSTS" link "$DIR" up
send 1 || fail "the link does not come back"

# The network that guests live in.
"$HOSTS" guest-net "$DIR"
on b ip -brief link show tap0 >/dev/null || fail "no tap on b"

# An orphan is reaped, a holder that dies takes its host along, and down cleans up after it.
on a sh -c 'sleep 0.1 & exit' || fail "run"
eventually 5 no_pids a -x sleep -f 'sleep 0.1' || fail "an orphan is left"
holder=$("$HOSTS" pid "$DIR" a)
kill -KILL "$holder"
eventually 5 test ! -d "/proc/$holder" || fail "the holder is left"
"$HOSTS" run "$DIR" a true 2>/dev/null && fail "a dead host runs things"
"$HOSTS" down "$DIR"
[ ! -e "$DIR/a" ] && [ ! -e "$DIR/.hosts" ] || fail "something is left of the hosts"
grep -q "$DIR" /proc/self/mountinfo && fail "a mount is left"
[ "$(ip -brief link | cut -d' ' -f1)" = "$before" ] || fail "the machine's interfaces changed"
mkdir -p "$DIR/logs"
