// SPDX-License-Identifier: MIT
/* The PC underneath the bare-metal guest; see machine.h. */
#include "machine.h"

#define PIT_HZ 1193182u

struct multiboot_info {
	uint32_t flags, mem_lower, mem_upper, boot_device, cmdline, mods_count, mods_addr, syms[4];
	uint32_t mmap_length, mmap_addr;
};

struct multiboot_mmap {
	uint32_t size; /* of what follows */
	uint64_t addr, len;
	uint32_t type; /* 1: RAM */
} __attribute__((packed));

struct gate {
	uint16_t offset_low, selector, flags, offset_middle;
	uint32_t offset_high, reserved;
};

extern char kernel_end[];
extern void interrupt_timer(void);

static struct gate idt[256];

void *memcpy(void *to, const void *from, size_t n)
{
	char *t = to;

	for (const char *f = from; n--;)
		*t++ = *f++;
	return to;
}

void *memset(void *to, int byte, size_t n)
{
	for (char *t = to; n--;)
		*t++ = (char)byte;
	return to;
}

static void idt_init(void)
{
	uint64_t handler = (uint64_t)interrupt_timer;
	struct {
		uint16_t limit;
		uint64_t base;
	} __attribute__((packed)) pointer = { sizeof(idt) - 1, (uint64_t)idt };

	/* Only the timer is unmasked; a fault is a defect and resets the machine. */
	idt[32] = (struct gate){ .offset_low = (uint16_t)handler,
				 .selector = 8,
				 .flags = 0x8e00,
				 .offset_middle = (uint16_t)(handler >> 16),
				 .offset_high = (uint32_t)(handler >> 32) };
	__asm__ volatile("lidt %0" : : "m"(pointer));
	port_out(0x20, 0x11);
	port_out(0x21, 32);
	port_out(0x21, 4);
	port_out(0x21, 1);
	port_out(0xa0, 0x11);
	port_out(0xa1, 40);
	port_out(0xa1, 2);
	port_out(0xa1, 1);
	port_out(0x21, 0xfe);
	port_out(0xa1, 0xff);
}

void machine_set_tick(unsigned int us)
{
	uint32_t divisor = (uint32_t)((uint64_t)us * PIT_HZ / 1000000);

	if (divisor > 0xffff)
		divisor = 0xffff;
	port_out(0x43, 0x34);
	port_out(0x40, (uint8_t)divisor);
	port_out(0x40, (uint8_t)(divisor >> 8));
}

void machine_idle(void)
{
	__asm__ volatile("sti; hlt; cli" : : : "memory");
}

void machine_exit(uint8_t code)
{
	port_out(0xf4, code);
}

/* Counter and clock at one instant: the pair whose reading took the shortest of a few tries. */
static uint16_t pit_sample(uint64_t *tsc)
{
	uint64_t best = UINT64_MAX, before, after;
	uint16_t count = 0;

	for (int i = 0; i < 8; i++) {
		uint16_t c;

		before = tsc_read();
		port_out(0x43, 0x00); /* latch channel 0 */
		c = port_in(0x40);
		c = (uint16_t)(c | port_in(0x40) << 8);
		after = tsc_read();
		if (after - before < best) {
			best = after - before;
			*tsc = before + best / 2;
			count = c;
		}
	}
	return count;
}

/* Two samples 20 ms apart within one period of the counter (55 ms): preemption does not matter. */
static uint64_t tsc_calibrate(void)
{
	uint64_t t0, t1;
	uint16_t c0, c1;

	port_out(0x43, 0x34);
	port_out(0x40, 0);
	port_out(0x40, 0);
	do
		c0 = pit_sample(&t0);
	while (c0 < 48000);
	do
		c1 = pit_sample(&t1);
	while (c1 > 20000 && c1 <= c0);
	if (c1 > c0) /* it wrapped: the machine stood still for long; once more */
		return tsc_calibrate();
	return (t1 - t0) * PIT_HZ / (uint64_t)(c0 - c1) / 1000;
}

static void add_range(struct machine *m, uint64_t start, uint64_t end)
{
	/* The loader's own data lie within the first MiB behind the kernel's end. */
	uint64_t least = ((uint64_t)kernel_end + (1 << 20)) & ~(PAGE_SIZE - 1);

	start = (start + PAGE_SIZE - 1) & ~(PAGE_SIZE - 1);
	end &= ~(PAGE_SIZE - 1);
	if (start < least)
		start = least;
	if (end > 64ull << 30)
		end = 64ull << 30;
	if (start < end && m->nranges < RANGES_MAX)
		m->ranges[m->nranges++] = (struct range){ start, end };
}

bool machine_init(struct machine *m, uint32_t magic, uint32_t info)
{
	const struct multiboot_info *mb = (const struct multiboot_info *)(uint64_t)info;
	const char *from;
	uint32_t at;

	if (magic != 0x2badb002 || !(mb->flags & 1 << 6))
		return false;
	if (mb->flags & 1 << 2) {
		from = (const char *)(uint64_t)mb->cmdline;
		for (size_t i = 0; i + 1 < sizeof(m->command_line) && from[i]; i++)
			m->command_line[i] = from[i];
	}
	at = mb->mmap_addr;
	while (at < mb->mmap_addr + mb->mmap_length) {
		const struct multiboot_mmap *e = (const struct multiboot_mmap *)(uint64_t)at;

		if (e->type == 1)
			add_range(m, e->addr, e->addr + e->len);
		at += e->size + (uint32_t)sizeof(e->size);
	}
	idt_init();
	m->tsc_per_ms = tsc_calibrate();
	return m->nranges > 0 && m->tsc_per_ms > 0;
}
