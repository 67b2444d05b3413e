// SPDX-License-Identifier: MIT
/*
 * Filling the synthetic guest's RAM and checking it, in parallel by blocks of 2 MiB.
 *
 * What was never touched is checked through the file: holes are skipped, and read(2) of a hole
 * allocates nothing, as a look through the mapping would.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/base/cleanup.h"
#include "lib/base/kernel_abi.h"
#include "tools/synthetic_guest.h"

#define BLOCK_PAGES 512ull
#define READ_BYTES  (256u * 1024)

struct job {
	struct synthetic *g;
	int (*block)(struct job *j, uint64_t first, uint64_t end);
	_Atomic uint64_t next;
	uint64_t end; /* pages */
	_Atomic int err;
	pthread_mutex_t mutex; /* of check */
	struct synthetic_check *check;
};

static void *job_thread(void *arg)
{
	struct job *j = arg;

	for (;;) {
		uint64_t first = atomic_fetch_add(&j->next, BLOCK_PAGES);
		uint64_t end = j->end - first < BLOCK_PAGES ? j->end : first + BLOCK_PAGES;
		int err;

		if (first >= j->end || j->err)
			return NULL;
		err = j->block(j, first, end);
		if (err)
			j->err = err;
	}
}

/* On the calling thread and up to threads - 1 others. */
static int job_run(struct job *j, unsigned int threads)
{
	pthread_t t[SYNTHETIC_THREADS_MAX];
	unsigned int made = 0;

	if (threads > SYNTHETIC_THREADS_MAX)
		threads = SYNTHETIC_THREADS_MAX;
	while (made + 1 < threads && !pthread_create(&t[made], NULL, job_thread, j))
		made++;
	job_thread(j);
	while (made)
		pthread_join(t[--made], NULL);
	return j->err;
}

static int fill_block(struct job *j, uint64_t first, uint64_t end)
{
	struct synthetic *g = j->g;

	/* One fault a block and not one a page; what it cannot do the writes below will. */
	madvise(g->ram + first * SYNTHETIC_WORDS, (end - first) * SYNTHETIC_PAGE,
		MADV_POPULATE_WRITE);
	for (uint64_t page = first; page < end; page++) {
		synthetic_page_write(g->ram + page * SYNTHETIC_WORDS, &g->p.kinds, page, 1);
		if (page < g->p.working_set)
			g->versions[page] = 1;
	}
	return 0;
}

int synthetic_fill(struct synthetic *g, unsigned int threads)
{
	struct job j = { .g = g, .block = fill_block, .end = g->p.touched };

	return job_run(&j, threads);
}

/* Keeps the lowest SYNTHETIC_BAD_MAX pages, whatever order they are found in. */
static void note_bad(struct job *j, const struct synthetic_bad *bad)
{
	struct synthetic_check *c = j->check;
	uint64_t at, used;
	SCOPED_LOCK(&j->mutex);

	used = c->bad < SYNTHETIC_BAD_MAX ? c->bad : SYNTHETIC_BAD_MAX;
	c->bad++;
	for (at = used; at && c->list[at - 1].page > bad->page; at--)
		if (at < SYNTHETIC_BAD_MAX)
			c->list[at] = c->list[at - 1];
	if (at < SYNTHETIC_BAD_MAX)
		c->list[at] = *bad;
}

static int check_block(struct job *j, uint64_t first, uint64_t end)
{
	struct synthetic *g = j->g;

	for (uint64_t page = first; page < end; page++) {
		const uint64_t *words = g->ram + page * SYNTHETIC_WORDS;
		uint32_t version = page < g->p.working_set ? g->versions[page] : 1;
		int offset = synthetic_page_check(words, &g->p.kinds, page, version);
		const struct synthetic_bad bad = { .page = page,
						   .expected = version,
						   .found = synthetic_page_claims(words, page),
						   .offset = offset };

		if (offset >= 0)
			note_bad(j, &bad);
	}
	return 0;
}

/* Pages [from, to) of the file must read as zeros. */
static int check_zeros(struct job *j, uint64_t from, uint64_t to, uint8_t *buf)
{
	static const uint8_t zeros[SYNTHETIC_PAGE];

	for (uint64_t at = from * SYNTHETIC_PAGE; at < to * SYNTHETIC_PAGE;) {
		uint64_t left = to * SYNTHETIC_PAGE - at;
		ssize_t n =
			pread(j->g->ram_fd, buf, left < READ_BYTES ? left : READ_BYTES, (off_t)at);

		if (n <= 0 || n % SYNTHETIC_PAGE)
			return n < 0 ? -errno : -EIO;
		for (ssize_t p = 0; p < n; p += SYNTHETIC_PAGE) {
			struct synthetic_bad bad = { .page = (at + (uint64_t)p) / SYNTHETIC_PAGE };

			if (!memcmp(buf + p, zeros, SYNTHETIC_PAGE))
				continue;
			while (!buf[p + bad.offset])
				bad.offset++;
			note_bad(j, &bad);
		}
		at += (uint64_t)n;
	}
	return 0;
}

static int check_untouched(struct job *j)
{
	AUTO_FREE uint8_t *buf = malloc(READ_BYTES);
	uint64_t page = j->g->p.touched;
	int err = buf ? 0 : -ENOMEM;

	while (!err && page < j->g->pages) {
		off_t data = lseek(j->g->ram_fd, (off_t)(page * SYNTHETIC_PAGE), SEEK_DATA);
		off_t hole = data < 0 ? -1 : lseek(j->g->ram_fd, data, SEEK_HOLE);
		uint64_t end = j->g->pages;

		if (data < 0 && errno == ENXIO)
			break;
		/* hugetlbfs knows no holes: all of it is read */
		if (data >= 0)
			page = (uint64_t)data / SYNTHETIC_PAGE;
		if (hole >= 0 && (uint64_t)hole / SYNTHETIC_PAGE < end)
			end = ((uint64_t)hole + SYNTHETIC_PAGE - 1) / SYNTHETIC_PAGE;
		err = check_zeros(j, page, end, buf);
		page = end;
	}
	return err;
}

int synthetic_check_all(struct synthetic *g, unsigned int threads, struct synthetic_check *out)
{
	struct job j = { .g = g, .block = check_block, .check = out };
	int err;
	SCOPED_LOCK(&g->lock);

	memset(out, 0, sizeof(*out));
	pthread_mutex_init(&j.mutex, NULL);
	synthetic_pause(g, SYNTHETIC_PAUSE_CHECK);
	j.end = g->p.touched;
	err = job_run(&j, threads);
	if (!err)
		err = check_untouched(&j);
	synthetic_resume(g, SYNTHETIC_PAUSE_CHECK);
	pthread_mutex_destroy(&j.mutex);
	out->checked = g->pages;
	return err;
}
