/* SPDX-License-Identifier: MIT */
/*
 * Post-copy from outside: the guest runs at the destination while some of its pages are still at
 * the source.
 *
 * Theory of operation
 *   The switch. The pre-copy data planes have sent rounds, each acknowledged on all streams. The
 *   guest is stopped, a last scan says which pages are not up to date at the destination, and that
 *   set goes over (MISSING frames, stream 0) in place of the pages. It is kept in a file that
 *   transhipd holds: a bit a page, cleared when the page is in place.
 *
 *   All of that is in the guest's pause, so it costs what is missing and not what RAM there is:
 *   the source names chunks by its scheduler's list of dirty ones, the destination counts what it
 *   takes, and whoever walks the file later does so by its summary. The file's memory is there and
 *   touched before (page_set_populate).
 *
 *   A pair of data planes of its own, made and connected before the pause, serves from then on.
 *   Neither keeps anything that the other, or the file, does not know: if one of them or the link
 *   is lost, transhipd starts two new ones, the destination's names what the file still has as
 *   missing, and all goes on. So beginning and beginning again are one.
 *
 *   The destination VMM's RAM is registered with a userfaultfd for MISSING and MINOR, and its page
 *   table was emptied (MADV_DONTNEED, tests/platform/postcopy_minor.c): whatever the VMM touches
 *   faults first, whether the file holds the page or not. Stale pages need not be punched: nobody
 *   sees them before UFFDIO_CONTINUE maps them.
 *
 *   destination: fault thread (postcopy_faults.c)
 *     reads faults; a page that is not missing is mapped at once, with what lies around it; one
 *     that is gets asked for on stream 0 (REQUEST), once
 *   destination: a thread a stream (postcopy_fill.c)
 *     takes PAGES: claim -> fill through the file -> clear the missing bit -> CONTINUE
 *   source: fault thread on stream 0, push threads on all others (postcopy_source.c, _push.c)
 *
 *   A page is placed once, by whoever claims it: after that it belongs to the guest, which may have
 *   written it. What comes a second time is read and dropped. Claims are of the process and are
 *   made page by page when the bytes are there, so that a page that is asked for never waits for
 *   the rest of a pushed chunk.
 *
 *   Nobody waits for ever. Filling clears the missing bit and then looks whether the page was
 *   asked for; the fault thread notes that it is asked for and then looks at the missing bit; both
 *   sequentially consistent: at least one of them sees the other and maps the page. Pages that
 *   nobody waits for are mapped when their frame ends, in one call a run.
 *
 *   Huge pages (hugetlb) are filled in parts of 4 KiB and mapped when none of them is missing.
 *
 *   Pages that the guest gives back while they are missing (balloon, free page reporting) are
 *   filled with what they had, which both interfaces allow; given back later, they are holes, as
 *   what was never populated: when they fault they are filled with zeros.
 */
#ifndef TRANSHIP_DATAPLANE_POSTCOPY_H
#define TRANSHIP_DATAPLANE_POSTCOPY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "dataplane/bench/bench_histogram.h"
#include "dataplane/ipc.h"
#include "dataplane/postcopy/page_set.h"
#include "dataplane/region.h"

/*
 * Behind the set in the file of IPC_MISSING: figures that outlive a data plane. Pages are counted
 * atomically, the rest under postcopy.figures_lock.
 */
struct postcopy_figures {
	uint64_t faults, local_faults, demand_pages, push_pages, late_pages;
	/* clock_ns(), atomic: of the last page, or of SERVE; how the next one knows since when
	 * nobody served */
	uint64_t placed_ns;
	uint64_t interruptions, interrupted_ns;
	struct bench_histogram latency;
};

/* The size that the file of IPC_MISSING must have. */
static inline uint64_t postcopy_file_bytes(const struct region *regions, uint32_t nregions)
{
	return page_set_bytes(regions, nregions) + sizeof(struct postcopy_figures);
}

/* What they say, all but the missing pages. */
void postcopy_sum_figures(const struct postcopy_figures *g, struct ipc_postcopy *out);

/* Faults that wait at one time and whose time is taken; more are served untimed. */
#define POSTCOPY_WAITERS_MAX 256u

