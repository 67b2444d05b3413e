#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# qemu: 7 10
# A Linux guest's TCP connection over virtio-net survives two moves; its memory is right.
. "$(dirname "$0")/lib.sh"

need_linux_guest
hosts_up
"$HOSTS" guest-net "$DIR"
daemon_start a
daemon_start b
linux_start a web net=1 rate=20
beats_start web
"$HOSTS" run "$DIR" net "$BUILD/guest/echoctl" 10.78.0.2 7 >"$LOGS/echo" 2>"$LOGS/echo.log" &
echo_pid=$!
eventually 10 grep -q connected "$LOGS/echo.log" || fail "no connection to the guest"
sleep 0.5
move a b web
want_completed
assert_no_vm a web
sleep 0.5
vm_verify b web
vm_tell b web go
move b a web
want_completed
sleep 0.5
vm_verify a web
beats_stop web
want_beats '.switches | length == 2'
# echoctl runs in the host's PID namespace; the process that was started waits for it.
kill -TERM "$(host_pids net -x echoctl)"
wait "$echo_pid" || fail "the connection did not survive: $(cat "$LOGS/echo")"
note "echo: $(cat "$LOGS/echo")"
jq -e '.broken == false and .bad == 0 and .exchanged > 100' "$LOGS/echo" >/dev/null ||
	fail "the connection did not survive"
assert_clean a web
assert_clean b
