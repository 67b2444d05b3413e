// SPDX-License-Identifier: MIT
/*
 * The Linux guest's only program, its init: dirties memory that it can check, answers TCP echo over
 * virtio-net, reads a virtio disk by direct I/O, beats and obeys as the bare-metal guest does.
 *
 * Theory of operation
 *   Threads: the main loop dirties (pages.c, the bare-metal guest's, over an anonymous mapping) and
 *   serves commands on ttyS1 between pages; one thread beats on ttyS0; one answers echo on port 7;
 *   one reads the disk. Kernel command line: ts.ram=MiB ts.ws=MiB ts.rate=MiB/s ts.beat=ms
 *   ts.address=A.B.C.D.
 *
 *   The disk: /dev/vda's block b holds words that follow from b (disk-fill writes them). The disk
 *   thread reads blocks at random into a ring of slots, O_DIRECT: with cache=none on the host this
 *   is DMA into guest RAM that no page fault reports. disk-verify stops it and compares every slot
 *   with the block it was last read from, then every block of the disk.
 *
 *   Commands as the bare-metal guest's: ping verify stat stop go "rate N"; and disk-fill,
 *   disk-verify, disk-go, free (MemFree), exit.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "../beater/pages.h"

#define SLOTS	    2048u
#define BLOCK	    4096u
#define ECHO_PORT   7
#define CLIENTS_MAX 16

static struct {
	struct pages pages;
	uint64_t working_set, rate, beat_us; /* pages, pages a second, microseconds */
	char address[32];
	bool running;
	int beat_tty, command_tty;
	uint64_t beats;

	pthread_mutex_t disk_lock; /* held for one read; by disk-verify for its duration */
	bool disk_running;
	int disk;
	uint64_t disk_blocks, disk_reads;
	uint8_t *slots;
	int64_t slot_block[SLOTS]; /* -1: nothing was read */
} guest;

static uint64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static void nap_us(uint64_t us)
{
	nanosleep(&(struct timespec){ (time_t)(us / 1000000), (long)(us % 1000000) * 1000 }, NULL);
}

static void setting(const char *command_line, const char *name, uint64_t *value)
{
	const char *at = strstr(command_line, name);

	if (at)
		*value = strtoull(at + strlen(name), NULL, 10);
}

/* Waits a little for what a driver brings in its own time. */
static int open_device(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	for (int i = 0; fd < 0 && i < 200; i++) {
		nap_us(5000);
		fd = open(path, flags | O_CLOEXEC);
	}
	return fd;
}

static int open_tty(const char *path)
{
	struct termios t;
	int fd = open_device(path, O_RDWR | O_NONBLOCK | O_NOCTTY);

	if (fd >= 0 && !tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		cfsetspeed(&t, B115200);
		t.c_cflag |= CLOCAL;
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static void load_modules(void)
{
	static const char *const names[] = {
		"virtio",     "virtio_ring",   "virtio_pci_legacy_dev", "virtio_pci_modern_dev",
		"virtio_pci", "failover",      "net_failover",		"virtio_net",
		"virtio_blk", "virtio_balloon"
	};
	char path[64];

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		int fd;

		snprintf(path, sizeof(path), "/modules/%s.ko", names[i]);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) {
			syscall(SYS_finit_module, fd, "", 0);
			close(fd);
		}
	}
}

static void network_up(void)
{
	struct ifreq r = { .ifr_name = "eth0" };
	struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	a->sin_family = AF_INET;
	inet_pton(AF_INET, guest.address, &a->sin_addr);
	for (int i = 0; ioctl(s, SIOCSIFADDR, &r) && i < 200; i++)
		nap_us(5000);
	inet_pton(AF_INET, "255.255.255.0", &a->sin_addr);
	ioctl(s, SIOCSIFNETMASK, &r);
	r.ifr_flags = IFF_UP | IFF_RUNNING;
	ioctl(s, SIOCSIFFLAGS, &r);
	close(s);
}

static void *beat_thread(void *unused)
{
	uint64_t next = now_us();
	char line[64];

	(void)unused;
	for (;;) {
		uint64_t now = now_us();

		if (now < next) {
			nap_us(next - now);
			continue;
		}
		next += guest.beat_us;
		if (next <= now)
			next = now + guest.beat_us;
		/* A line that does not fit is dropped: the guest never waits for its listener. */
		(void)!write(
			guest.beat_tty, line,
			(size_t)snprintf(line, sizeof(line), "B %lu %lu\n", ++guest.beats, now));
	}
	return NULL;
}

/* Sends all of it back; false when the connection is over. */
static bool echo_once(int fd)
{
	char bytes[4096];
	ssize_t n = recv(fd, bytes, sizeof(bytes), 0);

	return n > 0 && send(fd, bytes, (size_t)n, MSG_NOSIGNAL) == n;
}

