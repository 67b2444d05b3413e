// SPDX-License-Identifier: MIT
/*
 * The bare-metal guest: fills its RAM, rewrites a working set at a set rate, beats on the first
 * serial port and obeys the second.
 *
 * Theory of operation
 *   One loop on one processor. Between any two page writes tick() gives every duty its turn when it
 *   is due: a beat, the ports, pacing. What is due is read from the TSC alone; the timer interrupt
 *   only ends hlt, so that an idle guest leaves the host's processor alone ("spin 1" never halts:
 *   then every stall of the loop is the host's doing and is measured).
 *
 *   Stalls: the time between two looks at the clock while work was going on. "stall" is one around
 *   memory writes only, which is what dirty tracking slows down; "loop" is any, ports included.
 *
 *   Command line (-append): ram=MiB ws=MiB rate=MiB/s pattern=seq|rand|zipf zero=% grain=pages
 *   plain=% seed=N beat=ms spin=0|1. On COM1: "B SEQ US" a beat. On COM2, a line each, answered
 *   by a line each:
 *     ping                 "P us"
 *     verify               stops dirtying, checks every page: "V ok PAGES 0" or
 *                          "V bad PAGES BAD ADDRESS..." (the first eight)
 *     stat                 "S written=.. pages=.. stall_us=.. loop_us=.. over1ms=.. dropped=.. ..."
 *     reset-stall stop go rate N ws N pattern P beat MS spin N   "OK"
 *     exit N               leaves QEMU through isa-debug-exit
 */
#include "machine.h"
#include "pages.h"
#include "serial.h"

enum pattern { PATTERN_SEQ, PATTERN_RAND, PATTERN_ZIPF };

struct beater {
	struct machine machine;
	struct pages pages;
	struct serial beat_port, command_port;
	uint64_t working_set; /* pages */
	uint64_t rate;	      /* pages a second */
	enum pattern pattern;
	uint64_t cursor, random;
	bool running, spin;
	uint64_t beat_tsc, beat_next, beat_sequence;
	uint64_t poll_next;
	uint64_t paced, credit; /* credit: TSC ticks times pages a second */
	uint64_t seen;		/* last look at the clock */
	uint64_t stall, loop_stall, over_1ms;
	uint64_t started;
};

static struct beater beater;

static uint64_t to_us(const struct beater *b, uint64_t tsc)
{
	return tsc / b->machine.tsc_per_ms * 1000 +
	       tsc % b->machine.tsc_per_ms * 1000 / b->machine.tsc_per_ms;
}

/* Looks at the clock and accounts for what passed since the look before. */
static uint64_t look(struct beater *b, bool memory_only)
{
	uint64_t now = tsc_read(), gap = now - b->seen;

	b->seen = now;
	if (gap > b->loop_stall)
		b->loop_stall = gap;
	if (memory_only) {
		if (gap > b->stall)
			b->stall = gap;
		if (gap > b->machine.tsc_per_ms)
			b->over_1ms++;
	}
	return now;
}

static void set_tick(const struct beater *b)
{
	uint64_t us = to_us(b, b->beat_tsc) / 4;

	machine_set_tick(us < 250 ? 250 : us > 5000 ? 5000 : (unsigned int)us);
}

static uint64_t parse_number(const char *s)
{
	uint64_t n = 0;

	while (*s >= '0' && *s <= '9')
		n = n * 10 + (uint64_t)(*s++ - '0');
	return n;
}

/* The rest of text after word, or NULL. */
static const char *after(const char *text, const char *word)
{
	while (*word)
		if (*text++ != *word++)
			return NULL;
	return text;
}

static bool parse_pattern(const char *s, enum pattern *pattern)
{
	if (after(s, "seq"))
		*pattern = PATTERN_SEQ;
	else if (after(s, "rand"))
		*pattern = PATTERN_RAND;
	else if (after(s, "zipf"))
		*pattern = PATTERN_ZIPF;
	else
		return false;
	return true;
}

/* One setting, "name" and its value; false if there is no such thing. */
static bool set(struct beater *b, const char *name, const char *value)
{
	uint64_t n = parse_number(value);

	if (after(name, "ws")) {
		b->working_set = n << 8;
		if (b->pages.count && b->working_set > b->pages.count)
			b->working_set = b->pages.count;
	} else if (after(name, "rate")) {
		b->rate = n << 8;
	} else if (after(name, "pattern")) {
		return parse_pattern(value, &b->pattern);
	} else if (after(name, "zero")) {
		b->pages.zero_percent = (unsigned int)n;
	} else if (after(name, "grain")) {
		b->pages.zero_grain = (unsigned int)n;
	} else if (after(name, "plain")) {
		b->pages.plain_percent = (unsigned int)n;
	} else if (after(name, "seed")) {
		b->pages.seed = n;
	} else if (after(name, "spin")) {
		b->spin = n != 0;
	} else if (after(name, "beat")) {
		b->beat_tsc = (n ? n : 1) * b->machine.tsc_per_ms;
	} else {
		return false;
	}
	return true;
}