struct postcopy_waiter {
	uint32_t region;
	uint64_t page; /* of the region, first of the unit */
	uint64_t since_ns;
};

struct destination;
struct scheduler;
struct stream;
struct wire_frame;

/* The destination's part, of struct destination. */
struct postcopy {
	struct destination *d;
	int uffd;	 /* the setup's */
	int stop_fd;	 /* eventfd: the fault thread is to end; owned */
	bool served;	 /* main: SERVE came */
	bool reported;	 /* main: COMPLETE was sent */
	bool fault_runs; /* main: threads to be joined */
	bool tell_runs;
	pthread_t fault_thread, tell_thread;

	struct page_set missing;   /* the file's; shared with those that come after us */
	struct page_set claimed;   /* somebody fills it, or has */
	struct page_set requested; /* somebody waits for it, or did */
	struct page_set shown;	   /* the VMM could see it, or that it is a hole, once */
	uint64_t left;		   /* atomic: pages in missing */
	struct postcopy_figures *figures;

	pthread_mutex_t figures_lock; /* figures, waiters; taken once a fault and demanded page */
	struct postcopy_waiter waiters[POSTCOPY_WAITERS_MAX];
	uint32_t nwaiters;

	pthread_mutex_t send_lock; /* stream 0's writing side */
};

/* postcopy_faults.c; main thread. init: before the sandbox; -errno. */
int postcopy_init(struct postcopy *p, struct destination *d);
void postcopy_release(struct postcopy *p);
/* SERVE: the set is final and all streams are there. -errno with f. */
int postcopy_serve(struct postcopy *p, struct failure *f);
/* Ends its threads; the streams are shut down. */
void postcopy_stop(struct postcopy *p);
void postcopy_report(struct postcopy *p, struct ipc_postcopy *out);

/* Any thread. */

/* True once nothing is missing. */
static inline bool postcopy_is_complete(const struct postcopy *p)
{
	return p->served && !__atomic_load_n(&p->left, __ATOMIC_ACQUIRE);
}
/*
 * Lets the VMM see all of a chunk of which nothing is missing any more, but for what it has been
 * shown, and, where it is in tatters, what lies behind a few holes.
 */
int postcopy_release_chunk(struct postcopy *p, const struct region *r, uint64_t chunk);
/* Lets the VMM see pages of a chunk that are in place, and wakes who waits for them. */
int postcopy_release_pages(struct postcopy *p, const struct region *r, uint64_t chunk,
			   const uint64_t mask[PAGE_SET_WORDS]);
/* Somebody waited for pages of mask, which can be seen now. */
void postcopy_note_served(struct postcopy *p, const struct region *r, uint64_t chunk,
			  const uint64_t mask[PAGE_SET_WORDS]);

/* postcopy_fill.c: PAGES of a post-copy's stream. As place_pages. */
int postcopy_take_pages(struct stream *st, const struct wire_frame *f);

/* postcopy_set.c: MISSING and MISSING_END at a pre-copy's destination, into the file. */
int postcopy_take_missing(struct stream *st, const struct wire_frame *f);
int postcopy_take_missing_end(struct stream *st, const struct wire_frame *f);

/*
 * What is missing, to a stream's socket as MISSING frames: chunk by chunk in the order of regions
 * and offsets, then MISSING_END. A chunk with nothing in it is passed over. stop: atomic, may be
 * NULL. These block. -errno.
 */
struct postcopy_naming;
int postcopy_naming_new(struct postcopy_naming **s, int fd, const bool *stop);
void postcopy_naming_free(struct postcopy_naming *s);
int postcopy_name(struct postcopy_naming *s, uint32_t region, uint64_t chunk,
		  const uint64_t words[PAGE_SET_WORDS]);
int postcopy_naming_end(struct postcopy_naming *s, uint64_t *pages);
/* All of that for a set. */
int postcopy_name_set(int fd, const struct page_set *set, const bool *stop, uint64_t *pages);
/* And for what a scheduler has pending between rounds, by its list of dirty chunks. */
int postcopy_name_pending(int fd, const struct scheduler *s, const bool *stop, uint64_t *pages);

#endif
