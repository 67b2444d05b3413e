/* SPDX-License-Identifier: MIT */
/*
 * What the fuzz targets share. A target is tests/fuzz/fuzz_NAME.c with the one function below; it
 * is linked with libFuzzer by `make fuzz`, and with replay_main.c by `make check`, which feeds it
 * the saved inputs of tests/fuzz/corpus/NAME.
 *
 * A target checks more than that nothing crashes: what was accepted must be right (fuzz_check), and
 * nothing may be left open or allocated behind an input.
 */
#ifndef TRANSHIP_TESTS_FUZZ_H
#define TRANSHIP_TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* libFuzzer's entry; returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input as it is used up. Reading beyond its end gives zeros. */
struct fuzz_input {
	const uint8_t *p;
	size_t left;
};

static inline uint64_t fuzz_number(struct fuzz_input *in, size_t bytes)
{
	uint64_t v = 0;

	for (size_t i = 0; i < bytes && in->left; i++, in->left--)
		v |= (uint64_t)*in->p++ << (8 * i);
	return v;
}

static inline uint8_t fuzz_u8(struct fuzz_input *in)
{
	return (uint8_t)fuzz_number(in, 1);
}

static inline uint16_t fuzz_u16(struct fuzz_input *in)
{
	return (uint16_t)fuzz_number(in, 2);
}

/* Up to n bytes that are there. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t *n)
{
	const uint8_t *p = in->p;

	if (*n > in->left)
		*n = in->left;
	in->p += *n;
	in->left -= *n;
	return p;
}

/* Ends the process, which both drivers report together with the input. */
#define fuzz_check(x)                                                                              \
	do {                                                                                       \
		if (!(x)) {                                                                        \
			fprintf(stderr, "%s:%d: %s: does not hold\n", __FILE__, __LINE__, #x);     \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

#endif
