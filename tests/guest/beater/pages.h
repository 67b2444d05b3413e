/* SPDX-License-Identifier: MIT */
/*
 * The guest's pages and what must be in them.
 *
 * A page's content follows from its number, its version and the seed alone; the versions are kept
 * in a table in guest RAM as well, and their sum in a counter apart from it, so that a table that
 * is as old as the pages it describes is found out too.
 */
#ifndef BEATER_PAGES_H
#define BEATER_PAGES_H

#include <stdbool.h>
#include <stdint.h>

#include "machine.h"

struct pages {
	struct range ranges[RANGES_MAX];
	unsigned int nranges;
	uint64_t count;	    /* data pages */
	uint32_t *versions; /* one a data page */
	uint64_t written;   /* sum of all versions */
	uint64_t seed;
	unsigned int zero_percent;  /* zero at even versions; half of them never touched at 0 */
	unsigned int zero_grain;    /* zero pages come in so many at a time; 0: 64 (256 KiB) */
	unsigned int plain_percent; /* of the others: compressible about eight to one */
};

/* Lays the version table and the pages into m's RAM; limit in bytes, 0: all of it. */
bool pages_init(struct pages *p, const struct machine *m, uint64_t limit);

uint64_t pages_address(const struct pages *p, uint64_t page);

/* Writes a page at version 0, for the first time. */
void pages_fill(struct pages *p, uint64_t page);

/* Gives a page its next version. */
void pages_rewrite(struct pages *p, uint64_t page);

/* True if the page holds exactly what its version says. */
bool pages_good(const struct pages *p, uint64_t page);

/* A well-mixed function of x. */
uint64_t mix(uint64_t x);

#endif