static void *echo_thread(void *unused)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(ECHO_PORT) };
	struct pollfd p[CLIENTS_MAX + 1];
	nfds_t n = 1;

	(void)unused;
	p[0] = (struct pollfd){ .fd = socket(AF_INET, SOCK_STREAM, 0), .events = POLLIN };
	bind(p[0].fd, (struct sockaddr *)&a, sizeof(a));
	listen(p[0].fd, CLIENTS_MAX);
	for (;;) {
		poll(p, n, -1);
		for (nfds_t i = n; i-- > 1;) {
			if (p[i].revents && !echo_once(p[i].fd)) {
				close(p[i].fd);
				p[i] = p[--n];
			}
		}
		if (p[0].revents && n <= CLIENTS_MAX)
			p[n++] = (struct pollfd){ .fd = accept(p[0].fd, NULL, NULL),
						  .events = POLLIN };
	}
	return NULL;
}

static void block_content(uint64_t *to, uint64_t block)
{
	for (uint64_t i = 0; i < BLOCK / 8; i++)
		to[i] = mix(block * 512 + i + 1);
}

static bool block_good(const void *at, uint64_t block)
{
	uint64_t want[BLOCK / 8];

	block_content(want, block);
	return !memcmp(at, want, BLOCK);
}

static void *disk_thread(void *unused)
{
	uint64_t random = 1;

	(void)unused;
	for (;;) {
		unsigned int slot;
		uint64_t block;

		if (!guest.disk_running) {
			nap_us(2000);
			continue;
		}
		random++;
		slot = (unsigned int)(mix(random) % SLOTS);
		block = mix(random * 3) % guest.disk_blocks;
		pthread_mutex_lock(&guest.disk_lock);
		guest.slot_block[slot] = -1;
		if (pread(guest.disk, guest.slots + (size_t)slot * BLOCK, BLOCK,
			  (off_t)(block * BLOCK)) == BLOCK) {
			guest.slot_block[slot] = (int64_t)block;
			guest.disk_reads++;
		}
		pthread_mutex_unlock(&guest.disk_lock);
	}
	return NULL;
}

