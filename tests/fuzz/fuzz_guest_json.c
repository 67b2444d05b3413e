// SPDX-License-Identifier: MIT
/*
 * The description of a VM in a peer's offer. What is accepted must be within its bounds, and be the
 * same after it was written and read again.
 */
#include "control/guest/guest.h"
#include "tests/fuzz/fuzz.h"

static bool fits(const char *s, size_t size)
{
	return memchr(s, '\0', size);
}

static void check_description(const struct guest_description *d)
{
	uint64_t sum = 0;

	fuzz_check(fits(d->name, sizeof(d->name)) && fits(d->kind, sizeof(d->kind)));
	fuzz_check(fits(d->version, sizeof(d->version)) && fits(d->machine, sizeof(d->machine)));
	fuzz_check(fits(d->cpu_model, sizeof(d->cpu_model)) && fits(d->accel, sizeof(d->accel)));
	fuzz_check(d->nregions <= IPC_REGIONS_MAX && d->ndisks <= 1024);
	for (uint32_t i = 0; i < d->nregions; i++) {
		const struct guest_region *r = &d->regions[i];

		fuzz_check(fits(r->id, sizeof(r->id)) && fits(r->path, sizeof(r->path)));
		fuzz_check(r->page_size >= 4096 && !(r->page_size & (r->page_size - 1)));
		fuzz_check(r->size && r->size % r->page_size == 0);
		fuzz_check(!__builtin_add_overflow(sum, r->size, &sum));
		fuzz_check(!r->mappings && !r->nmappings);
	}
	fuzz_check(sum == d->ram_bytes);
	for (uint32_t i = 0; i < d->ndisks; i++)
		fuzz_check(fits(d->disks[i].path, sizeof(d->disks[i].path)) &&
			   fits(d->disks[i].identity, sizeof(d->disks[i].identity)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	json_t *j = json_loadb((const char *)data, size, 0, NULL), *out, *again;
	struct guest_description d = { 0 }, second = { 0 };
	struct failure f = { 0 };

	if (guest_description_from_json(&d, j, &f)) {
		fuzz_check(failure_is_set(&f));
	} else {
		check_description(&d);
		out = guest_description_to_json(&d);
		fuzz_check(out && !guest_description_from_json(&second, out, &f));
		again = guest_description_to_json(&second);
		fuzz_check(json_equal(out, again));
		json_decref(out);
		json_decref(again);
		guest_description_release(&second);
	}
	guest_description_release(&d);
	json_decref(j);
	return 0;
}
