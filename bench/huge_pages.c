// SPDX-License-Identifier: MIT
/*
 * What a guest in huge pages costs that writes one byte of each: with hashes of 4 KiB pages and
 * without.
 *
 *   huge_pages [MiB [ROUNDS]]     default 256 MiB of hugetlb, 6 rounds
 *
 * Needs twice as many huge pages free (/proc/sys/vm/nr_hugepages), on one host. A line a round:
 * MiB on the wire, ms, and processor ms of source and destination. Round 1 is the whole copy; a
 * byte of every huge page is written before each other round. `all` writes every byte instead: what
 * the hashes cost where they cannot help.
 */
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "lib/base/clock.h"
#include "lib/base/kernel_abi.h"
#include "tests/unit/dataplane/pair.h"

#define WP_HUGETLBFS_SHMEM (1u << 12)

struct guest {
	pid_t pid;
	uint8_t *map;
	uint64_t size;
	int order, done; /* pipes: a byte each */
};

static void arm(const struct guest *g)
{
	struct uffdio_api api = { .api = UFFD_API,
				  .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |
					      WP_HUGETLBFS_SHMEM };
	struct uffdio_register reg = { .range = { (uintptr_t)g->map, g->size },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	pair_check(fd >= 0 && !ioctl(fd, UFFDIO_API, &api) && !ioctl(fd, UFFDIO_REGISTER, &reg));
}

static void write_all(const struct guest *g, uint64_t seed)
{
	uint64_t page[512];

	for (uint64_t at = 0; at < g->size; at += sizeof(page)) {
		pair_page(page, at ^ seed);
		memcpy(g->map + at, page, sizeof(page));
	}
}

/* Obeys orders: 'b' a byte of each huge page, 'a' all. */
static _Noreturn void live(const struct guest *g, int order, int done)
{
	uint64_t n = 0;
	char c;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	arm(g);
	for (;;) {
		if (read(order, &c, 1) != 1)
			_exit(0);
		n++;
		for (uint64_t at = 0; c == 'b' && at < g->size; at += CHUNK_BYTES)
			g->map[at + n * 4099 % CHUNK_BYTES]++;
		if (c == 'a')
			write_all(g, n << 40);
		pair_check(write(done, &c, 1) == 1);
	}
}

static void tell(const struct guest *g, char what)
{
	pair_check(write(g->order, &what, 1) == 1 && read(g->done, &what, 1) == 1);
}

static void start_guest(struct guest *g, struct pair *p)
{
	int order[2], done[2];
	char path[64];

	g->size = p->size[0];
	g->map = mmap(NULL, g->size, PROT_READ | PROT_WRITE, MAP_SHARED, p->src_ram[0], 0);
	if (g->map == MAP_FAILED) {
		fprintf(stderr, "no huge pages: %s\n", strerror(errno));
		_exit(77);
	}
	write_all(g, 1);
	pair_check(!pipe2(order, O_CLOEXEC) && !pipe2(done, O_CLOEXEC));
	g->pid = fork();
	if (!g->pid)
		live(g, order[0], done[1]);
	g->order = order[1];
	g->done = done[0];
	close(order[0]);
	close(done[1]);
	tell(g, '-');
	snprintf(path, sizeof(path), "/proc/%d/pagemap", g->pid);
	p->tracker_fd = open(path, O_RDONLY | O_CLOEXEC);
	p->mapping[0] = (struct ipc_mapping){ .start = (uintptr_t)g->map,
					      .end = (uintptr_t)g->map + g->size };
}

static double cpu_of(pid_t pid)
{
	clockid_t id;

	pair_check(!clock_getcpuclockid(pid, &id));
	return (double)clock_of(id) / 1e6;
}

static void run(uint64_t size, uint32_t rounds, char what, uint64_t page_hashes)
{
	struct pair p = PAIR_INIT(2, IPC_TX_AUTO);
	struct guest g;
	uint64_t same = 0;

	p.memfd_flags = MFD_HUGETLB;
	p.page_size = CHUNK_BYTES;
	p.size[0] = size;
	p.page_hashes = page_hashes;
	p.src_ram[0] = pair_memfd(&p, size);
	start_guest(&g, &p);
	pair_start(&p);
	pair_scan(&p, IPC_SCAN_FIRST);
	for (uint32_t n = 1; n <= rounds; n++) {
		double src, dst;
		struct ipc_sent s;

		if (n > 1) {
			tell(&g, what);
			pair_scan(&p, 0);
		}
		src = cpu_of(p.src.pid);
		dst = cpu_of(p.dst.pid);
		s = pair_round(&p, n);
		printf("%-8s %-6s %5u %10.2f %10.2f %9.1f %9.1f %9.1f\n",
		       what == 'b' ? "one byte" : "all", page_hashes == 1 ? "no" : "yes", n,
		       (double)s.wire_bytes / 1048576,
		       (double)(s.total.same_bytes - same) / 1048576, (double)s.ns / 1e6,
		       cpu_of(p.src.pid) - src, cpu_of(p.dst.pid) - dst);
		same = s.total.same_bytes;
	}
	pair_check(pair_verify(&p).mismatches == 0);
	pair_quit(&p);
	kill(g.pid, SIGKILL);
	waitpid(g.pid, NULL, 0);
	munmap(g.map, size);
	close(p.tracker_fd);
	close(g.order);
	close(g.done);
}

int main(int argc, char **argv)
{
	uint64_t size = (argc > 1 ? strtoull(argv[1], NULL, 10) : 256) << 20;
	uint32_t rounds = argc > 2 ? (uint32_t)atoi(argv[2]) : 6;

	if (!size || size % CHUNK_BYTES || !rounds)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	printf("%-8s %-6s %5s %10s %10s %9s %9s %9s\n", "written", "hashes", "round", "wire MiB",
	       "same MiB", "ms", "src CPU", "dst CPU");
	for (const char *what = "ba"; *what; what++)
		for (uint64_t hashes = 0; hashes < 2; hashes++)
			run(size, rounds, *what, hashes);
	return 0;
}
