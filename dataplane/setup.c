// SPDX-License-Identifier: MIT
/* Receiving what a data plane is given before IPC_START; see setup.h. */
#include "dataplane/setup.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "lib/base/cleanup.h"

/* A part of the set-up that does not come within this time does not come. */
#define SETUP_TIMEOUT_MS 30000

/* What has come so far, beyond the setup itself. */
struct progress {
	bool config, tracker, bench;
	uint32_t regions, streams, mappings;
};

static int malformed(struct failure *f, const char *what)
{
	return failure_set(f, -EBADMSG, "internal", NULL, "the data plane was set up wrongly: %s",
			   what);
}

static bool encodings_fit(const struct ipc_config *c)
{
	if (c->encodings & ~(IPC_ENCODING_ZSTD | IPC_ENCODING_DELTA))
		return false;
	if (c->compress > IPC_COMPRESS_ZSTD || c->level > 22 ||
	    (c->compress == IPC_COMPRESS_ZSTD) != !!c->level)
		return false;
	if (c->compress != IPC_COMPRESS_OFF && !(c->encodings & IPC_ENCODING_ZSTD))
		return false;
	return !c->delta_cache || (c->encodings & IPC_ENCODING_DELTA);
}

static bool zero_or_page(uint64_t v)
{
	return v % PAGE_BYTES == 0;
}

static bool is_bench(uint32_t role)
{
	return role == IPC_ROLE_BENCH_SOURCE || role == IPC_ROLE_BENCH_DESTINATION;
}

static int take_config(struct setup *s, const struct ipc_config *c, struct failure *f)
{
	if (c->role < IPC_ROLE_SOURCE || c->role >= IPC_ROLE_END)
		return malformed(f, "unknown role");
	/* a bench makes its memory itself */
	if (!c->regions != is_bench(c->role) || c->regions > IPC_REGIONS_MAX)
		return malformed(f, "number of regions");
	if (c->streams > IPC_STREAMS_MAX || (!c->streams && c->role != IPC_ROLE_OBSERVER))
		return malformed(f, "number of streams");
	if (!encodings_fit(c))
		return malformed(f, "way of compressing");
	if (c->tx > IPC_TX_SEND)
		return malformed(f, "unknown transmission");
	s->regions = calloc(c->regions + 1ul, sizeof(*s->regions));
	if (!s->regions)
		return failure_set(f, -ENOMEM, "internal", NULL, "no memory");
	for (uint32_t i = 0; i < c->regions; i++)
		s->regions[i].fd = -1;
	s->nregions = c->regions;
	s->config = *c;
	return 0;
}

/* The file must hold the region: what lies beyond its end would be a SIGBUS later. */
static bool file_holds(int fd, uint64_t offset, uint64_t size)
{
	struct stat st;

	return !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 &&
	       size <= (uint64_t)st.st_size && offset <= (uint64_t)st.st_size - size;
}

static int take_region(struct setup *s, const struct ipc_region *in, int *fd, struct failure *f)
{
	struct region *r;

	if (in->index >= s->nregions || s->regions[in->index].fd >= 0)
		return malformed(f, "index of a region");
	if (in->page_size < PAGE_BYTES || in->page_size & (in->page_size - 1) || !in->size ||
	    in->size % in->page_size || in->file_offset % in->page_size)
		return malformed(f, "geometry of a region");
	if (!file_holds(*fd, in->file_offset, in->size))
		return malformed(f, "a region larger than its file");
	r = &s->regions[in->index];
	r->index = in->index;
	r->page_size = in->page_size;
	r->size = in->size;
	r->file_offset = in->file_offset;
	r->hugetlb = in->hugetlb != 0;
	r->fd = fd_take(fd);
	return 0;
}

static int take_mapping(struct setup *s, const struct ipc_mapping *in, uint32_t *total,
			struct failure *f)
{
	struct region *r = in->region < s->nregions ? &s->regions[in->region] : NULL;
	const struct region_mapping *last;

	if (!r || r->fd < 0 || ++*total > IPC_MAPPINGS_MAX)
		return malformed(f, "a mapping of an unknown region, or too many");
	if (in->start >= in->end || !zero_or_page(in->start) || !zero_or_page(in->end) ||
	    !zero_or_page(in->region_offset) || in->end - in->start > r->size ||
	    in->region_offset > r->size - (in->end - in->start))
		return malformed(f, "a mapping outside its region");
	last = r->nmappings ? &r->mappings[r->nmappings - 1] : NULL;
	if (last && in->start < last->end)
		return malformed(f, "mappings out of order");
	if (!(r->nmappings & (r->nmappings - 1))) {
		/* The room is the next power of two: grown whenever the count is one. */
		size_t room = r->nmappings ? 2ul * r->nmappings : 1;
		void *p = realloc(r->mappings, room * sizeof(*r->mappings));

		if (!p)
			return failure_set(f, -ENOMEM, "internal", NULL, "no memory");
		r->mappings = p;
	}
	r->mappings[r->nmappings++] = (struct region_mapping){ .start = in->start,
							       .end = in->end,
							       .offset = in->region_offset };
	return 0;
}

