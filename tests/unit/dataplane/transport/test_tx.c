// SPDX-License-Identifier: MIT
/* Every way of sending against slow readers, small buffers, holes, hugetlb and a dying peer. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/source/page_reader.h"
#include "dataplane/transport/tx.h"
#include "dataplane/transport/wire.h"
#include "lib/base/cleanup.h"
#include "tests/unit/dataplane/tcp_pair.h"

#define RAM_SIZE (8u << 20)

static const struct tx_ops *const all[] = { &tx_sendfile_ops, &tx_uring_ops, &tx_send_ops };

/* RAM whose every page is different; pages 64 to 95 are a hole. */
static struct region ram;
static struct page_reader reader;

static int make_ram(unsigned int flags)
{
	bool huge = flags & MFD_HUGETLB;
	struct failure f = { 0 };
	uint64_t *w;

	ram = (struct region){ .page_size = huge ? 2u << 20 : PAGE_BYTES,
			       .size = RAM_SIZE,
			       .hugetlb = huge,
			       .fd = memfd_create("ram", MFD_CLOEXEC | flags) };
	if (ram.fd < 0 || ftruncate(ram.fd, RAM_SIZE))
		return -1;
	w = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ram.fd, 0);
	if (w == MAP_FAILED)
		return -1;
	for (uint64_t i = 0; i < RAM_SIZE / 8; i++)
		if (huge || i / 512 < 64 || i / 512 >= 96)
			w[i] = i * 0x9e3779b97f4a7c15ull + 1;
	munmap(w, RAM_SIZE);
	return page_reader_init(&reader, &ram, 1, &f);
}

static void free_ram(void)
{
	page_reader_release(&reader);
	region_release(&ram);
}

static int setup(void **state)
{
	(void)state;
	return make_ram(0);
}

static int teardown(void **state)
{
	(void)state;
	free_ram();
	return 0;
}

struct reading {
	int fd;
	bool slow;
	uint8_t *data;
	size_t size, room;
};

static void *read_all(void *arg)
{
	struct reading *r = arg;
	ssize_t n;

	do {
		/* Slow: little at a time, so that the sender meets full buffers at odd places. */
		size_t most = r->slow ? 1 + (r->size * 7919) % 9973 : 1 << 16;

		if (most > r->room - r->size)
			most = r->room - r->size;
		n = recv(r->fd, r->data + r->size, most, 0);
		if (n > 0)
			r->size += (size_t)n;
	} while (n > 0);
	return NULL;
}

/* Frames of many shapes: their slices, drawn from a seed. */
static uint32_t shape(uint64_t *seed, struct tx_slice *slices)
{
	uint32_t n = 0;
	uint64_t page = 0;

	while (n < WIRE_RUNS_MAX) {
		uint64_t gap, run;

		*seed = *seed * 6364136223846793005ull + 1442695040888963407ull;
		gap = (*seed >> 33) % 7;
		run = (*seed >> 40) % 5 ? 1 + (*seed >> 44) % 6 : 1 + (*seed >> 44) % 300;
		page += gap;
		if (page + run > RAM_SIZE / PAGE_BYTES || (*seed >> 60) == 0)
			break;
		slices[n++] = (struct tx_slice){ .offset = page * PAGE_BYTES,
						 .length = run * PAGE_BYTES };
		page += run;
	}
	return n;
}

static size_t append(uint8_t *out, size_t at, const void *p, size_t n)
{
	memcpy(out + at, p, n);
	return at + n;
}

