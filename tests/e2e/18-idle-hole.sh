#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# A VM of 8 GiB of which 64 MiB was ever touched: the rest is neither read nor sent nor allocated.
. "$(dirname "$0")/lib.sh"

hosts_up --shm 10G
daemon_start a --verbose
daemon_start b
vm_start a big ram=8192 use=64 rate=5 ws=16 zero=10
beats_start big
used_a=$(on a du -k /dev/shm/big.ram | cut -f1)
move a b big
want_completed
want '.ram.total_bytes == 8192 * 1048576'
want '.ram.wire_bytes < 200 * 1048576'
used_b=$(on b du -sk /dev/shm | cut -f1)
note "populated: $used_a KiB at the source, $used_b KiB at the destination"
[ "$used_b" -lt $((used_a + 16384)) ] || fail "holes were populated"
vm_verify b big
beats_stop big
assert_clean a
