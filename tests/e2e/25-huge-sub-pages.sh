#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 90
# A guest in 2 MiB pages that writes single 4 KiB pages all over them: what was not written is not
# sent again, and everything is right.
. "$(dirname "$0")/lib.sh"

hosts_up
huge_pages 130 || skip "the machine has no 130 free huge pages"
daemon_start a
daemon_start b
checked_move web "backing=huge ram=128 rate=4 ws=96 grain=1" --verify
# written at 4 MiB/s, and each page brings a huge one with it
want '.ram.same_bytes > 16777216'
want '.ram.wire_bytes < .ram.total_bytes + .ram.same_bytes / 2'

# Without hashes each huge page that was written in goes whole; and slowly enough that many are.
vm_tell b web go
move b a web --verify --compress off --bandwidth 1Gbit --max-downtime 5s --page-hashes off
want_completed
want '.ram.same_bytes == 0'
want '[.rounds[].pages % 512 == 0] | all'
want '([.rounds[].pages] | add) * 4096 > .ram.total_bytes + 16777216'
want '([.rounds[].pages] | add) * 4096 == .ram.raw_bytes + .ram.zero_bytes + .ram.hole_bytes'
WHOLE=$(jq .ram.wire_bytes <<<"$RESULT")
vm_verify a web

# The same with them.
vm_tell a web go
move a b web --verify --compress off --bandwidth 1Gbit --max-downtime 5s --page-hashes 1MiB
want_completed
want '.ram.same_bytes > 8388608'
want ".ram.wire_bytes < $WHOLE"
vm_verify b web
