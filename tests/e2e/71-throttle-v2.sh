#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 120
# Throttling by cgroup version 2, whatever this host has: the unit tests of throttle.c are the first
# process of an emulated machine, which mounts nothing but version 2.
. "$(dirname "$0")/lib.sh"

need_linux_guest
TEST=$BUILD/tests/unit/control/guest/test_throttle
[ -x "$TEST" ] || fail "$TEST was not built"
ROOT=$(mktemp -d /tmp/ts.XXXXXX)
trap 'rm -rf "$ROOT"' EXIT
mkdir "$ROOT/files"
cp "$TEST" "$ROOT/files/init"
ldd "$TEST" | grep -o '/[^ ]*' | while read -r library; do
	mkdir -p "$ROOT/files${library%/*}"
	cp -L "$library" "$ROOT/files$library"
done
(cd "$ROOT/files" && find . | cpio -o -H newc --quiet -R 0:0) >"$ROOT/initramfs"
"$QEMU7" -accel tcg -smp 2 -m 256 -nodefaults -display none -no-reboot \
	-kernel "$CACHE/kernel/vmlinux" -initrd "$ROOT/initramfs" -serial stdio \
	-append "console=ttyS0 quiet loglevel=1 mitigations=off nokaslr" >"$ROOT/log" 2>&1
cat "$ROOT/log"
grep -q '^throttle: 0 failed, cgroup v2' "$ROOT/log" || fail "not every test passed"
! grep -q 'SKIPPED' "$ROOT/log" || fail "some were skipped"
