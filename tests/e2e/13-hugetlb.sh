#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# RAM in 2 MiB pages of hugetlbfs, on both sides; and a destination without enough of them.
. "$(dirname "$0")/lib.sh"

hosts_up
# Both hosts take from the machine's one pool: 128 MiB twice.
huge_pages 130 || skip "the machine has no 130 free huge pages"
free_before=$(huge_free)
daemon_start a
daemon_start b
checked_move web "backing=huge ram=128 rate=30 ws=16"
[ "$(huge_free)" -eq $((free_before - 64)) ] || fail "huge pages are left behind: $(huge_free)"

used=$(($(awk '/HugePages_Total/ { print $2 }' /proc/meminfo) - $(huge_free)))
echo $((used + 20)) >/proc/sys/vm/nr_hugepages
move b a web
want_status 2
want_code memory
assert_runs b web
vm_end b web
