/* SPDX-License-Identifier: MIT */
/*
 * The two serial ports. Nothing here ever waits: what the port does not take goes into a ring, and
 * a line that does not fit the ring is dropped whole and counted.
 */
#ifndef BEATER_SERIAL_H
#define BEATER_SERIAL_H

#include <stdbool.h>
#include <stdint.h>

#define SERIAL_RING 4096u /* bytes, a power of two */
#define SERIAL_LINE 128u

struct serial {
	uint16_t port;
	uint32_t head, tail; /* free running; head is where the next byte goes in */
	uint32_t dropped;    /* lines */
	uint32_t input_used;
	char ring[SERIAL_RING];
	char input[SERIAL_LINE];
};

void serial_init(struct serial *s, uint16_t port);
/* Queues a line; a newline is added. */
void serial_line(struct serial *s, const char *text, uint32_t length);
/* Gives the port what it takes now. */
void serial_flush(struct serial *s);
/* True when a whole line has come: it is in s->input, terminated, until the next call. */
bool serial_read_line(struct serial *s);

/* A line under construction. */
struct text {
	char bytes[256];
	uint32_t used;
};

void text_string(struct text *t, const char *s);
void text_number(struct text *t, uint64_t n);
void text_hex(struct text *t, uint64_t n);

#endif
