#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 60
# QEMU 10, RAM in a named file.
. "$(dirname "$0")/lib.sh"

need_qemu10
ready_hosts
checked_move web "qemu=10 rate=50"
# And back again, with the machine type that q35 gives.
vm_end b web
checked_move other "qemu=10 rate=50 machine=q35"
