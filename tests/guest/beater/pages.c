// SPDX-License-Identifier: MIT
/* The guest's pages and what must be in them; see pages.h. */
#include "pages.h"

#define WORDS (PAGE_SIZE / 8)
/* Knuth's MMIX generator: two instructions a word, so that TCG fills 512 MiB in about a second. */
#define STEP(x) ((x)*6364136223846793005ull + 1442695040888963407ull)

uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

uint64_t pages_address(const struct pages *p, uint64_t page)
{
	uint64_t offset = page * PAGE_SIZE;

	for (unsigned int i = 0; i < p->nranges; i++) {
		uint64_t length = p->ranges[i].end - p->ranges[i].start;

		if (offset < length)
			return p->ranges[i].start + offset;
		offset -= length;
	}
	return 0;
}

bool pages_init(struct pages *p, const struct machine *m, uint64_t limit)
{
	uint64_t total = 0, table;

	for (unsigned int i = 0; i < m->nranges; i++) {
		p->ranges[i] = m->ranges[i];
		total += m->ranges[i].end - m->ranges[i].start;
	}
	p->nranges = m->nranges;
	if (limit && limit < total)
		total = limit;
	p->count = total / PAGE_SIZE;
	/* The table takes whole pages from the front of the first range. */
	table = (p->count * sizeof(uint32_t) + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	if (table >= p->ranges[0].end - p->ranges[0].start)
		return false;
	p->versions = (uint32_t *)p->ranges[0].start;
	p->ranges[0].start += table;
	p->count -= table / PAGE_SIZE;
	memset(p->versions, 0, table);
	p->written = 0;
	return p->count > 0;
}

/* What pages are made of, fixed for their life: zero by whole grains, plain page by page. */
static uint64_t kind_of(const struct pages *p, uint64_t page)
{
	uint64_t grain = p->zero_grain ? p->zero_grain : 64;

	return mix(page / grain * 0x9e3779b97f4a7c15ull + p->seed);
}

static bool is_zero(const struct pages *p, uint64_t kind, uint32_t version)
{
	return kind % 100 < p->zero_percent && !(version & 1);
}

static bool is_plain(const struct pages *p, uint64_t page)
{
	return mix(page ^ p->seed) % 100 < p->plain_percent;
}

static uint64_t first_word(const struct pages *p, uint64_t page, uint32_t version)
{
	return mix(page << 32 ^ version ^ mix(p->seed + 1));
}

static void write_content(uint64_t *at, uint64_t x, bool plain)
{
	for (uint64_t i = 0; i < WORDS; i += 8, at += 8) {
		for (int j = 0; j < 8; j++) {
			at[j] = x;
			if (!plain)
				x = STEP(x);
		}
		if (plain)
			x = STEP(x);
	}
}

static bool check_content(const uint64_t *at, uint64_t x, bool plain)
{
	uint64_t differs = 0;

	for (uint64_t i = 0; i < WORDS; i += 8, at += 8) {
		for (int j = 0; j < 8; j++) {
			differs |= at[j] ^ x;
			if (!plain)
				x = STEP(x);
		}
		if (plain)
			x = STEP(x);
	}
	return !differs;
}

static void write_page(const struct pages *p, uint64_t page, uint32_t version)
{
	uint64_t *at = (uint64_t *)pages_address(p, page);
	uint64_t kind = kind_of(p, page);

	if (is_zero(p, kind, version))
		for (uint64_t i = 0; i < WORDS; i += 8, at += 8)
			for (int j = 0; j < 8; j++)
				at[j] = 0;
	else if (is_plain(p, page))
		write_content(at, first_word(p, page, version), true);
	else
		write_content(at, first_word(p, page, version), false);
}

/* The firmware leaves code and tables near the end of a range (SeaBIOS: within 17 MiB). */
static bool firmware_wrote(const struct pages *p, uint64_t address)
{
	for (unsigned int i = 0; i < p->nranges; i++)
		if (address < p->ranges[i].end)
			return address + (32 << 20) >= p->ranges[i].end;
	return true;
}

void pages_fill(struct pages *p, uint64_t page)
{
	uint64_t kind = kind_of(p, page);

	if (is_zero(p, kind, 0) && kind >> 63 && !firmware_wrote(p, pages_address(p, page)))
		return; /* RAM starts as zeros: this one is never touched */
	write_page(p, page, 0);
}

void pages_rewrite(struct pages *p, uint64_t page)
{
	write_page(p, page, ++p->versions[page]);
	p->written++;
}

bool pages_good(const struct pages *p, uint64_t page)
{
	const uint64_t *at = (const uint64_t *)pages_address(p, page);
	uint32_t version = p->versions[page];
	uint64_t kind = kind_of(p, page);
	uint64_t differs = 0;

	if (is_zero(p, kind, version)) {
		for (uint64_t i = 0; i < WORDS; i++)
			differs |= at[i];
		return !differs;
	}
	return check_content(at, first_word(p, page, version), is_plain(p, page));
}