static int take_tracker(struct setup *s, const struct ipc_tracker *in, int *fd, struct failure *f)
{
	if (in->kind > IPC_TRACKER_PAGEMAP || (in->kind == IPC_TRACKER_PAGEMAP) != (*fd >= 0))
		return malformed(f, "tracker");
	s->tracker = (enum ipc_tracker_kind)in->kind;
	s->tracker_kvm = in->kvm;
	s->pagemap_fd = fd_take(fd);
	return 0;
}

static int take_stream(struct setup *s, const struct ipc_stream *in, int *fd, struct failure *f)
{
	if (in->index >= s->config.streams || s->stream_fds[in->index] >= 0)
		return malformed(f, "index of a stream");
	s->stream_fds[in->index] = fd_take(fd);
	return 0;
}

static int take_bench(struct setup *s, const struct ipc_bench *in, int *fd, struct failure *f)
{
	if (in->memory > IPC_BENCH_MEMORY_MAX || in->forward > s->config.streams ||
	    in->ncpus > IPC_CPUS_MAX || in->data > IPC_BENCH_FILE ||
	    in->place > IPC_BENCH_PLACE_PWRITE || (in->data == IPC_BENCH_FILE) != (*fd >= 0))
		return malformed(f, "what a bench is to do");
	s->bench = *in;
	s->bench_fd = fd_take(fd);
	return 0;
}

static int take_listener(struct setup *s, int *fd, struct failure *f)
{
	uint32_t role = s->config.role;

	if ((role != IPC_ROLE_DESTINATION && role != IPC_ROLE_POSTCOPY_DESTINATION &&
	     role != IPC_ROLE_BENCH_DESTINATION) ||
	    s->nlisteners == IPC_LISTENERS_MAX)
		return malformed(f, "a listener that does not belong there");
	s->listen_fds[s->nlisteners++] = fd_take(fd);
	return 0;
}

/* A descriptor that comes once. */
static int take_only(int *place, int *fd, struct failure *f)
{
	if (*place >= 0)
		return malformed(f, "a descriptor that came twice");
	*place = fd_take(fd);
	return 0;
}

static int check_bench(const struct setup *s, const struct progress *p, struct failure *f)
{
	if (!p->bench)
		return malformed(f, "nothing about the bench");
	if (s->config.role == IPC_ROLE_BENCH_SOURCE && p->streams != s->config.streams)
		return malformed(f, "a stream is missing");
	if (s->config.role == IPC_ROLE_BENCH_DESTINATION && !s->nlisteners)
		return malformed(f, "no listener");
	return 0;
}

static bool is_postcopy(uint32_t role)
{
	return role == IPC_ROLE_POSTCOPY_SOURCE || role == IPC_ROLE_POSTCOPY_DESTINATION;
}

/* One stream for faults, and at least one to push on. */
static int check_postcopy(const struct setup *s, const struct progress *p, struct failure *f)
{
	if (s->config.streams < 2)
		return malformed(f, "too few streams for post-copy");
	if (s->config.role == IPC_ROLE_POSTCOPY_SOURCE)
		return p->streams == s->config.streams ? 0 : malformed(f, "a stream is missing");
	if (!s->nlisteners || s->uffd < 0 || s->missing_fd < 0)
		return malformed(f, "no listener, userfaultfd or file for missing pages");
	for (uint32_t i = 0; i < s->nregions; i++) {
		const struct region *r = &s->regions[i];

		if (!r->nmappings)
			return malformed(f, "a region without a mapping");
		if (r->page_size != PAGE_BYTES && r->page_size != CHUNK_BYTES)
			return malformed(f, "pages of this size");
	}
	return 0;
}

