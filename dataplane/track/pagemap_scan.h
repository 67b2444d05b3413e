/* SPDX-License-Identifier: MIT */
/* PAGEMAP_SCAN of another process's memory, with its pitfalls taken care of. */
#ifndef TRANSHIP_DATAPLANE_PAGEMAP_SCAN_H
#define TRANSHIP_DATAPLANE_PAGEMAP_SCAN_H

#include <stdint.h>

#include "lib/base/kernel_abi.h"

/*
 * One call over [*at, end), addresses in the process whose /proc/PID/pagemap fd is; moves *at to
 * where the next one begins. q holds the categories, and vec and vec_len for the answer; where not
 * all is registered for asynchronous write protection the call fails (-EPERM). Returns the number
 * of ranges found. -ESRCH: the process ended; -EPROTO: the kernel made no progress.
 */
long pagemap_scan_once(int fd, struct pagemap_scan *q, uint64_t *at, uint64_t end);

/* Protects every page of [start, end), mapped or not, and forgets what it was. -errno. */
int pagemap_arm(int fd, uint64_t start, uint64_t end);

/*
 * Memory that is not mapped any more scans as clean. -EOWNERDEAD if the page at address is not,
 * -EPERM if it is not registered.
 */
int pagemap_check_mapped(int fd, uint64_t address, uint32_t page_size);

#endif
