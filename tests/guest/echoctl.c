// SPDX-License-Identifier: MIT
/*
 * One TCP connection that must not break: echoctl [--seconds N] ADDRESS PORT
 *
 * Sends numbered messages to an echo server, one every 5 ms and at most one unanswered, and checks
 * every byte that comes back, until SIGTERM, SIGINT or the time is over; then prints one JSON
 * object. Exit 0 only if the one connection lived all the time and nothing was wrong.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MESSAGE_WORDS 32

static volatile sig_atomic_t stopping;

static void on_signal(int sig)
{
	(void)sig;
	stopping = 1;
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

/* Reads exactly size bytes; 0, or -1 when the connection is over or we are to stop. */
static int read_all(int fd, void *to, size_t size)
{
	char *at = to;

	while (size) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		ssize_t n;

		if (poll(&p, 1, 100) <= 0) {
			if (stopping)
				return -1;
			continue;
		}
		n = recv(fd, at, size, 0);
		if (n <= 0)
			return -1;
		at += n;
		size -= (size_t)n;
	}
	return 0;
}

static int connect_to(const char *address, const char *port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	inet_pton(AF_INET, address, &a.sin_addr);
	if (connect(fd, (struct sockaddr *)&a, sizeof(a))) {
		close(fd);
		return -1;
	}
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

int main(int argc, char **argv)
{
	uint64_t sent[MESSAGE_WORDS], got[MESSAGE_WORDS], end = UINT64_MAX, exchanged = 0, bad = 0;
	uint64_t longest = 0;
	struct sigaction stop = { .sa_handler = on_signal };
	int fd, broken = 0;

	if (argc == 5 && !strcmp(argv[1], "--seconds")) {
		end = now_ns() + (uint64_t)(atof(argv[2]) * 1e9);
		argv += 2;
		argc -= 2;
	}
	if (argc != 3) {
		fprintf(stderr, "usage: echoctl [--seconds N] ADDRESS PORT\n");
		return 2;
	}
	sigaction(SIGINT, &stop, NULL);
	sigaction(SIGTERM, &stop, NULL);
	fd = connect_to(argv[1], argv[2]);
	if (fd < 0) {
		fprintf(stderr, "echoctl: %s: %s\n", argv[1], strerror(errno));
		return 1;
	}
	fprintf(stderr, "connected\n");
	while (!stopping && now_ns() < end) {
		uint64_t began = now_ns(), took;

		for (int i = 0; i < MESSAGE_WORDS; i++)
			sent[i] = exchanged * MESSAGE_WORDS + (uint64_t)i;
		if (send(fd, sent, sizeof(sent), MSG_NOSIGNAL) != sizeof(sent) ||
		    read_all(fd, got, sizeof(got))) {
			broken = !stopping;
			break;
		}
		bad += memcmp(sent, got, sizeof(sent)) != 0;
		exchanged++;
		took = now_ns() - began;
		if (took > longest)
			longest = took;
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	printf("{\"exchanged\":%lu,\"bad\":%lu,\"broken\":%s,\"longest_ms\":%.3f}\n", exchanged,
	       bad, broken ? "true" : "false", (double)longest / 1e6);
	return broken || bad || !exchanged;
}