static void exact(const struct tx_ops *ops, bool slow, int buffer, int frames)
{
	const size_t room = 96u << 20;
	struct reading r = { .slow = slow, .room = room, .data = malloc(room) };
	uint8_t *want = malloc(room), *own = malloc(CHUNK_BYTES), head[WIRE_FRAME_SIZE + 512];
	uint64_t seed = 42, guest = 0;
	pthread_t thread;
	size_t size = 0;
	struct tx *t;
	int sv[2];

	tcp_pair(sv, buffer);
	r.fd = sv[1];
	assert_int_equal(ops->new (&t, sv[0], &ram, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
	for (int i = 0; i < frames; i++) {
		struct tx_slice slices[WIRE_RUNS_MAX];
		uint32_t n = shape(&seed, slices);
		size_t head_len = 1 + seed % sizeof(head);

		memset(head, i, sizeof(head));
		size = append(want, size, head, head_len);
		memset(own, 0x50 + i, CHUNK_BYTES);
		for (uint32_t k = 0; k < n; k++) {
			/* some frames have bytes of their own between those of the region */
			slices[k].data = i % 2 && k % 3 == 1 ? own : NULL;
			assert_true(size + slices[k].length < room);
			if (slices[k].data)
				memcpy(want + size, own, slices[k].length);
			else
				assert_int_equal(page_reader_copy(&ram, slices[k].offset,
								  want + size, slices[k].length),
						 0);
			size += slices[k].length;
			guest += slices[k].length;
		}
		assert_int_equal(ops->frame(t, head, head_len, &ram, slices, n, i + 1 < frames), 0);
		/* both are copied before return */
		memset(head, 0xff, sizeof(head));
		memset(own, 0xff, CHUNK_BYTES);
	}
	assert_int_equal(ops->drain(t), 0);
	assert_int_equal(t->counters.wire_bytes, size);
	/* Little counts as copied whatever the way; what counts twice or never is an error. */
	assert_true(t->counters.zero_copy_bytes + t->counters.copied_bytes <= guest);
	if (ops == &tx_sendfile_ops)
		assert_int_equal(t->counters.zero_copy_bytes + t->counters.copied_bytes, guest);
	assert_true(t->counters.zero_copy_bytes + t->counters.copied_bytes > 0);
	ops->free(t);
	close(sv[0]);
	pthread_join(thread, NULL);
	close(sv[1]);
	assert_int_equal(r.size, size);
	assert_int_equal(memcmp(r.data, want, size), 0);
	free(r.data);
	free(want);
	free(own);
}

static void test_exact_to_a_slow_reader(void **state)
{
	struct stat before, after;

	(void)state;
	assert_int_equal(fstat(ram.fd, &before), 0);
	for (size_t i = 0; i < 3; i++)
		exact(all[i], true, 4096, 12);
	/* Holes were sent and stayed holes. */
	assert_int_equal(fstat(ram.fd, &after), 0);
	assert_int_equal(before.st_blocks, after.st_blocks);
}

static void test_exact_to_a_fast_reader(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++)
		exact(all[i], false, 1 << 20, 40);
}

/* A user who has used up his share of pipes' pages gets small ones: then it is sendfile itself. */
static void test_sendfile_without_large_pipes(void **state)
{
	int pipes[128][2], n = 0;
	bool refused = false;

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(seteuid(65534), 0);
	while (!refused && n < 128) {
		assert_int_equal(pipe2(pipes[n], O_CLOEXEC), 0);
		refused = fcntl(pipes[n++][0], F_SETPIPE_SZ, 1 << 20) < 0;
	}
	if (refused) {
		exact(&tx_sendfile_ops, false, 256 * 1024, 32);
		exact(&tx_sendfile_ops, true, 2048, 4);
	}
	assert_int_equal(seteuid(0), 0);
	while (n--) {
		close(pipes[n][0]);
		close(pipes[n][1]);
	}
	if (!refused) /* this host has no such limit */
		skip();
}

static void test_hugetlb(void **state)
{
	(void)state;
	free_ram();
	if (make_ram(MFD_HUGETLB)) {
		fd_close(&ram.fd);
		assert_int_equal(make_ram(0), 0);
		print_message("no huge pages are reserved here\n");
		skip();
	}
	for (size_t i = 0; i < 3; i++) {
		exact(all[i], true, 4096, 6);
		exact(all[i], false, 1 << 20, 20);
	}
}

/* A frame larger than any slot: device state goes this way. */
static void test_large_head(void **state)
{
	static uint8_t head[WIRE_FRAME_SIZE + WIRE_STATE_MAX];

	(void)state;
	for (size_t i = 0; i < sizeof(head); i++)
		head[i] = (uint8_t)(i * 31 + (i >> 9));
	for (size_t i = 0; i < 3; i++) {
		struct reading r = { .room = sizeof(head) + 1, .data = malloc(sizeof(head) + 1) };
		pthread_t thread;
		struct tx *t;
		int sv[2];

		tcp_pair(sv, 4096);
		r.fd = sv[1];
		assert_int_equal(all[i]->new (&t, sv[0], &ram, 1), 0);
		assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
		assert_int_equal(all[i]->frame(t, head, sizeof(head), NULL, NULL, 0, false), 0);
		all[i]->free(t);
		close(sv[0]);
		pthread_join(thread, NULL);
		close(sv[1]);
		assert_int_equal(r.size, sizeof(head));
		assert_memory_equal(r.data, head, sizeof(head));
		free(r.data);
	}
}

/*
 * Many frames of data of their own, which small as they are fit a ring's registered memory, and go
 * on for long enough that a path which copied is tried again; the buffer changes after each.
 */
static void test_many_frames_of_own_data(void **state)
{
	enum { FRAMES = 2600, LENGTH = 5 * PAGE_BYTES };
	static uint8_t own[LENGTH];
	const size_t room = FRAMES * (WIRE_FRAME_SIZE + (size_t)LENGTH);

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct reading r = { .room = room + 1, .data = malloc(room + 1) };
		uint8_t head[WIRE_FRAME_SIZE];
		pthread_t thread;
		struct tx *t;
		int sv[2];

		tcp_pair(sv, 65536);
		r.fd = sv[1];
		assert_int_equal(all[i]->new (&t, sv[0], &ram, 1), 0);
		assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
		for (unsigned int k = 0; k < FRAMES; k++) {
			const struct tx_slice slices[] = {
				{ .length = PAGE_BYTES, .data = own },
				{ .length = LENGTH - PAGE_BYTES, .data = own + PAGE_BYTES },
			};

			memset(head, (int)k * 7, sizeof(head));
			memset(own, (int)k, sizeof(own));
			assert_int_equal(all[i]->frame(t, head, sizeof(head), &ram, slices, 2,
						       k + 1 < FRAMES),
					 0);
		}
		assert_int_equal(all[i]->drain(t), 0);
		assert_int_equal(t->counters.wire_bytes, room);
		/* the loopback copies, whatever was asked of it, and it is said so */
		assert_int_equal(t->counters.copied_bytes, (uint64_t)FRAMES * LENGTH);
		assert_int_equal(t->counters.zero_copy_bytes, 0);
		all[i]->free(t);
		close(sv[0]);
		pthread_join(thread, NULL);
		close(sv[1]);
		assert_int_equal(r.size, room);
		for (size_t k = 0, at = 0; k < FRAMES; k++, at += sizeof(head) + LENGTH) {
			assert_int_equal(r.data[at], (uint8_t)(k * 7));
			memset(own, (int)k, sizeof(own));
			assert_memory_equal(r.data + at + sizeof(head), own, LENGTH);
		}
		free(r.data);
	}
}

