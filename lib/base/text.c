// SPDX-License-Identifier: MIT
/* UTF-8 made well-formed, bytes as digits; see text.h. */
#include "lib/base/text.h"

#include <stdint.h>
#include <string.h>

/* Bytes of the well-formed character at p (RFC 3629), 0 if there is none. */
static size_t character(const unsigned char *p)
{
	uint32_t c, least;
	size_t n;

	if (p[0] < 0x80)
		return 1;
	if ((p[0] & 0xe0) == 0xc0)
		n = 2, c = p[0] & 0x1f, least = 0x80;
	else if ((p[0] & 0xf0) == 0xe0)
		n = 3, c = p[0] & 0x0f, least = 0x800;
	else if ((p[0] & 0xf8) == 0xf0)
		n = 4, c = p[0] & 0x07, least = 0x10000;
	else
		return 0;
	/* the terminating zero is no continuation: nothing behind it is read */
	for (size_t i = 1; i < n; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	return c < least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000) ? 0 : n;
}

char *text_clean(char *s)
{
	for (unsigned char *p = (unsigned char *)s; *p;) {
		size_t n = character(p);

		if (!n)
			*p = '?';
		p += n ? n : 1;
	}
	return s;
}

char *text_sentence(char *s)
{
	static const char *const programs[] = { "tranship", "transhipd", "nsenter", "ssh" };
	size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz");

	if (!n || (s[n] && s[n] != ' ' && s[n] != ','))
		return s;
	for (size_t i = 0; i < sizeof(programs) / sizeof(programs[0]); i++)
		if (strlen(programs[i]) == n && !memcmp(programs[i], s, n))
			return s;
	s[0] = (char)(s[0] - 'a' + 'A');
	return s;
}

void text_hex(char *out, const void *bytes, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;

	for (size_t i = 0; i < len; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}