static int check_complete(const struct setup *s, const struct progress *p, struct failure *f)
{
	bool source = s->config.role == IPC_ROLE_SOURCE;
	bool destination = s->config.role == IPC_ROLE_DESTINATION;

	if (!p->config || p->regions != s->nregions)
		return malformed(f, "a region is missing");
	if (is_bench(s->config.role))
		return check_bench(s, p, f);
	if (is_postcopy(s->config.role))
		return check_postcopy(s, p, f);
	if (!destination && !p->tracker)
		return malformed(f, "no tracker");
	if (source && p->streams != s->config.streams)
		return malformed(f, "a stream is missing");
	if (destination && !s->nlisteners)
		return malformed(f, "no listener");
	if (s->tracker != IPC_TRACKER_PAGEMAP)
		return 0;
	for (uint32_t i = 0; i < s->nregions; i++)
		if (!s->regions[i].nmappings)
			return malformed(f, "a tracked region without a mapping");
	return 0;
}

/* One message before START. */
static int take_message(struct setup *s, struct progress *p, const struct ipc_message *m, int *fd,
			struct failure *f)
{
	enum ipc_role role = (enum ipc_role)s->config.role;
	int err;

	if (!p->config != (m->head.type == IPC_CONFIG))
		return malformed(f, "CONFIG comes first, and once");
	switch (m->head.type) {
	case IPC_CONFIG:
		p->config = true;
		return take_config(s, &m->body.config, f);
	case IPC_REGION:
		p->regions++;
		return take_region(s, &m->body.region, fd, f);
	case IPC_MAPPING:
		if (role == IPC_ROLE_DESTINATION || is_bench(role))
			break;
		return take_mapping(s, &m->body.mapping, &p->mappings, f);
	case IPC_TRACKER:
		if (role == IPC_ROLE_DESTINATION || is_bench(role) || is_postcopy(role) ||
		    p->tracker)
			break;
		p->tracker = true;
		return take_tracker(s, &m->body.tracker, fd, f);
	case IPC_STREAM:
		if (role != IPC_ROLE_SOURCE && role != IPC_ROLE_BENCH_SOURCE &&
		    role != IPC_ROLE_POSTCOPY_SOURCE)
			break;
		err = take_stream(s, &m->body.stream, fd, f);
		p->streams += !err;
		return err;
	case IPC_LISTEN:
		return take_listener(s, fd, f);
	case IPC_UFFD:
	case IPC_MISSING:
		if (role != IPC_ROLE_POSTCOPY_DESTINATION)
			break;
		return take_only(m->head.type == IPC_UFFD ? &s->uffd : &s->missing_fd, fd, f);
	case IPC_BENCH:
		if (!is_bench(role) || p->bench)
			break;
		p->bench = true;
		return take_bench(s, &m->body.bench, fd, f);
	default:
		break;
	}
	return failure_set(f, -EBADMSG, "internal", NULL,
			   "the data plane was set up wrongly: %s does not belong there",
			   ipc_type_name(m->head.type));
}

int setup_receive(struct setup *s, int sock, struct failure *f)
{
	struct progress p = { 0 };

	*s = (struct setup){
		.sock = sock, .pagemap_fd = -1, .bench_fd = -1, .missing_fd = -1, .uffd = -1
	};
	for (uint32_t i = 0; i < IPC_STREAMS_MAX; i++)
		s->stream_fds[i] = -1;
	for (;;) {
		AUTO_CLOSE int fd = -1;
		struct ipc_message m;
		int err = ipc_recv(sock, &m, &fd, SETUP_TIMEOUT_MS);

		if (err == -EBADMSG)
			return malformed(f, "a malformed message");
		if (err)
			return failure_set(f, err, "internal", NULL,
					   "the data plane's set-up did not come: %s",
					   strerror(-err));
		if (m.head.type == IPC_QUIT)
			return failure_set(f, -ECANCELED, "cancelled", NULL,
					   "the data plane was told to quit before its start");
		if (m.head.type == IPC_START)
			return check_complete(s, &p, f);
		err = take_message(s, &p, &m, &fd, f);
		if (err)
			return err;
	}
}

void setup_close_listeners(struct setup *s)
{
	for (uint32_t i = 0; i < s->nlisteners; i++)
		fd_close(&s->listen_fds[i]);
	s->nlisteners = 0;
}

void setup_release(struct setup *s)
{
	for (uint32_t i = 0; i < s->nregions; i++)
		region_release(&s->regions[i]);
	free(s->regions);
	for (uint32_t i = 0; i < IPC_STREAMS_MAX; i++)
		fd_close(&s->stream_fds[i]);
	fd_close(&s->pagemap_fd);
	fd_close(&s->bench_fd);
	fd_close(&s->missing_fd);
	fd_close(&s->uffd);
	setup_close_listeners(s);
	explicit_bzero(s->config.secret, sizeof(s->config.secret));
	s->regions = NULL;
	s->nregions = 0;
}
