// SPDX-License-Identifier: MIT
/* A chunk's runs, and the frames that carry them; see chunk_plan.h. */
#include "dataplane/source/chunk_plan.h"

#include <string.h>

#include "dataplane/source/page_reader.h"

void plan_begin(struct chunk_plan *p, const struct scheduler_chunk *c)
{
	p->region = c->region;
	p->first_page = c->first_page;
	p->same = 0;
	p->count = 0;
}

void plan_add_data(struct chunk_plan *p, uint32_t page, uint32_t pages, enum wire_encoding encoding,
		   const void *data, uint32_t length)
{
	p->runs[p->count++] = (struct plan_run){ .page = (uint16_t)page,
						 .pages = (uint16_t)pages,
						 .encoding = (uint8_t)encoding,
						 .length = length,
						 .data = data };
}

void plan_add(struct chunk_plan *p, uint32_t page, uint32_t pages, enum wire_encoding encoding)
{
	plan_add_data(p, page, pages, encoding, NULL,
		      encoding == WIRE_ENC_RAW ? pages * PAGE_BYTES : 0);
}

void plan_from_kinds(struct chunk_plan *p, const struct scheduler_chunk *c, const uint8_t *kinds,
		     const uint8_t *snapshot)
{
	static const enum wire_encoding encodings[] = {
		[PAGE_RAW] = WIRE_ENC_RAW, [PAGE_ZERO] = WIRE_ENC_ZERO, [PAGE_HOLE] = WIRE_ENC_HOLE
	};
	uint32_t end;

	plan_begin(p, c);
	for (uint32_t at = 0; at < c->pages; at = end) {
		for (end = at + 1; end < c->pages && kinds[end] == kinds[at]; end++)
			;
		if (kinds[at] == PAGE_SAME)
			p->same += end - at;
		else if (kinds[at] == PAGE_RAW && snapshot)
			plan_add_data(p, at, end - at, WIRE_ENC_RAW,
				      snapshot + (size_t)at * PAGE_BYTES, (end - at) * PAGE_BYTES);
		else if (kinds[at] != PAGE_NOT_SENT)
			plan_add(p, at, end - at, encodings[kinds[at]]);
	}
}

/* Adds pages [skip, skip + pages) of run to the frame. */
static void add_to_frame(const struct chunk_plan *p, const struct plan_run *run, uint32_t skip,
			 uint32_t pages, struct plan_frame *f)
{
	struct wire_run w = { .page = (uint16_t)(run->page + skip),
			      .pages = (uint16_t)pages,
			      .encoding = run->encoding,
			      .length = run->length };

	if (pages < run->pages) /* raw pages, or no payload */
		w.length = run->encoding == WIRE_ENC_RAW ? pages * PAGE_BYTES : 0;
	wire_put_run(f->head + WIRE_FRAME_SIZE + f->runs++ * WIRE_RUN_SIZE, &w);
	if (w.length)
		f->slice[f->slices++] = (struct tx_slice){
			.offset = (p->first_page + w.page) << PAGE_SHIFT,
			.length = w.length,
			.data = run->data ? run->data + (size_t)skip * PAGE_BYTES : NULL,
		};
	f->payload += w.length;
	f->pages += pages;
	f->in[run->encoding] += (uint64_t)pages * PAGE_BYTES;
	f->out[run->encoding] += w.length;
}

/* How many of the next `left` pages of run fit beside what the frame has; 0: none. */
static uint32_t pages_that_fit(const struct plan_run *run, uint32_t left, uint64_t max,
			       const struct plan_frame *f)
{
	uint64_t room = max > f->payload ? max - f->payload : 0;
	if (!run->length)
		return left;
	if (run->encoding != WIRE_ENC_RAW)
		return run->length <= room || !f->payload ? left : 0;
	room >>= PAGE_SHIFT;
	if (!room)
		return f->payload ? 0 : 1;
	return room < left ? (uint32_t)room : left;
}

bool plan_has_data(const struct chunk_plan *p)
{
	for (uint32_t i = 0; i < p->count; i++)
		if (p->runs[i].encoding == WIRE_ENC_RAW)
			return true;
	return false;
}

bool plan_next_frame(const struct chunk_plan *p, struct plan_cursor *at, uint64_t max,
		     struct plan_frame *f)
{
	struct wire_frame head = { .type = WIRE_PAGES,
				   .region = (uint16_t)p->region->index,
				   .offset = p->first_page << PAGE_SHIFT };

	/* slice and head are overwritten as far as they are used */
	memset(f, 0, offsetof(struct plan_frame, slice));
	while (at->run < p->count) {
		const struct plan_run *run = &p->runs[at->run];
		uint32_t left = run->pages - at->page, n = pages_that_fit(run, left, max, f);

		if (!n)
			break;
		add_to_frame(p, run, at->page, n, f);
		at->page += n;
		if (n == left)
			*at = (struct plan_cursor){ .run = at->run + 1 };
	}
	if (!f->runs)
		return false;
	head.count = f->runs;
	head.length = f->runs * WIRE_RUN_SIZE + (uint32_t)f->payload;
	wire_put_frame(f->head, &head);
	f->head_len = WIRE_FRAME_SIZE + f->runs * WIRE_RUN_SIZE;
	return true;
}
