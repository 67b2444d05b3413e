#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# Post-copy into a QEMU without privileges: it may not make a userfaultfd that stops the kernel's
# accesses too, and is handed /dev/userfaultfd for the moment that making one takes.
. "$(dirname "$0")/lib.sh"

[ -e /dev/userfaultfd ] || skip "no /dev/userfaultfd (Linux 6.1)"
[ "$(cat /proc/sys/vm/unprivileged_userfaultfd)" = 0 ] || skip "every process may here"
ready_hosts
vm_start a web rate=60 ws=64 ram=192
beats_start web
chmod 777 "$DIR/b/vm"
vm_command b web "incoming=1 ram=192"
on b sh -c 'chmod 1777 /dev/shm; touch /dev/shm/web.ram; chown nobody /dev/shm/web.ram'
on b setpriv --reuid nobody --regid nogroup --clear-groups "${VM_ARGS[@]}" \
	>>"$LOGS/qemu-b-web.log" 2>&1 &
disown
eventually 10 test -S "$(vm_socket b web qmp)" || fail "QEMU does not start"
pid=$(vm_pid b web)
[ "$(stat -c %U "/proc/$pid")" = nobody ] || fail "it has privileges"
move a b web --mode postcopy --bandwidth 400Mbit --incoming qemu:/run/vm/web.qmp
want_completed
want '.mode == "postcopy" and .postcopy.complete'
assert_runs b web
vm_verify b web
beats_stop web
assert_untracked "$pid"
! readlink "/proc/$pid"/fd/* 2>/dev/null | grep -q userfaultfd || fail "the device is left open"
