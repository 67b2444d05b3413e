// SPDX-License-Identifier: MIT
/*
 * sendfile puts the page cache's own pages on a TCP socket: what the receiver gets is what they
 * hold when it reads, not when they were sent. And it reads a hole as zeros without filling it,
 * which reading through a mapping does.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "tests/platform/common.h"

static void connect_pair(int fds[2])
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof(a);
	int listener = socket(AF_INET, SOCK_STREAM, 0);

	fds[0] = socket(AF_INET, SOCK_STREAM, 0);
	prove(!bind(listener, (struct sockaddr *)&a, len) && !listen(listener, 1) &&
		      !getsockname(listener, (struct sockaddr *)&a, &len) &&
		      !connect(fds[0], (struct sockaddr *)&a, len),
	      "%s", strerror(errno));
	fds[1] = accept(listener, NULL, NULL);
	close(listener);
}

static void receive(int fd, uint8_t *page)
{
	prove(recv(fd, page, PAGE, MSG_WAITALL) == (ssize_t)PAGE, "%s", strerror(errno));
}

static uint64_t populated(int fd)
{
	struct stat st;

	prove(!fstat(fd, &st), "%s", strerror(errno));
	return (uint64_t)st.st_blocks * 512 / PAGE;
}

int main(void)
{
	uint8_t page[PAGE];
	struct tracked t;
	off_t at = 0;
	int fds[2];

	tracked_map(&t, memfd_of(HUGE), HUGE);
	connect_pair(fds);
	memset(t.map, 'A', PAGE);
	prove(sendfile(fds[0], t.fd, &at, PAGE) == (ssize_t)PAGE, "%s", strerror(errno));
	memset(t.map, 'B', PAGE);
	receive(fds[1], page);
	prove(page[0] == 'B' && page[PAGE - 1] == 'B', "received %c", page[0]);
	puts("sent while it held A, changed to B, then received: B");

	prove(populated(t.fd) == 1, "one page exists");
	at = 100 * PAGE;
	prove(sendfile(fds[0], t.fd, &at, PAGE) == (ssize_t)PAGE, "%s", strerror(errno));
	receive(fds[1], page);
	prove(page[0] == 0 && !memcmp(page, page + 1, PAGE - 1), "a hole is zeros");
	prove(populated(t.fd) == 1, "sendfile filled the hole");
	prove(pread(t.fd, page, PAGE, 100 * PAGE) == (ssize_t)PAGE && populated(t.fd) == 1,
	      "pread filled the hole");
	prove(*(volatile uint8_t *)(t.map + 100 * PAGE) == 0 && populated(t.fd) == 2,
	      "reading through the mapping fills the hole");
	puts("a hole: sendfile and pread leave it one, reading through a mapping fills it");
	return 0;
}
