/* SPDX-License-Identifier: MIT */
/* io_uring interfaces newer than liburing 2.3. */
#ifndef TRANSHIP_DATAPLANE_URING_ABI_H
#define TRANSHIP_DATAPLANE_URING_ABI_H

#include <liburing.h>

/* 6.2: the notification of a zero-copy send says whether the kernel copied after all. */
#ifndef IORING_SEND_ZC_REPORT_USAGE
#define IORING_SEND_ZC_REPORT_USAGE (1U << 3)
#endif
#ifndef IORING_NOTIF_USAGE_ZC_COPIED
#define IORING_NOTIF_USAGE_ZC_COPIED (1U << 31)
#endif

#endif
