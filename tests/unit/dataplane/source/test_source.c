// SPDX-License-Identifier: MIT
/* What a source accepts from transhipd: its set-up, message by message, and its commands. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "dataplane/setup.h"
#include "tests/unit/dataplane/pair.h"

#define SIZE (8u << 20)

static int sv[2], ram, pagemap;
static struct ipc_config config;
static struct ipc_region region;
static struct ipc_mapping mapping;
static struct ipc_tracker tracker;
static struct ipc_stream stream;

static int setup(void **state)
{
	(void)state;
	ram = memfd_create("ram", MFD_CLOEXEC);
	pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (ram < 0 || pagemap < 0 || ftruncate(ram, SIZE) ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv))
		return -1;
	config = (struct ipc_config){ .role = IPC_ROLE_SOURCE, .regions = 1, .streams = 1 };
	region = (struct ipc_region){ .page_size = 4096, .size = SIZE };
	mapping = (struct ipc_mapping){ .start = 0x7f0000000000, .end = 0x7f0000000000 + SIZE };
	tracker = (struct ipc_tracker){ .kind = IPC_TRACKER_PAGEMAP };
	stream = (struct ipc_stream){ .index = 0 };
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	close(ram);
	close(pagemap);
	close(sv[0]);
	close(sv[1]);
	return 0;
}

static void say(enum ipc_type type, const void *body, int fd)
{
	assert_int_equal(ipc_send(sv[0], type, body, fd), 0);
}

static void say_all(void)
{
	say(IPC_CONFIG, &config, -1);
	say(IPC_REGION, &region, ram);
	say(IPC_MAPPING, &mapping, -1);
	say(IPC_TRACKER, &tracker, pagemap);
	say(IPC_STREAM, &stream, sv[0]);
	say(IPC_START, NULL, -1);
}

static int receive(struct setup *s)
{
	struct failure f = { 0 };
	int err = setup_receive(s, sv[1], &f);

	assert_int_equal(err != 0, failure_is_set(&f));
	return err;
}

/* What was said so far is refused as malformed. */
static void refused(void)
{
	struct ipc_message m;
	struct setup s;
	int fd;

	say(IPC_START, NULL, -1);
	assert_int_equal(receive(&s), -EBADMSG);
	setup_release(&s);
	while (!ipc_recv(sv[1], &m, &fd, 0))
		if (fd >= 0)
			close(fd);
}

static void test_good(void **state)
{
	struct setup s;

	(void)state;
	say_all();
	assert_int_equal(receive(&s), 0);
	assert_int_equal(s.nregions, 1);
	assert_int_equal(s.regions[0].size, SIZE);
	assert_int_equal(s.regions[0].nmappings, 1);
	assert_int_equal(s.regions[0].mappings[0].start, mapping.start);
	assert_true(s.regions[0].fd >= 0 && s.pagemap_fd >= 0 && s.stream_fds[0] >= 0);
	assert_int_equal(s.nlisteners, 0);
	setup_release(&s);
}

static void test_config(void **state)
{
	struct ipc_config good = config;

	(void)state;
	refused(); /* nothing at all */
	say(IPC_REGION, &region, ram);
	refused();
	config.role = 0;
	say_all();
	refused();
	config = good;
	config.role = 4;
	say_all();
	refused();
	config = good;
	config.regions = 0;
	say_all();
	refused();
	config = good;
	config.regions = IPC_REGIONS_MAX + 1;
	say_all();
	refused();
	config = good;
	config.streams = IPC_STREAMS_MAX + 1;
	say_all();
	refused();
	config = good;
	config.streams = 0;
	say_all();
	refused();
	config = good;
	config.tx = IPC_TX_SEND + 1;
	say_all();
	refused();
	config = good;
	say(IPC_CONFIG, &config, -1);
	say(IPC_CONFIG, &config, -1);
	refused();
}

