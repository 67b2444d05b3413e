// SPDX-License-Identifier: MIT
/*
 * Memory that a device writes (O_DIRECT: the pages are pinned, not mapped for it) is lost to the
 * tracker if a scan falls between the submission and the completion: the scan reports the pages and
 * protects them again, and what arrives after raises no fault. If what is in flight is waited for
 * before the scan, as QEMU's `stop` does, nothing is lost.
 *
 * A file on a real disk is read by native AIO into tracked memory. A very fast disk might be done
 * before any scan; then the first half cannot be shown here, and the program says so.
 */
#include <linux/aio_abi.h>
#include <time.h>

#include "tests/platform/common.h"

#define PAGES 64
#define TRIES 200
#define BYTES (PAGES * PAGE)

static aio_context_t aio;

static void submit(int file, uint8_t *to, struct iocb *cb)
{
	struct iocb *list[1] = { cb };

	memset(cb, 0, sizeof(*cb));
	cb->aio_fildes = (uint32_t)file;
	cb->aio_lio_opcode = IOCB_CMD_PREAD;
	cb->aio_buf = (uintptr_t)to;
	cb->aio_nbytes = BYTES;
	prove(syscall(SYS_io_submit, aio, 1, list) == 1, "%s", strerror(errno));
}

static void wait_done(void)
{
	struct io_event e;

	prove(syscall(SYS_io_getevents, aio, 1, 1, &e, NULL) == 1 && e.res == (int64_t)BYTES,
	      "read %lld", (long long)e.res);
}

/* Pages that changed after the last scan though it does not report them. */
static int count_lost(struct tracked *t, const uint8_t *copy)
{
	uint8_t seen[PAGES] = { 0 };
	int lost = 0;

	prove(tracked_scan(t, 0, PAGES, true, seen) >= 0, "scan");
	for (int i = 0; i < PAGES; i++)
		lost += !seen[i] && memcmp(t->map + i * PAGE, copy + i * PAGE, PAGE) != 0;
	return lost;
}

static int open_file(void)
{
	static uint8_t data[BYTES] __attribute__((aligned(4096)));
	char path[] = "/var/tmp/tranship-dma-XXXXXX";
	int fd = mkostemp(path, O_CLOEXEC), direct;

	prove(fd >= 0, "%s", strerror(errno));
	for (size_t i = 0; i < BYTES; i++)
		data[i] = (uint8_t)(i / PAGE + 1);
	prove(write(fd, data, BYTES) == (ssize_t)BYTES && !fsync(fd), "%s", strerror(errno));
	direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(path);
	close(fd);
	if (direct < 0)
		skip("no direct I/O in /var/tmp: %s", strerror(errno));
	return direct;
}

int main(void)
{
	static uint8_t copy[BYTES];
	struct tracked t;
	struct iocb cb;
	int lost = 0, hit = 0, file = open_file();

	tracked_map(&t, memfd_of(HUGE), HUGE);
	tracked_register(&t);
	if (syscall(SYS_io_setup, 8, &aio))
		skip("no native AIO: %s", strerror(errno));

	for (int i = 0; i < TRIES; i++) {
		int now;

		memset(t.map, 0, BYTES);
		submit(file, t.map, &cb);
		prove(tracked_scan(&t, 0, PAGES, true, NULL) >= 0, "scan");
		memcpy(copy, t.map, BYTES); /* what a migration would send */
		wait_done();
		now = count_lost(&t, copy);
		hit += now > 0;
		lost += now;
	}
	printf("scan while in flight: %d pages lost, in %d of %d reads\n", lost, hit, TRIES);

	for (int i = 0; i < TRIES; i++) {
		memset(t.map, 0, BYTES);
		submit(file, t.map, &cb);
		wait_done(); /* the barrier */
		prove(tracked_scan(&t, 0, PAGES, true, NULL) == PAGES, "all are reported");
		memcpy(copy, t.map, BYTES);
		prove(count_lost(&t, copy) == 0, "lost after the barrier");
		prove(copy[BYTES - 1] == PAGES, "the data is there");
	}
	printf("scan after the completion: none lost in %d reads\n", TRIES);
	if (!lost)
		skip("this disk completed every read before the scan: the loss was not shown");
	return 0;
}
