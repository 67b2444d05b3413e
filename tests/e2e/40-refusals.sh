#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# What is refused, with its code and what to do; exit codes; one JSON object in one line, always.
# shellcheck disable=SC2034
. "$(dirname "$0")/lib.sh"

ready_hosts

# refused NAME CODE [STATUS]
refused() {
	note "$1: $2"
	want_status "${3:-2}"
	want_code "$2"
	want '(.error.message | length > 0)'
}

move a b nothing
refused "no such VM" vm-not-found
RESULT=$(cli a migrate 2>/dev/null --json)
STATUS=$?
refused "no arguments" usage 1
RESULT=$(cli a migrate web "$(socket_of b)" --json --max-downtime 3 2>/dev/null)
STATUS=$?
refused "a time without a unit" usage 1
RESULT=$(cli a migrate web "$(socket_of b)" --json --no-such-option 2>/dev/null)
STATUS=$?
refused "an unknown option" usage 1

vm_start a private backing=private ram=64
move a b private
refused "RAM that is not shared" ram-not-shared
want '.error.hint | test("share=on")'
RESULT=$(cli a dirty-rate private --json 2>/dev/null)
STATUS=$?
refused "its rate is not measured either" ram-not-shared
want '.error.hint | test("share=on")'
vm_end a private

# A device that says so itself, one that other VMs write, and one that tells only when asked to save.
mkdir "$DIR/shared/fat"
truncate -s 1M "$DIR/shared/nvme.raw"
blocked() {
	vm_start a blocked ram=64
	EXTRA_ARGS=()
	beats_start blocked
	move a b blocked
	[ "$STATUS" = "$1" ] || fail "exit $STATUS, not $1: $RESULT"
	want ".error.code | IN($2)"
	assert_runs a blocked
	beats_stop blocked
	assert_clean b
	vm_end a blocked
	on a rm -f /dev/shm/blocked.ivshmem
}
EXTRA_ARGS=(-drive "file=fat:rw:$DIR/shared/fat,if=none,id=fat0,format=raw"
	-device "virtio-blk-pci,drive=fat0")
blocked 2 '"device-blocks", "disk-not-shared"'
EXTRA_ARGS=(-object
	"memory-backend-file,id=shm0,size=1M,mem-path=/dev/shm/blocked.ivshmem,share=on"
	-device "ivshmem-plain,memdev=shm0,master=off")
blocked 2 '"outside-writer", "device-blocks"'
EXTRA_ARGS=(-drive "file=$DIR/shared/nvme.raw,if=none,id=nvm0,format=raw"
	-device "nvme,drive=nvm0,serial=1")
blocked 2 '"device-blocks"'

vm_start a web rate=20
move a b web --incoming qemu:/run/none
refused "nobody waits there" vm-not-found
want '.error.message == "At the destination: No VM listens on /run/none."'
note "encryption, which there is none of yet"
RESULT=$(cli a migrate web "$(socket_of b)" --json 2>/dev/null)
STATUS=$?
want_status 2
want '.error.code | IN("encryption-unavailable", "plaintext-refused")'

note "another process that maps the RAM"
on a "$QEMU7" -name guest=mapper -M pc,memory-backend=m -m 256M -nodefaults -display none -S \
	-object memory-backend-file,id=m,size=256M,mem-path=/dev/shm/web.ram,share=on \
	>>"$LOGS/mapper.log" 2>&1 &
disown
eventually 5 vm_pid a mapper || fail "no mapper"
sleep 0.5
move a b web
refused "an outside writer" outside-writer
kill -KILL "$(vm_pid a mapper)"
eventually 5 no_pids a -f guest=mapper

note "managers hold all its QMP sockets"
for socket in qmp mon; do
	on a sh -c "sleep 1000 | socat - UNIX-CONNECT:/run/vm/web.$socket" >/dev/null 2>&1 &
	disown
done
both_held() { [ "$(host_pids a -x socat | wc -l)" = 2 ]; }
eventually 5 both_held
sleep 0.2
move a b web
refused "busy QMP sockets" qmp-busy
# shellcheck disable=SC2046
kill -KILL $(host_pids a -x socat)
eventually 5 vm_runs a web
note "what only the destination can say, also without moving"
for dry in "" --dry-run; do
	move a b web --mode postcopy --verify $dry
	refused "post-copy with --verify $dry" unsupported-option
done
note "and by --skip-check nothing is skipped that would lose the guest"
vm_start a private backing=private ram=64
move a b private --skip-check all
refused "RAM that is not shared" ram-not-shared
vm_end a private
move a b web
want_completed
vm_verify b web