/* Cuts "a b=c" at blanks and equal signs; returns the RAM limit in bytes. */
static uint64_t parse_command_line(struct beater *b)
{
	uint64_t limit = 0;
	char *at = b->machine.command_line;

	while (*at) {
		char *name = at, *value = NULL;

		for (; *at && *at != ' '; at++)
			if (*at == '=' && !value) {
				*at = 0;
				value = at + 1;
			}
		if (*at)
			*at++ = 0;
		if (!value)
			continue;
		if (after(name, "ram"))
			limit = parse_number(value) << 20;
		else
			set(b, name, value);
	}
	return limit;
}

static void answer(struct beater *b, const struct text *t)
{
	serial_line(&b->command_port, t->bytes, t->used);
}

static void answer_string(struct beater *b, const char *s)
{
	struct text t = { .used = 0 };

	text_string(&t, s);
	answer(b, &t);
}

static bool beat(struct beater *b, uint64_t now)
{
	struct text t = { .used = 0 };

	if (now < b->beat_next)
		return false;
	/* After a pause the missed beats are not made up for: the gap is what is measured. */
	b->beat_next += b->beat_tsc;
	if (b->beat_next <= now)
		b->beat_next = now + b->beat_tsc;
	text_string(&t, "B ");
	text_number(&t, ++b->beat_sequence);
	text_string(&t, " ");
	text_number(&t, to_us(b, now));
	serial_line(&b->beat_port, t.bytes, t.used);
	return true;
}

static void stat_item(struct text *t, const char *name, uint64_t value)
{
	text_string(t, name);
	text_number(t, value);
}

static void command_stat(struct beater *b)
{
	struct text t = { .used = 0 };

	stat_item(&t, "S written=", b->pages.written);
	stat_item(&t, " pages=", b->pages.count);
	stat_item(&t, " ws=", b->working_set);
	stat_item(&t, " rate=", b->rate >> 8);
	stat_item(&t, " running=", b->running);
	stat_item(&t, " stall_us=", to_us(b, b->stall));
	stat_item(&t, " loop_us=", to_us(b, b->loop_stall));
	stat_item(&t, " over1ms=", b->over_1ms);
	stat_item(&t, " beats=", b->beat_sequence);
	stat_item(&t, " dropped=", b->beat_port.dropped + b->command_port.dropped);
	stat_item(&t, " us=", to_us(b, tsc_read()));
	answer(b, &t);
}

static void command_verify(struct beater *b)
{
	struct text t = { .used = 0 }, list = { .used = 0 };
	uint64_t bad = 0, sum = 0;

	b->running = false;
	for (uint64_t page = 0; page < b->pages.count; page++) {
		sum += b->pages.versions[page];
		if (!pages_good(&b->pages, page) && bad++ < 8) {
			text_string(&list, " ");
			text_hex(&list, pages_address(&b->pages, page));
		}
		if (!(page % 64)) {
			beat(b, tsc_read());
			serial_flush(&b->beat_port);
		}
	}
	if (sum != b->pages.written) {
		text_string(&list, " versions");
		bad++;
	}
	text_string(&t, bad ? "V bad " : "V ok ");
	text_number(&t, b->pages.count);
	text_string(&t, " ");
	text_number(&t, bad);
	for (uint32_t i = 0; i < list.used; i++) {
		char c[2] = { list.bytes[i], 0 };

		text_string(&t, c);
	}
	answer(b, &t);
	b->seen = tsc_read();
}

/* A command with an argument: splits it, and sets. */
static bool command_set(struct beater *b, char *line)
{
	char *value = line;

	while (*value && *value != ' ')
		value++;
	if (!*value)
		return false;
	*value++ = 0;
	if (after(line, "exit"))
		machine_exit((uint8_t)parse_number(value));
	/* Pages' kinds are fixed once they are filled. */
	if (after(line, "zero") || after(line, "grain") || after(line, "plain") ||
	    after(line, "seed"))
		return false;
	if (!set(b, line, value))
		return false;
	set_tick(b);
	return true;
}