/* Single pages with gaps between them, as a guest dirties them: one call refers to many. */
static void test_scattered_pages_by_reference(void **state)
{
	enum { PAGES = 300, FEW = 15, FIRST = 96 };
	const size_t room = (PAGES + FEW) * (size_t)PAGE_BYTES + 2;
	struct reading r = { .room = room + 1, .data = malloc(room + 1) };
	struct tx_slice slices[PAGES];
	uint8_t page[PAGE_BYTES];
	pthread_t thread;
	struct tx *t;
	int sv[2];

	(void)state;
	for (uint64_t i = 0; i < PAGES; i++)
		slices[i] = (struct tx_slice){ .offset = (FIRST + 2 * i) * PAGE_BYTES,
					       .length = PAGE_BYTES };
	tcp_pair(sv, 65536);
	r.fd = sv[1];
	assert_int_equal(tx_sendfile_ops.new(&t, sv[0], &ram, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, read_all, &r), 0);
	assert_int_equal(t->ops->frame(t, "a", 1, &ram, slices, PAGES, true), 0);
	assert_int_equal(t->counters.zero_copy_bytes, PAGES * PAGE_BYTES);
	assert_int_equal(t->counters.copied_bytes, 0);
	/* so few are not worth a call */
	assert_int_equal(t->ops->frame(t, "b", 1, &ram, slices, FEW, false), 0);
	assert_int_equal(t->counters.copied_bytes, FEW * PAGE_BYTES);
	assert_int_equal(t->counters.zero_copy_bytes, PAGES * PAGE_BYTES);
	assert_int_equal(t->ops->drain(t), 0);
	t->ops->free(t);
	close(sv[0]);
	pthread_join(thread, NULL);
	close(sv[1]);
	assert_int_equal(r.size, room);
	for (size_t i = 0, at = 0; i < PAGES + FEW; i++, at += PAGE_BYTES) {
		if (i == 0 || i == PAGES)
			assert_int_equal(r.data[at++], i ? 'b' : 'a');
		assert_int_equal(page_reader_copy(&ram, slices[i % PAGES].offset, page, PAGE_BYTES),
				 0);
		assert_memory_equal(r.data + at, page, PAGE_BYTES);
	}
	free(r.data);
}

/* Reads a little, then dies. */
static void *read_and_close(void *arg)
{
	struct reading *r = arg;

	while (r->size < r->room) {
		ssize_t n = recv(r->fd, r->data, 4096, 0);

		if (n <= 0)
			break;
		r->size += (size_t)n;
	}
	close(r->fd);
	return NULL;
}