static void test_regions(void **state)
{
	const struct ipc_region good = region, bad[] = {
		{ .index = 1, .page_size = 4096, .size = SIZE },
		{ .page_size = 0, .size = SIZE },
		{ .page_size = 2048, .size = SIZE },
		{ .page_size = 4096 + 2048, .size = SIZE },
		{ .page_size = 4096, .size = 0 },
		{ .page_size = 4096, .size = SIZE - 1 },
		{ .page_size = 2 << 20, .size = SIZE - 4096 },
		{ .page_size = 4096, .size = SIZE + 4096 },
		{ .page_size = 4096, .size = SIZE, .file_offset = 4096 },
		{ .page_size = 4096, .size = 4096, .file_offset = 100 },
		{ .page_size = 4096, .size = SIZE, .file_offset = UINT64_MAX - 4095 },
		{ .page_size = 4096, .size = UINT64_MAX - 4095 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		region = bad[i];
		say_all();
		refused();
	}
	region = good;
	say(IPC_CONFIG, &config, -1);
	say(IPC_REGION, &region, ram);
	say(IPC_REGION, &region, ram); /* twice */
	refused();
	say(IPC_CONFIG, &config, -1);
	say(IPC_REGION, &region, sv[0]); /* not a file */
	refused();
	config.regions = 2; /* and only one comes */
	say_all();
	refused();
}

static void test_mappings(void **state)
{
	const uint64_t at = 0x7f0000000000;
	const struct ipc_mapping bad[] = {
		{ .region = 1, .start = at, .end = at + 4096 },
		{ .start = at, .end = at },
		{ .start = at + 4096, .end = at },
		{ .start = at + 1, .end = at + 4097 },
		{ .start = at, .end = at + SIZE + 4096 },
		{ .start = at, .end = at + SIZE, .region_offset = 4096 },
		{ .start = at, .end = at + 4096, .region_offset = SIZE },
		{ .start = at, .end = at + 4096, .region_offset = UINT64_MAX - 4095 },
		{ .start = at, .end = at + 4096, .region_offset = 100 },
		{ .start = 0, .end = UINT64_MAX - 4095 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		mapping = bad[i];
		say_all();
		refused();
	}
	mapping = (struct ipc_mapping){ .start = at, .end = at + 8192 };
	say(IPC_CONFIG, &config, -1);
	say(IPC_REGION, &region, ram);
	say(IPC_MAPPING, &mapping, -1);
	mapping = (struct ipc_mapping){ .start = at + 4096, .end = at + 12288 }; /* overlaps */
	say(IPC_MAPPING, &mapping, -1);
	say(IPC_TRACKER, &tracker, pagemap);
	say(IPC_STREAM, &stream, sv[0]);
	refused();
	/* A tracked region that nobody maps. */
	say(IPC_CONFIG, &config, -1);
	say(IPC_REGION, &region, ram);
	say(IPC_TRACKER, &tracker, pagemap);
	say(IPC_STREAM, &stream, sv[0]);
	refused();
}

static void test_many_mappings(void **state)
{
	struct setup s;
	pid_t pid;

	(void)state;
	pid = fork(); /* the socket holds fewer */
	assert_true(pid >= 0);
	if (!pid) {
		say(IPC_CONFIG, &config, -1);
		say(IPC_REGION, &region, ram);
		for (uint64_t i = 0; i < SIZE / 4096; i++) {
			mapping = (struct ipc_mapping){ .start = (2 * i + 16) * 4096,
							.end = (2 * i + 17) * 4096,
							.region_offset = i * 4096 };
			say(IPC_MAPPING, &mapping, -1);
		}
		say(IPC_TRACKER, &tracker, pagemap);
		say(IPC_STREAM, &stream, sv[0]);
		say(IPC_START, NULL, -1);
		_exit(0);
	}
	assert_int_equal(receive(&s), 0);
	assert_int_equal(s.regions[0].nmappings, SIZE / 4096);
	for (uint64_t i = 0; i < SIZE / 4096; i++)
		assert_int_equal(s.regions[0].mappings[i].offset, i * 4096);
	setup_release(&s);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void test_parts_of_other_roles(void **state)
{
	(void)state;
	say(IPC_CONFIG, &config, -1);
	say(IPC_LISTEN, NULL, sv[0]);
	refused();
	config.role = IPC_ROLE_DESTINATION;
	say(IPC_CONFIG, &config, -1);
	say(IPC_TRACKER, &tracker, pagemap);
	refused();
	/* one listener more than there can be */
	say(IPC_CONFIG, &config, -1);
	for (int i = 0; i <= IPC_LISTENERS_MAX; i++)
		say(IPC_LISTEN, NULL, sv[0]);
	refused();
	say(IPC_CONFIG, &config, -1);
	say(IPC_STREAM, &stream, sv[0]);
	refused();
	say(IPC_CONFIG, &config, -1);
	say(IPC_REGION, &region, ram); /* no listener */
	refused();
	say(IPC_CONFIG, &config, -1);
	say(IPC_SCAN, &(struct ipc_scan){ 0 }, -1); /* before START */
	refused();
}

static void test_tracker_and_streams(void **state)
{
	(void)state;
	tracker.kind = IPC_TRACKER_NONE; /* and yet a descriptor */
	say_all();
	refused();
	tracker.kind = 7;
	say_all();
	refused();
	tracker.kind = IPC_TRACKER_PAGEMAP;
	stream.index = 1;
	say_all();
	refused();
	stream.index = 0;
	config.streams = 2; /* one comes */
	say_all();
	refused();
}

static void test_quit_instead_of_start(void **state)
{
	struct failure f = { 0 };
	struct setup s;

	(void)state;
	say(IPC_CONFIG, &config, -1);
	say(IPC_QUIT, NULL, -1);
	assert_int_equal(setup_receive(&s, sv[1], &f), -ECANCELED);
	setup_release(&s);
	say(IPC_CONFIG, &config, -1);
	assert_int_equal(shutdown(sv[0], SHUT_WR), 0);
	assert_int_equal(receive(&s), -ECONNRESET);
	setup_release(&s);
}

/* transhipd's mistakes end the session with a report, whatever was going on. */
static void wrong(void (*make)(struct pair *p))
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);

	pair_start(&p);
	make(&p);
	assert_string_equal(pair_expect(&p.src, IPC_FAILED)->failure.code, "internal");
	kill(p.dst.pid, SIGCONT); /* not before: it would end the round that must be under way */
	assert_int_equal(pair_wait(&p.src), 1);
	pair_expect(&p.dst, IPC_FAILED);
	pair_wait(&p.dst);
	pair_close_ram(&p);
}

static void send_without_scan(struct pair *p)
{
	pair_send(&p->src, IPC_SEND, &(struct ipc_send){ .round = 1 }, -1);
}

static void scan_without_first(struct pair *p)
{
	pair_send(&p->src, IPC_SCAN, &(struct ipc_scan){ 0 }, -1);
}

static void scan_during_a_round(struct pair *p)
{
	pair_scan(p, IPC_SCAN_FIRST);
	pair_freeze(&p->dst);
	pair_send(&p->src, IPC_SEND, &(struct ipc_send){ .round = 1 }, -1);
	pair_send(&p->src, IPC_SCAN, &(struct ipc_scan){ 0 }, -1);
}

static void listen_at_a_source(struct pair *p)
{
	pair_send(&p->src, IPC_LISTEN, NULL, 0);
}

static void garbage(struct pair *p)
{
	assert_int_equal(send(p->src.sock, "garbage", 7, 0), 7);
}

static void test_wrong_commands(void **state)
{
	(void)state;
	wrong(send_without_scan);
	wrong(scan_without_first);
	wrong(scan_during_a_round);
	wrong(listen_at_a_source);
	wrong(garbage);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_good, setup, teardown),
		cmocka_unit_test_setup_teardown(test_config, setup, teardown),
		cmocka_unit_test_setup_teardown(test_regions, setup, teardown),
		cmocka_unit_test_setup_teardown(test_mappings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_many_mappings, setup, teardown),
		cmocka_unit_test_setup_teardown(test_parts_of_other_roles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_tracker_and_streams, setup, teardown),
		cmocka_unit_test_setup_teardown(test_quit_instead_of_start, setup, teardown),
		cmocka_unit_test(test_wrong_commands),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
