/* SPDX-License-Identifier: MIT */
/* The PC underneath the bare-metal guest: ports, clock, idle, memory map. */
#ifndef BEATER_MACHINE_H
#define BEATER_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PAGE_SIZE  4096ull
#define RANGES_MAX 16

static inline void port_out(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint8_t port_in(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static inline uint64_t tsc_read(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

struct range {
	uint64_t start, end; /* physical, page-aligned */
};

struct machine {
	char command_line[512];
	struct range ranges[RANGES_MAX]; /* usable RAM above the kernel */
	unsigned int nranges;
	uint64_t tsc_per_ms;
};

/* Reads what the loader left, starts the timer; false if it was no multiboot loader. */
bool machine_init(struct machine *m, uint32_t magic, uint32_t info);

/* Interrupts every `us` microseconds end machine_idle(). */
void machine_set_tick(unsigned int us);

/* Sleeps until the next tick. */
void machine_idle(void);

/* Ends QEMU through isa-debug-exit at 0xf4: its exit status becomes code * 2 + 1. */
void machine_exit(uint8_t code);

/* What the compiler may call. */
void *memcpy(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);

#endif
