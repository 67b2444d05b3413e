// SPDX-License-Identifier: MIT
/*
 * What place_huge.c and pagemap_shard.c rest on. MADV_COLLAPSE makes a huge page in any tmpfs
 * file or memfd of one page and leaves what is there as it is; a protecting scan that ends
 * inside of a huge page puts small ones in its place for good, so that a byte written is one page
 * reported; a huge page that comes to be under pages that are tracked hides nothing of them; parts
 * of one can be given back; and a memory cgroup that is full says so and kills nobody.
 */
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/platform/common.h"

#define HUGE_PAGES 512ul /* small ones in a huge one */

static void collapse(uint8_t *at)
{
	if (madvise(at, HUGE, MADV_COLLAPSE)) {
		if (errno == ENOMEM || errno == EAGAIN || errno == EBUSY)
			skip("no huge page is to be had: %s", strerror(errno));
		skip("this kernel does not collapse shared memory: %s", strerror(errno));
	}
}

static uint64_t blocks(int fd)
{
	struct stat st;

	prove(!fstat(fd, &st), "%s", strerror(errno));
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

static bool is_huge(struct tracked *t, uint64_t page)
{
	return tracked_categories(t, page) & PAGEMAP_IS_HUGE;
}

/* All of it zero but for the pages that pattern names. */
static void check_content(const struct tracked *t, const uint8_t *pattern, uint64_t pages)
{
	uint8_t page[PAGE];

	for (uint64_t i = 0; i < pages; i++) {
		prove(pread(t->fd, page, PAGE, (off_t)(i * PAGE)) == PAGE, "%s", strerror(errno));
		for (uint64_t k = 0; k < PAGE; k++)
			prove(page[k] == pattern[i] && t->map[i * PAGE + k] == pattern[i],
			      "page %lu holds %u, not %u", i, page[k], pattern[i]);
	}
}

/* Of one page, and of some with something in them. */
static void makes_huge_pages(const char *what, int fd)
{
	uint8_t pattern[3 * HUGE_PAGES] = { 0 };
	struct tracked t;

	tracked_map(&t, fd, 4 * HUGE);
	t.pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	prove(!madvise(t.map, PAGE, MADV_POPULATE_WRITE), "%s", strerror(errno));
	prove(blocks(fd) == 1, "%lu", blocks(fd));
	collapse(t.map);
	prove(blocks(fd) == HUGE_PAGES, "%lu pages", blocks(fd));
	prove(is_huge(&t, 0), "it is not mapped as one");
	for (uint64_t i = HUGE_PAGES; i < 2 * HUGE_PAGES; i += 3) {
		memset(t.map + i * PAGE, (int)(i % 250) + 1, PAGE);
		pattern[i] = (uint8_t)(i % 250 + 1);
	}
	collapse(t.map + HUGE);
	/* seen by others */
	prove(pwrite(fd, "\1", 1, 2 * HUGE + 5 * PAGE) == 1, "%s", strerror(errno));
	memset(t.map + 2 * HUGE + 5 * PAGE, 1, PAGE);
	pattern[2 * HUGE_PAGES + 5] = 1;
	collapse(t.map + 2 * HUGE);
	check_content(&t, pattern, 3 * HUGE_PAGES);
	prove(blocks(fd) == 3 * HUGE_PAGES, "%lu pages", blocks(fd));
	printf("%s: huge pages are made of what is there\n", what);
	close(t.pagemap);
	munmap(t.map, t.size);
	close(fd);
}

/* Where the VMM's mapping has another alignment the huge page is there, in small pieces. */
static void unaligned_mapping(void)
{
	struct tracked t, odd;
	uint8_t *room;

	tracked_map(&t, memfd_of(4 * HUGE), 4 * HUGE);
	memset(t.map, 1, HUGE);
	collapse(t.map);
	room = mmap(NULL, 4 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	odd = (struct tracked){ .fd = t.fd, .size = 2 * HUGE };
	odd.map = (uint8_t *)(((uintptr_t)room + HUGE) & ~(HUGE - 1)) + PAGE;
	odd.map = mmap(odd.map, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, t.fd, 0);
	prove(odd.map != MAP_FAILED, "%s", strerror(errno));
	for (uint64_t i = 0; i < HUGE_PAGES; i++)
		prove(*(volatile uint8_t *)(odd.map + i * PAGE) == 1, "content");
	tracked_register(&odd);
	prove(!is_huge(&odd, 8), "mapped as one at an odd address");
	prove(tracked_scan(&odd, 0, HUGE_PAGES, true, NULL) == (long)HUGE_PAGES, "first");
	odd.map[7 * PAGE] = 2;
	prove(tracked_scan(&odd, 0, HUGE_PAGES, true, NULL) == 1, "one byte is one page");
	puts("mapped at another alignment: tracked by small pages");
	close(odd.uffd);
	close(odd.pagemap);
	munmap(room, 4 * HUGE);
	munmap(t.map, t.size);
	close(t.fd);
}

/* Two huge pages under t, registered, of which the first was split by the way of the tracker. */
static void track_split(struct tracked *t)
{
	tracked_map(t, memfd_of(4 * HUGE), 4 * HUGE);
	memset(t->map, 1, 2 * HUGE);
	collapse(t->map);
	collapse(t->map + HUGE);
	tracked_register(t);
	prove(is_huge(t, 0) && is_huge(t, HUGE_PAGES), "two huge pages");
	t->map[3 * PAGE] = 2;
	prove(tracked_scan(t, 0, 1, true, NULL) >= 0, "a scan that ends inside");
	prove(!is_huge(t, 0), "it was not split");
	prove(is_huge(t, HUGE_PAGES), "the neighbour was split too");
	prove(t->map[3 * PAGE] == 2 && t->map[4 * PAGE] == 1, "content");
	prove(blocks(t->fd) == 2 * HUGE_PAGES, "the file's page was split as well");
	prove(tracked_arm_all(t) == 0, "armed");
	prove(tracked_scan(t, 0, HUGE_PAGES, true, NULL) == 0, "armed is not written");
}

static void release(struct tracked *t)
{
	close(t->uffd);
	close(t->pagemap);
	munmap(t->map, t->size);
	close(t->fd);
}

static void split_is_tracked_by_small_pages(void)
{
	uint8_t seen[HUGE_PAGES] = { 0 };
	struct tracked t;

	track_split(&t);
	t.map[100 * PAGE + 5] = 3;
	t.map[511 * PAGE] = 3;
	/* reading maps pages again, one at a time */
	for (uint64_t i = 0; i < HUGE_PAGES; i++)
		prove(*(volatile uint8_t *)(t.map + i * PAGE + 9) == 1, "content");
	prove(!is_huge(&t, 0), "it is whole again");
	prove(tracked_scan(&t, 0, HUGE_PAGES, true, seen) == 2 && seen[100] && seen[511],
	      "two bytes are two pages");
	prove(tracked_scan(&t, 0, HUGE_PAGES, true, NULL) == 0, "reported twice");
	puts("split by a scan that ends inside: a byte is a page");
	release(&t);
}

/*
 * As khugepaged would: small tracked pages, some of them written, become a huge page by another
 * mapping. What was written must not look clean, and what is written after is reported.
 */
static void collapsed_under_tracking(void)
{
	uint8_t seen[HUGE_PAGES] = { 0 }, *other;
	struct tracked t;
	int refused;

	tracked_map(&t, memfd_of(4 * HUGE), 4 * HUGE);
	memset(t.map, 1, HUGE);
	tracked_register(&t);
	prove(tracked_arm_all(&t) == 0, "armed");
	t.map[5 * PAGE] = 2;
	t.map[400 * PAGE] = 2;
	refused = madvise(t.map, HUGE, MADV_COLLAPSE);
	printf("through the tracked mapping: %s\n", refused ? strerror(errno) : "done");
	other = mmap(NULL, 4 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	other = (uint8_t *)(((uintptr_t)other + HUGE) & ~(HUGE - 1));
	other = mmap(other, HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, t.fd, 0);
	memset(other + PAGE, 1, PAGE);
	if (madvise(other, HUGE, MADV_COLLAPSE))
		printf("through another: %s\n", strerror(errno));
	for (uint64_t i = 0; i < HUGE_PAGES; i++) {
		uint64_t c = tracked_categories(&t, i);
		bool none = !(c & (PAGEMAP_IS_PRESENT | PAGEMAP_IS_SWAPPED));

		seen[i] = none || c & PAGEMAP_IS_WRITTEN;
	}
	prove(seen[5] && seen[400], "what was written looks clean");
	prove(tracked_arm_all(&t) == 0, "armed again");
	memset(seen, 0, sizeof(seen));
	t.map[77 * PAGE] = 3;
	prove(tracked_scan(&t, 0, HUGE_PAGES, true, seen) >= 1 && seen[77], "written after");
	prove(t.map[5 * PAGE] == 2 && t.map[400 * PAGE] == 2 && t.map[6 * PAGE] == 1, "content");
	puts("a huge page made under tracked pages hides no write");
	release(&t);
}

/* A balloon gives small pages back: they are gone, their neighbours are not. */
static void parts_given_back(void)
{
	struct tracked t;

	track_split(&t);
	for (int whole = 0; whole < 2; whole++) {
		uint64_t at =
			whole * HUGE_PAGES + 10; /* of the split one, of the one mapped whole */

		prove(!fallocate(t.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)(at * PAGE), 5 * PAGE),
		      "%s", strerror(errno));
		prove(lseek(t.fd, (off_t)(at * PAGE), SEEK_DATA) == (off_t)((at + 5) * PAGE),
		      "no hole is left");
		prove(t.map[at * PAGE] == 0 && t.map[(at + 4) * PAGE + PAGE - 1] == 0, "content");
		prove(t.map[(at - 1) * PAGE] == 1 && t.map[(at + 5) * PAGE] == 1, "neighbours");
	}
	t.map[12 * PAGE] = 9;
	prove(tracked_scan(&t, 12, 1, true, NULL) == 1, "written after it was given back");
	puts("parts of huge pages can be given back");
	release(&t);
}

/* --- a memory cgroup (version 1 or 2) ------------------------------------------------------- */

static bool put_text(const char *dir, const char *name, const char *text)
{
	char path[256];
	int fd;
	bool ok;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (fd >= 0)
		close(fd);
	return ok;
}

/* In the group: 0, or what is not so. */
static int fill_group(void)
{
	uint8_t *map;
	struct tracked t;
	int failures = 0;

	tracked_map(&t, memfd_of(16 * HUGE), 16 * HUGE);
	map = t.map;
	for (int i = 0; i < 16 && !failures; i++, map += HUGE) {
		if (madvise(map, PAGE, MADV_POPULATE_WRITE))
			return 2;
		if (madvise(map, HUGE, MADV_COLLAPSE)) {
			if (errno != EBUSY && errno != ENOMEM && errno != EAGAIN)
				return 3;
			failures++;
			/* there is room for less, and it can still be used */
			if (madvise(map, HUGE / 8, MADV_POPULATE_WRITE))
				return 4;
		}
	}
	return failures ? 0 : 5;
}

static void full_cgroup(void)
{
	static const char *const kinds[][2] = {
		{ "/sys/fs/cgroup/memory/tranship-proof", "memory.limit_in_bytes" },
		{ "/sys/fs/cgroup/tranship-proof", "memory.max" },
	};
	const char *dir = NULL;
	char pid_text[16];
	int status = 0;
	pid_t pid;

	for (int i = 0; i < 2 && !dir; i++) {
		if (mkdir(kinds[i][0], 0755) && errno != EEXIST)
			continue;
		/* beside four huge pages there is room for half of one, and the process itself */
		if (put_text(kinds[i][0], kinds[i][1], "12582912"))
			dir = kinds[i][0];
		else
			rmdir(kinds[i][0]);
	}
	if (!dir) {
		puts("no memory cgroup can be made: not tried");
		return;
	}
	pid = fork();
	if (!pid) {
		snprintf(pid_text, sizeof(pid_text), "%d", getpid());
		_exit(put_text(dir, "cgroup.procs", pid_text) ? fill_group() : 6);
	}
	waitpid(pid, &status, 0);
	rmdir(dir);
	prove(WIFEXITED(status), "killed by signal %d", WTERMSIG(status));
	if (WEXITSTATUS(status) == 6 || WEXITSTATUS(status) == 5)
		puts("no memory cgroup can be used: not tried");
	else
		prove(WEXITSTATUS(status) == 0, "step %d", WEXITSTATUS(status));
	if (!WEXITSTATUS(status))
		puts("a full memory cgroup: no huge page, small ones still");
}

int main(void)
{
	makes_huge_pages("memfd", memfd_of(4 * HUGE));
	makes_huge_pages("tmpfs, huge=never", tmpfs_file(4 * HUGE, "never"));
	unaligned_mapping();
	split_is_tracked_by_small_pages();
	collapsed_under_tracking();
	parts_given_back();
	full_cgroup();
	return 0;
}
