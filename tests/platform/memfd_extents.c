// SPDX-License-Identifier: MIT
/*
 * SEEK_DATA and SEEK_HOLE on a memfd are exact by the page and touch nothing. st_blocks counts the
 * pages that exist, those of fallocate(2) too; it falls by what a punch removed.
 */
#include <sys/stat.h>

#include "tests/platform/common.h"

static uint64_t populated(int fd)
{
	struct stat st;

	prove(!fstat(fd, &st), "%s", strerror(errno));
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

int main(void)
{
	int fd = memfd_of(1024 * PAGE);
	uint8_t *map = mmap(NULL, 1024 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	prove(map != MAP_FAILED, "%s", strerror(errno));
	prove(lseek(fd, 0, SEEK_DATA) == -1 && errno == ENXIO, "empty");
	map[3 * PAGE] = 1;
	prove(pwrite(fd, "x", 1, 700 * PAGE) == 1, "pwrite");
	prove(lseek(fd, 0, SEEK_DATA) == 3 * PAGE && lseek(fd, 3 * PAGE, SEEK_HOLE) == 4 * PAGE,
	      "first");
	prove(lseek(fd, 4 * PAGE, SEEK_DATA) == 700 * PAGE, "second");
	prove(lseek(fd, 700 * PAGE, SEEK_HOLE) == 701 * PAGE, "its end");
	prove(lseek(fd, 701 * PAGE, SEEK_DATA) == -1 && errno == ENXIO, "no more");
	prove(populated(fd) == 2, "%llu pages", (unsigned long long)populated(fd));

	prove(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 3 * PAGE, PAGE), "punch");
	prove(lseek(fd, 0, SEEK_DATA) == 700 * PAGE && populated(fd) == 1, "after the punch");
	/* allocated and never written: no data, and counted all the same */
	prove(!fallocate(fd, 0, 10 * PAGE, 2 * PAGE), "%s", strerror(errno));
	prove(lseek(fd, 0, SEEK_DATA) == 700 * PAGE && populated(fd) == 3, "allocated");
	prove(map[10 * PAGE] == 0 && lseek(fd, 0, SEEK_DATA) == 10 * PAGE, "read once, it is data");
	puts("extents are exact; st_blocks counts what exists, written or only allocated");
	return 0;
}
