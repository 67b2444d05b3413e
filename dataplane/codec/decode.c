// SPDX-License-Identifier: MIT
/* Compressed runs of pages back into pages; see decode.h. */
#include "dataplane/codec/decode.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

/* RFC 8878, 3.1.1: the magic number, then the frame header's descriptor with the checksum bit. */
static const uint8_t magic[] = { 0x28, 0xb5, 0x2f, 0xfd };
#define DESCRIPTOR_AT	  sizeof(magic)
#define DESCRIPTOR_CHECKS 0x04

int decoder_init(struct decoder *d)
{
	d->zstd = ZSTD_createDCtx();
	d->out = aligned_alloc(PAGE_BYTES, DECODE_BYTES_MAX);
	d->present = aligned_alloc(PAGE_BYTES, DECODE_BYTES_MAX);
	if (d->zstd && d->out && d->present)
		return 0;
	decoder_release(d);
	return -ENOMEM;
}

void decoder_release(struct decoder *d)
{
	ZSTD_freeDCtx(d->zstd);
	free(d->out);
	free(d->present);
	*d = (struct decoder){ 0 };
}

/* One frame that fills the payload and says that it expands to out_len bytes. */
static bool well_formed(const uint8_t *in, size_t len, size_t out_len)
{
	return len > DESCRIPTOR_AT && !memcmp(in, magic, sizeof(magic)) &&
	       ZSTD_getFrameContentSize(in, len) == out_len &&
	       ZSTD_findFrameCompressedSize(in, len) == len;
}

int decode_zstd(struct decoder *d, const uint8_t *in, size_t len, uint8_t *out, size_t out_len)
{
	size_t n;

	if (!well_formed(in, len, out_len))
		return -EBADMSG;
	n = ZSTD_decompressDCtx(d->zstd, out, out_len, in, len);
	return !ZSTD_isError(n) && n == out_len ? 0 : -EBADMSG;
}

int decode_delta(struct decoder *d, const uint8_t *in, size_t len, const uint8_t *base,
		 uint8_t *out, size_t out_len)
{
	size_t n;

	if (!well_formed(in, len, out_len) || !(in[DESCRIPTOR_AT] & DESCRIPTOR_CHECKS))
		return -EBADMSG;
	/* for one frame only: a base does not outlive its page */
	n = ZSTD_DCtx_refPrefix(d->zstd, base, out_len);
	if (!ZSTD_isError(n))
		n = ZSTD_decompressDCtx(d->zstd, out, out_len, in, len);
	if (ZSTD_isError(n) && ZSTD_getErrorCode(n) == ZSTD_error_checksum_wrong)
		return -EILSEQ;
	return !ZSTD_isError(n) && n == out_len ? 0 : -EBADMSG;
}
