/* SPDX-License-Identifier: MIT */
/* In which order a writer visits its pages: sequential, uniformly random, or by Zipf's law. */
#ifndef TRANSHIP_TOOLS_SYNTHETIC_PATTERN_H
#define TRANSHIP_TOOLS_SYNTHETIC_PATTERN_H

#include <stdint.h>

enum synthetic_pattern { SYNTHETIC_SEQ, SYNTHETIC_RAND, SYNTHETIC_ZIPF, SYNTHETIC_PATTERNS };

#define SYNTHETIC_ZIPF_EXPONENT 0.99 /* YCSB's: 1 % of the pages get about half of the writes */

/* Constants of one distribution; see synthetic_pattern.c. */
struct synthetic_zipf {
	double h_x1, h_n, s;
};

struct synthetic_walk {
	enum synthetic_pattern pattern;
	uint64_t pages; /* to visit, >= 1 */
	uint64_t state; /* of the generator, or the next page: all that a successor needs */
	struct synthetic_zipf zipf;
};

void synthetic_walk_init(struct synthetic_walk *w, enum synthetic_pattern pattern, uint64_t pages,
			 uint64_t seed);
/* The next page, 0 .. pages-1. */
uint64_t synthetic_walk_next(struct synthetic_walk *w);

#endif