static void command(struct beater *b, char *line)
{
	struct text t = { .used = 0 };

	if (after(line, "ping")) {
		stat_item(&t, "P ", to_us(b, tsc_read()));
		answer(b, &t);
	} else if (after(line, "verify")) {
		command_verify(b);
	} else if (after(line, "stat")) {
		command_stat(b);
	} else if (after(line, "reset-stall")) {
		b->stall = b->loop_stall = b->over_1ms = 0;
		answer_string(b, "OK");
	} else if (after(line, "stop")) {
		b->running = false;
		answer_string(b, "OK");
	} else if (after(line, "go")) {
		b->running = true;
		b->paced = tsc_read();
		b->credit = 0;
		answer_string(b, "OK");
	} else {
		answer_string(b, command_set(b, line) ? "OK" : "E unknown");
	}
}

/*
 * Every duty but dirtying. A port costs far more than a page: they have a turn a millisecond.
 * Accounts for its own time, which is no memory's if a port was touched.
 */
static void tick(struct beater *b, uint64_t now)
{
	bool ports = beat(b, now);

	if (now < b->poll_next) {
		look(b, !ports);
		return;
	}
	b->poll_next = now + b->machine.tsc_per_ms;
	serial_flush(&b->beat_port);
	serial_flush(&b->command_port);
	if (serial_read_line(&b->command_port))
		command(b, b->command_port.input);
	look(b, false);
}

static uint64_t next_random(struct beater *b)
{
	b->random += 0x9e3779b97f4a7c15ull;
	return mix(b->random);
}

static uint64_t next_page(struct beater *b)
{
	uint64_t r = next_random(b), lo, hi = 1;
	unsigned int octaves = 0;

	switch (b->pattern) {
	case PATTERN_RAND:
		return r % b->working_set;
	case PATTERN_ZIPF:
		/* An octave at random, then a page of it: probability falls with 1/rank. */
		while (hi < b->working_set) {
			hi <<= 1;
			octaves++;
		}
		octaves = octaves ? (unsigned int)(r >> 40) % (octaves + 1) : 0;
		lo = octaves ? 1ull << (octaves - 1) : 0;
		hi = 1ull << octaves;
		if (hi > b->working_set)
			hi = b->working_set;
		return lo < hi ? lo + (r & 0xffffffffff) % (hi - lo) : 0;
	case PATTERN_SEQ:
	default:
		if (++b->cursor >= b->working_set)
			b->cursor = 0;
		return b->cursor;
	}
}

/* How many pages are due now; at most 50 ms worth, so that a pause is not made up for. */
static uint64_t pages_due(struct beater *b, uint64_t now)
{
	uint64_t second = b->machine.tsc_per_ms * 1000, most = b->rate * (second / 20), due;

	b->credit += (now - b->paced) * b->rate;
	b->paced = now;
	if (b->credit > most)
		b->credit = most;
	due = b->credit / second;
	b->credit -= due * second;
	return due;
}

static void dirty(struct beater *b, uint64_t now)
{
	for (uint64_t due = pages_due(b, now); due; due--) {
		pages_rewrite(&b->pages, next_page(b));
		now = look(b, true);
		if (now >= b->beat_next || now >= b->poll_next) {
			tick(b, now);
			if (!b->running)
				return;
		}
	}
}

static void fill(struct beater *b)
{
	uint64_t began = tsc_read();
	struct text t = { .used = 0 };

	for (uint64_t page = 0; page < b->pages.count; page++) {
		pages_fill(&b->pages, page);
		if (!(page % 64))
			beat(b, tsc_read());
	}
	stat_item(&t, "R pages=", b->pages.count);
	stat_item(&t, " fill_us=", to_us(b, tsc_read() - began));
	stat_item(&t, " tsc_khz=", b->machine.tsc_per_ms);
	answer(b, &t);
}

void beater_main(uint32_t magic, uint32_t info);

void beater_main(uint32_t magic, uint32_t info)
{
	struct beater *b = &beater;
	uint64_t limit;

	serial_init(&b->beat_port, 0x3f8);
	serial_init(&b->command_port, 0x2f8);
	if (!machine_init(&b->machine, magic, info)) {
		answer_string(b, "E no multiboot memory map");
		machine_exit(127);
		return;
	}
	b->beat_tsc = 10 * b->machine.tsc_per_ms;
	limit = parse_command_line(b);
	if (!pages_init(&b->pages, &b->machine, limit)) {
		answer_string(b, "E no RAM");
		machine_exit(126);
		return;
	}
	if (b->working_set > b->pages.count)
		b->working_set = b->pages.count;
	b->random = b->pages.seed;
	b->beat_next = tsc_read();
	set_tick(b);
	fill(b);

	b->running = true;
	b->seen = b->paced = tsc_read();
	for (;;) {
		uint64_t now = look(b, true);

		tick(b, now);
		if (b->running && b->rate && b->working_set)
			dirty(b, now);
		if (!b->spin) {
			machine_idle();
			b->seen = tsc_read();
		}
	}
}
