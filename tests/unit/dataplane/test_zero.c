// SPDX-License-Identifier: MIT
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "dataplane/region.h"
#include "dataplane/zero.h"

static _Alignas(PAGE_BYTES) uint8_t page[PAGE_BYTES];

static void test_zeros(void **state)
{
	(void)state;
	memset(page, 0, sizeof(page));
	assert_true(zero_page(page));
	assert_true(zero_page_portable(page));
}

static void test_every_byte_counts(void **state)
{
	(void)state;
	memset(page, 0, sizeof(page));
	for (size_t i = 0; i < sizeof(page); i++) {
		page[i] = (uint8_t)(1u << (i % 8));
		assert_false(zero_page(page));
		assert_false(zero_page_portable(page));
		page[i] = 0;
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_every_byte_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
