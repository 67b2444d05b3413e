// SPDX-License-Identifier: MIT
/* The two serial ports; see serial.h. */
#include "serial.h"

#include "machine.h"

#define LSR_DATA  0x01
#define LSR_EMPTY 0x20

void serial_init(struct serial *s, uint16_t port)
{
	s->port = port;
	port_out(port + 1, 0);
	port_out(port + 3, 0x80);
	port_out(port + 0, 1); /* 115200, which the emulated port does not keep to */
	port_out(port + 1, 0);
	port_out(port + 3, 0x03);
	port_out(port + 2, 0x07);
	port_out(port + 4, 0x0b);
}

void serial_flush(struct serial *s)
{
	while (s->tail != s->head && port_in(s->port + 5) & LSR_EMPTY) {
		port_out(s->port, (uint8_t)s->ring[s->tail % SERIAL_RING]);
		s->tail++;
	}
}

void serial_line(struct serial *s, const char *text, uint32_t length)
{
	if (SERIAL_RING - (s->head - s->tail) < length + 1) {
		s->dropped++;
		return;
	}
	for (uint32_t i = 0; i < length; i++)
		s->ring[s->head++ % SERIAL_RING] = text[i];
	s->ring[s->head++ % SERIAL_RING] = '\n';
	serial_flush(s);
}

bool serial_read_line(struct serial *s)
{
	if (s->input_used >= SERIAL_LINE)
		s->input_used = 0;
	while (port_in(s->port + 5) & LSR_DATA) {
		char c = (char)port_in(s->port);

		if (c == '\r')
			continue;
		if (c != '\n') {
			if (s->input_used < SERIAL_LINE - 1)
				s->input[s->input_used++] = c;
			continue;
		}
		s->input[s->input_used] = 0;
		s->input_used = 0;
		return true;
	}
	return false;
}

void text_string(struct text *t, const char *s)
{
	while (*s && t->used < sizeof(t->bytes))
		t->bytes[t->used++] = *s++;
}

static void text_digits(struct text *t, uint64_t n, unsigned int base)
{
	char digits[24];
	unsigned int i = 0;

	do {
		digits[i++] = "0123456789abcdef"[n % base];
		n /= base;
	} while (n);
	while (i && t->used < sizeof(t->bytes))
		t->bytes[t->used++] = digits[--i];
}

void text_number(struct text *t, uint64_t n)
{
	text_digits(t, n, 10);
}

void text_hex(struct text *t, uint64_t n)
{
	text_string(t, "0x");
	text_digits(t, n, 16);
}