static bool disk_open(void)
{
	off_t size;

	guest.disk = open_device("/dev/vda", O_RDWR | O_DIRECT);
	if (guest.disk < 0)
		return false;
	size = lseek(guest.disk, 0, SEEK_END);
	guest.disk_blocks = (uint64_t)size / BLOCK;
	guest.slots = mmap(NULL, (size_t)SLOTS * BLOCK, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	memset(guest.slot_block, 0xff, sizeof(guest.slot_block));
	return guest.disk_blocks > 0 && guest.slots != MAP_FAILED;
}

static void answer(const char *line)
{
	size_t length = strlen(line);

	while (length) {
		ssize_t n = write(guest.command_tty, line, length);

		if (n > 0) {
			line += n;
			length -= (size_t)n;
		} else {
			nap_us(1000);
		}
	}
}

/* The whole disk goes through here, so many blocks at a time. */
#define BATCH 64u
static uint8_t batch[BATCH * BLOCK] __attribute__((aligned(4096)));

/* Blocks from the disk's b on, as many as fit. */
static size_t batch_bytes(uint64_t b)
{
	return (guest.disk_blocks - b < BATCH ? guest.disk_blocks - b : BATCH) * BLOCK;
}

static void disk_fill(void)
{
	for (uint64_t b = 0; b < guest.disk_blocks; b += BATCH) {
		size_t n = batch_bytes(b);

		for (size_t i = 0; i < n / BLOCK; i++)
			block_content((uint64_t *)(batch + i * BLOCK), b + i);
		if (pwrite(guest.disk, batch, n, (off_t)(b * BLOCK)) != (ssize_t)n) {
			answer("E disk write\n");
			return;
		}
	}
	fsync(guest.disk);
	answer("OK\n");
}

static uint64_t disk_bad_blocks(void)
{
	uint64_t bad = 0;

	for (uint64_t b = 0; b < guest.disk_blocks; b += BATCH) {
		size_t n = batch_bytes(b);

		if (pread(guest.disk, batch, n, (off_t)(b * BLOCK)) != (ssize_t)n) {
			bad += n / BLOCK;
			continue;
		}
		for (size_t i = 0; i < n / BLOCK; i++)
			bad += !block_good(batch + i * BLOCK, b + i);
	}
	return bad;
}

static void disk_verify(void)
{
	uint64_t bad_slots = 0, bad_blocks, slots = 0;
	char line[128];

	guest.disk_running = false;
	pthread_mutex_lock(&guest.disk_lock);
	for (unsigned int i = 0; i < SLOTS; i++) {
		if (guest.slot_block[i] < 0)
			continue;
		slots++;
		bad_slots +=
			!block_good(guest.slots + (size_t)i * BLOCK, (uint64_t)guest.slot_block[i]);
	}
	bad_blocks = disk_bad_blocks();
	pthread_mutex_unlock(&guest.disk_lock);
	snprintf(line, sizeof(line), "V %s slots=%lu bad=%lu blocks=%lu bad=%lu reads=%lu\n",
		 bad_slots || bad_blocks ? "bad" : "ok", slots, bad_slots, guest.disk_blocks,
		 bad_blocks, guest.disk_reads);
	answer(line);
}

static void memory_verify(void)
{
	uint64_t bad = 0, sum = 0;
	char line[128];

	guest.running = false;
	for (uint64_t page = 0; page < guest.pages.count; page++) {
		sum += guest.pages.versions[page];
		bad += !pages_good(&guest.pages, page);
	}
	bad += sum != guest.pages.written;
	snprintf(line, sizeof(line), "V %s %lu %lu\n", bad ? "bad" : "ok", guest.pages.count, bad);
	answer(line);
}

static void memory_free(void)
{
	char line[128] = "E free\n", text[256];
	FILE *f = fopen("/proc/meminfo", "r");

	while (f && fgets(text, sizeof(text), f)) {
		unsigned long total;

		if (sscanf(text, "MemTotal: %lu kB", &total) == 1)
			snprintf(line, sizeof(line), "M total_kib=%lu\n", total);
	}
	if (f)
		fclose(f);
	answer(line);
}

static void command(const char *line)
{
	char text[160];

	if (!strcmp(line, "ping")) {
		snprintf(text, sizeof(text), "P %lu\n", now_us());
		answer(text);
	} else if (!strcmp(line, "verify")) {
		memory_verify();
	} else if (!strcmp(line, "stat")) {
		snprintf(text, sizeof(text), "S written=%lu pages=%lu running=%d reads=%lu\n",
			 guest.pages.written, guest.pages.count, guest.running, guest.disk_reads);
		answer(text);
	} else if (!strcmp(line, "stop") || !strcmp(line, "go")) {
		guest.running = line[0] == 'g';
		answer("OK\n");
	} else if (!strncmp(line, "rate ", 5)) {
		guest.rate = strtoull(line + 5, NULL, 10) << 8;
		answer("OK\n");
	} else if (!strcmp(line, "free")) {
		memory_free();
	} else if (!strcmp(line, "exit")) {
		reboot(RB_POWER_OFF);
	} else if (guest.disk_blocks && !strcmp(line, "disk-fill")) {
		disk_fill();
	} else if (guest.disk_blocks && !strcmp(line, "disk-verify")) {
		disk_verify();
	} else if (guest.disk_blocks && !strcmp(line, "disk-go")) {
		guest.disk_running = true;
		answer("OK\n");
	} else {
		answer("E unknown\n");
	}
}

static void read_commands(void)
{
	static char line[128];
	static size_t used;
	char c;

	while (read(guest.command_tty, &c, 1) == 1) {
		if (c == '\n') {
			line[used] = 0;
			used = 0;
			command(line);
		} else if (c != '\r' && used < sizeof(line) - 1) {
			line[used++] = c;
		}
	}
}

static void dirty_for(uint64_t us)
{
	static uint64_t random;

	for (uint64_t n = guest.rate * us / 1000000; guest.running && n; n--)
		pages_rewrite(&guest.pages, mix(++random) % guest.working_set);
}

static void configure(void)
{
	uint64_t ram = 64, ws = 32, rate = 20, beat = 10;
	char text[4096] = "";
	const char *at;
	int fd = open("/proc/cmdline", O_RDONLY);

	if (fd >= 0) {
		(void)!read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	setting(text, "ts.ram=", &ram);
	setting(text, "ts.ws=", &ws);
	setting(text, "ts.rate=", &rate);
	setting(text, "ts.beat=", &beat);
	at = strstr(text, "ts.address=");
	if (at)
		sscanf(at + strlen("ts.address="), "%31[0-9.]", guest.address);
	guest.rate = rate << 8;
	guest.beat_us = beat * 1000;
	guest.working_set = ws << 8;

	struct machine m = { .nranges = 1 };
	void *area =
		mmap(NULL, ram << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	m.ranges[0] = (struct range){ (uint64_t)area, (uint64_t)area + (ram << 20) };
	guest.pages.zero_percent = 20;
	guest.pages.seed = 1;
	pages_init(&guest.pages, &m, 0);
	if (guest.working_set > guest.pages.count)
		guest.working_set = guest.pages.count;
	for (uint64_t page = 0; page < guest.pages.count; page++)
		pages_fill(&guest.pages, page);
}

static void start(void *(*body)(void *))
{
	pthread_t thread;

	pthread_create(&thread, NULL, body, NULL);
}

int main(void)
{
	uint64_t last;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	load_modules();
	configure();
	guest.beat_tty = open_tty("/dev/ttyS0");
	guest.command_tty = open_tty("/dev/ttyS1");
	pthread_mutex_init(&guest.disk_lock, NULL);
	start(beat_thread);
	if (guest.address[0]) {
		network_up();
		start(echo_thread);
	}
	if (!access("/dev/vda", F_OK) && disk_open())
		start(disk_thread);
	guest.running = true;
	last = now_us();
	for (;;) {
		uint64_t now = now_us();

		dirty_for(now - last < 50000 ? now - last : 50000);
		last = now;
		read_commands();
		nap_us(1000);
	}
}