static void test_peer_closes_in_a_frame(void **state)
{
	static uint8_t buf[4096];

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct reading r = { .room = 100000, .data = buf };
		struct tx_slice whole = { .length = CHUNK_BYTES };
		char head[WIRE_FRAME_SIZE] = { 0 };
		pthread_t thread;
		struct tx *t;
		int sv[2], err = 0;

		tcp_pair(sv, 16384);
		r.fd = sv[1];
		assert_int_equal(all[i]->new (&t, sv[0], &ram, 1), 0);
		assert_int_equal(pthread_create(&thread, NULL, read_and_close, &r), 0);
		for (int k = 0; k < 8 && !err; k++)
			err = all[i]->frame(t, head, sizeof(head), &ram, &whole, 1, true);
		if (!err) /* one that lets frames wait */
			err = all[i]->frame(t, head, sizeof(head), NULL, NULL, 0, false);
		assert_true(err == -EPIPE || err == -ECONNRESET);
		pthread_join(thread, NULL);
		all[i]->free(t);
		close(sv[0]);
	}
}

static void *shut_down(void *arg)
{
	const struct reading *r = arg;
	char c[20000];

	if (recv(r->fd, c, sizeof(c), MSG_WAITALL) > 0)
		shutdown(*(int *)r->data, SHUT_RDWR);
	return NULL;
}

/* How a blocked sender is ended from another thread of its own process. */
static void test_shutdown_wakes_a_blocked_sender(void **state)
{
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct tx_slice whole = { .length = CHUNK_BYTES };
		char head[WIRE_FRAME_SIZE] = { 0 };
		struct reading r;
		pthread_t thread;
		struct tx *t;
		int sv[2];

		tcp_pair(sv, 16384);
		r = (struct reading){ .fd = sv[1], .data = (uint8_t *)&sv[0] };
		assert_int_equal(all[i]->new (&t, sv[0], &ram, 1), 0);
		assert_int_equal(pthread_create(&thread, NULL, shut_down, &r), 0);
		assert_int_equal(all[i]->frame(t, head, sizeof(head), &ram, &whole, 1, false),
				 -EPIPE);
		pthread_join(thread, NULL);
		all[i]->free(t);
		close(sv[0]);
		close(sv[1]);
	}
}

static void test_too_many_slices(void **state)
{
	static struct tx_slice slices[WIRE_RUNS_MAX + 1];
	int sv[2];

	(void)state;
	tcp_pair(sv, 16384);
	for (size_t i = 0; i < 3; i++) {
		struct tx *t;

		assert_int_equal(all[i]->new (&t, sv[0], &ram, 1), 0);
		assert_int_equal(all[i]->frame(t, "", 1, &ram, slices, WIRE_RUNS_MAX + 1, false),
				 -EINVAL);
		all[i]->free(t);
	}
	close(sv[0]);
	close(sv[1]);
}

static void test_choice(void **state)
{
	char why[96] = "";
	int sv[2];

	(void)state;
	tcp_pair(sv, 65536);
	assert_ptr_equal(tx_choose(IPC_TX_AUTO, sv[0], &ram, 1, why, sizeof(why)),
			 &tx_sendfile_ops);
	assert_string_not_equal(why, "");
	assert_ptr_equal(tx_choose(IPC_TX_SEND, sv[0], &ram, 1, why, sizeof(why)), &tx_send_ops);
	assert_ptr_equal(tx_choose(IPC_TX_SENDFILE, sv[0], &ram, 1, why, sizeof(why)),
			 &tx_sendfile_ops);
	close(sv[0]);
	close(sv[1]);
	/* Not a socket: nothing works, and the reason is given. */
	why[0] = '\0';
	assert_null(tx_choose(IPC_TX_SEND, ram.fd, &ram, 1, why, sizeof(why)));
	assert_string_not_equal(why, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_exact_to_a_slow_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_exact_to_a_fast_reader, setup, teardown),
		cmocka_unit_test_setup_teardown(test_sendfile_without_large_pipes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hugetlb, setup, teardown),
		cmocka_unit_test_setup_teardown(test_large_head, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_frames_of_own_data, setup, teardown),
		cmocka_unit_test_setup_teardown(test_scattered_pages_by_reference, setup, teardown),
		cmocka_unit_test_setup_teardown(test_peer_closes_in_a_frame, setup, teardown),
		cmocka_unit_test_setup_teardown(test_shutdown_wakes_a_blocked_sender, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_too_many_slices, setup, teardown),
		cmocka_unit_test_setup_teardown(test_choice, setup, teardown),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
