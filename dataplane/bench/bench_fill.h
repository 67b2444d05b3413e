/* SPDX-License-Identifier: MIT */
/* What a bench sends: memory filled with zeros, text-like or random bytes, or a file's. */
#ifndef TRANSHIP_DATAPLANE_BENCH_FILL_H
#define TRANSHIP_DATAPLANE_BENCH_FILL_H

#include <stddef.h>
#include <stdint.h>

#include "dataplane/ipc.h"

/*
 * Fills [to, to + len). The content depends on kind and seed alone: random is xorshift64* (nothing
 * compresses it), text is words of a small vocabulary in the order of the same generator (zstd
 * makes a third of it: 3.1 times less at level 1, 3.3 at 3, of single pages 2.7). IPC_BENCH_FILE
 * repeats what fd holds, read by pread. -errno; -ENODATA: the file is empty.
 */
int bench_fill(uint8_t *to, size_t len, enum ipc_bench_data kind, uint64_t seed, int fd);

#endif
