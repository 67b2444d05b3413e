#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# timeout: 170
# Three dirty rates, sequential, random and skewed writes: nothing is lost at any.
. "$(dirname "$0")/lib.sh"

ready_hosts
for pattern in seq rand zipf; do
	for rate in 5 60 200; do
		# Zero pages one by one, a few together, in large extents.
		grain=$((rate == 5 ? 1 : rate == 60 ? 7 : 512))
		note "pattern $pattern, $rate MiB/s, zero pages by $grain"
		checked_move "g-$pattern-$rate" "ram=192 ws=48 rate=$rate pattern=$pattern grain=$grain"
		vm_end b "g-$pattern-$rate"
	done
done
