// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/region.h"
#include "dataplane/zero.h"

/* The page looked at lies between two that are full: a variant that reads beyond its page fails. */
static _Alignas(PAGE_BYTES) uint8_t memory[3 * PAGE_BYTES];
static uint8_t *const page = memory + PAGE_BYTES;

static int setup(void **state)
{
	(void)state;
	memset(memory, 0xff, sizeof(memory));
	memset(page, 0, PAGE_BYTES);
	return 0;
}

/* What every usable variant and the chosen one say; they must say the same. */
static void expect(bool zero)
{
	for (unsigned int i = 0; i < zero_variants_count; i++)
		if (zero_variants[i].usable())
			assert_int_equal(zero_variants[i].page(page), zero);
	assert_int_equal(zero_page(page), zero);
}

static void test_zeros(void **state)
{
	(void)state;
	expect(true);
}

static void test_every_bit_counts(void **state)
{
	(void)state;
	for (size_t i = 0; i < PAGE_BYTES; i++)
		for (unsigned int bit = 0; bit < 8; bit++) {
			page[i] = (uint8_t)(1u << bit);
			expect(false);
			page[i] = 0;
		}
	expect(true);
}

/* Two bytes that would cancel each other if something were added or xored instead of ored. */
static void test_pairs_do_not_cancel(void **state)
{
	(void)state;
	for (size_t i = 0; i < PAGE_BYTES; i += 61)
		for (size_t k = i + 1; k < PAGE_BYTES; k += 67) {
			page[i] = page[k] = 0x80;
			expect(false);
			page[i] = page[k] = 0;
		}
}

static void test_chosen_is_the_first_usable(void **state)
{
	const struct zero_variant *chosen = zero_variant_chosen();

	(void)state;
	for (const struct zero_variant *v = zero_variants; v < chosen; v++)
		assert_false(v->usable());
	assert_true(chosen->usable());
	assert_string_equal(zero_variants[zero_variants_count - 1].name, "portable");
	for (unsigned int i = 0; i < zero_variants_count; i++)
		print_message("%s: %s\n", zero_variants[i].name,
			      zero_variants[i].usable() ? "tested" : "not on this processor");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_zeros, setup),
		cmocka_unit_test_setup(test_every_bit_counts, setup),
		cmocka_unit_test_setup(test_pairs_do_not_cancel, setup),
		cmocka_unit_test(test_chosen_is_the_first_usable),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
