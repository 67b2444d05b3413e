// SPDX-License-Identifier: MIT
/* Looking at guest pages without populating holes; see page_reader.h. */
#include "dataplane/source/page_reader.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "dataplane/zero.h"
#include "lib/base/cleanup.h"
#include "lib/base/log.h"

/*
 * The handler is left by a jump. With NODEFER nothing has to be unblocked after it, and saving the
 * mask would be a system call at every look; the thread sanitizer's own handler blocks all signals.
 */
#if defined(__SANITIZE_THREAD__)
#define JUMP_RESTORES_MASK 1
#else
#define JUMP_RESTORES_MASK 0
#endif

/* Where this thread goes on when the page it looks at is a hole; NULL outside such a look. */
static _Thread_local sigjmp_buf *hole_exit;

static void on_sigbus(int sig)
{
	if (hole_exit)
		siglongjmp(*hole_exit, 1);
	/* Not ours: return into the same fault with the default action. */
	signal(sig, SIG_DFL);
}

static int catch_sigbus(void)
{
	struct sigaction act = { .sa_handler = on_sigbus, .sa_flags = SA_NODEFER };

	return sigaction(SIGBUS, &act, NULL) ? -errno : 0;
}

static int guard_open(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_SIGBUS };
	AUTO_CLOSE int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		return -errno;
	return fd_take(&fd);
}

static int guard_region(int uffd, struct region *r)
{
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_MISSING };
	void *map = mmap(NULL, r->size, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, r->fd,
			 (off_t)r->file_offset);

	if (map == MAP_FAILED)
		return -errno;
	reg.range.start = (uintptr_t)map;
	reg.range.len = r->size;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg)) {
		int err = -errno;

		munmap(map, r->size);
		return err;
	}
	r->map = map;
	return 0;
}

int page_reader_init(struct page_reader *p, struct region *regions, uint32_t nregions,
		     struct failure *f)
{
	int err;

	*p = (struct page_reader){ .regions = regions, .nregions = nregions, .uffd = guard_open() };
	if (p->uffd < 0) {
		log_info("pages are looked at in copies: userfaultfd: %s", strerror(-p->uffd));
		p->uffd = -1;
	}
	p->guarded = calloc(nregions ? nregions : 1, sizeof(*p->guarded));
	err = p->guarded ? catch_sigbus() : -ENOMEM;
	for (uint32_t i = 0; !err && i < nregions; i++) {
		struct region *r = &regions[i];

		if (p->uffd >= 0 && !r->hugetlb)
			p->guarded[i] = !guard_region(p->uffd, r);
		if (!p->guarded[i])
			err = region_map(r, false);
	}
	if (!err)
		return 0;
	page_reader_release(p);
	return failure_set(f, err, "internal", NULL, "cannot map the guest's RAM: %s",
			   strerror(-err));
}

void page_reader_release(struct page_reader *p)
{
	fd_close(&p->uffd);
	free(p->guarded);
	p->guarded = NULL;
}

int page_reader_copy(const struct region *r, uint64_t offset, void *buf, size_t length)
{
	char *out = buf;

	while (length) {
		ssize_t n = pread(r->fd, out, length, (off_t)(r->file_offset + offset));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO; /* the VMM has cut its own RAM */
		out += n;
		offset += (uint64_t)n;
		length -= (size_t)n;
	}
	return 0;
}

/* *at: the page being looked at, kept in memory for when a signal ends this. */
static void look(const uint8_t *map, volatile uint32_t *at, uint32_t count, uint8_t *kinds)
{
	for (uint32_t i = *at; i < count; i++) {
		*at = i;
		kinds[i] = zero_page(map + (uint64_t)i * PAGE_BYTES) ? PAGE_ZERO : PAGE_RAW;
	}
	*at = count;
}

static int classify_guarded(const struct region *r, uint64_t first, uint32_t count, uint8_t *kinds)
{
	const uint8_t *map = r->map + (first << PAGE_SHIFT);
	volatile uint32_t at = 0, retried = UINT32_MAX;
	sigjmp_buf env;

	while (at < count) {
		uint64_t next;

		if (!sigsetjmp(env, JUMP_RESTORES_MASK)) {
			hole_exit = &env;
			look(map, &at, count, kinds);
			hole_exit = NULL;
			continue;
		}
		hole_exit = NULL;
		region_first_data(r, (first + at) << PAGE_SHIFT, (first + count) << PAGE_SHIFT,
				  &next);
		next = (next >> PAGE_SHIFT) - first;
		if (next == at) {
			/* Populated since: look again. Twice at one page: it is broken. */
			if (retried == at)
				return -EIO;
			retried = at;
		}
		for (uint32_t i = at; i < next; i++)
			kinds[i] = PAGE_HOLE;
		at = (uint32_t)next;
	}
	return 0;
}

static int classify_copied(const struct region *r, uint64_t first, uint32_t count, uint8_t *kinds,
			   uint8_t *scratch)
{
	const uint32_t most = PAGE_READER_SCRATCH / PAGE_BYTES;

	for (uint32_t at = 0; at < count;) {
		uint32_t n = count - at < most ? count - at : most;
		int err = page_reader_copy(r, (first + at) << PAGE_SHIFT, scratch,
					   (size_t)n * PAGE_BYTES);

		if (err)
			return err;
		for (uint32_t i = 0; i < n; i++)
			kinds[at + i] =
				zero_page(scratch + (size_t)i * PAGE_BYTES) ? PAGE_ZERO : PAGE_RAW;
		at += n;
	}
	return 0;
}

int page_reader_classify(const struct page_reader *p, const struct region *r, uint64_t first,
			 uint32_t count, uint8_t *kinds, uint8_t *scratch)
{
	if (p->guarded[r - p->regions])
		return classify_guarded(r, first, count, kinds);
	return classify_copied(r, first, count, kinds, scratch);
}
