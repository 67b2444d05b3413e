/* SPDX-License-Identifier: MIT */
/*
 * What transhipd (or its guard process) and a VMM that links libtranship say to each other.
 *
 * Theory of operation
 *   A SOCK_SEQPACKET unix socket on which the VMM listens. transhipd asks, the VMM answers: one
 *   packet a message, struct tranship_head first, then the body that its type names, then nothing.
 *   An answer has the request's type with TRANSHIP_REPLY set and repeats its serial; answers come
 *   in the order of the requests. status is 0, or -errno with a struct tranship_text as body.
 *
 *   One connection at a time. A second one gets the answer to HELLO with status -EBUSY and, so that
 *   a list of VMs can show the guest, the description as body, and is closed. The peer's uid must
 *   be 0 or the VMM's own; anybody else is closed without an answer.
 *
 *   A session of transhipd:
 *     HELLO                                version, description
 *     REGION 0 .. regions-1                each with the descriptor of its RAM file
 *     ARM  (STOP RESUME)  STOP  SAVE(fd)   source, until the destination is prepared
 *     QUIT                                 source, after commit
 *     RESUME  DISARM                       source, after a failure
 *     INCOMING  LOAD(fd)  START            destination
 *
 *   States of the guest and what may be asked in each (- : -EPROTO; "same" is answered with 0):
 *
 *             STOP     SAVE   RESUME   INCOMING  LOAD    START    connection lost
 *   RUNNING   STOPPED  -      same     -         -       same     runs on
 *   STOPPED   same     SAVED  RUNNING  -         -       -        RUNNING
 *   SAVED     same     -      RUNNING  -         -       -        stays
 *   WAITING   -        -      -        same      LOADED  -        stays
 *   LOADED    -        -      -        WAITING   LOADED  RUNNING  stays
 *   BROKEN    -        -      -        WAITING   LOADED  -        stays
 *
 *   HELLO, DESCRIBE, REGION, DISARM and QUIT may be asked in every state, ARM in RUNNING and
 *   STOPPED. A failed SAVE stays in STOPPED, a failed LOAD leads to BROKEN. Whenever the connection
 *   is lost, tracking ends too.
 *
 *   All integers are little-endian; sizes are asserted below. The order of bytes is the host's: the
 *   kernels that can track a VMM from here (x86-64, arm64) are little-endian.
 *
 * The guard speaks through a duplicate of transhipd's connection: as long as it holds it the VMM
 * sees no loss, and tranship_request_resume() below is all that it has to send. Before it ends it
 * reads answers up to the one with its serial.
 */
#ifndef TRANSHIP_PROTO_H
#define TRANSHIP_PROTO_H

#include <stdint.h>
#include <string.h>

#define TRANSHIP_PROTO_MAGIC	   0x56485354u /* "TSHV" */
#define TRANSHIP_PROTO_VERSION	   1u
#define TRANSHIP_PROTO_VERSION_MIN 1u
#define TRANSHIP_REPLY		   0x8000u
#define TRANSHIP_PACKET_MAX	   1024u
#define TRANSHIP_PROTO_REGIONS_MAX 256u
/* The serial that the guard uses; transhipd's own rise from 1 and never reach it. */
#define TRANSHIP_SERIAL_GUARD 0xffffffffu

/* Where VMMs listen, one NAME.sock each, so that transhipd finds them. */
#define TRANSHIP_SOCKET_DIR "/run/tranship/vmm"

enum tranship_type {
	TRANSHIP_HELLO = 1, /* struct tranship_hello -> struct tranship_description; first */
	TRANSHIP_DESCRIBE,  /* - -> struct tranship_description */
	TRANSHIP_REGION,    /* struct tranship_index -> struct tranship_region_info and an fd */
	TRANSHIP_ARM,	    /* - -> struct tranship_armed */
	TRANSHIP_DISARM,    /* - -> - */
	TRANSHIP_STOP,	    /* - -> - */
	TRANSHIP_SAVE,	    /* fd in the request: device state goes there, then it is closed -> - */
	TRANSHIP_RESUME,    /* - -> - */
	TRANSHIP_QUIT,	    /* - -> -; the VMM then ends */
	TRANSHIP_INCOMING,  /* - -> -; status -EPROTO if the VMM does not wait for a guest */
	TRANSHIP_LOAD,	    /* fd in the request: device state comes from there, to its end -> - */
	TRANSHIP_START,	    /* - -> - */
	TRANSHIP_TYPES,	    /* one beyond the last */
};

enum tranship_state {
	TRANSHIP_RUNNING = 1, /* the VMM decides; see TRANSHIP_FLAG_RUNNING */
	TRANSHIP_STOPPED,     /* by STOP */
	TRANSHIP_SAVED,	      /* stopped, and its state was handed out whole */
	TRANSHIP_WAITING,     /* for a guest to come ("INCOMING" above) */
	TRANSHIP_LOADED,      /* a guest came and was not started */
	TRANSHIP_BROKEN,      /* a load failed */
};

#define TRANSHIP_FLAG_RUNNING 1u /* the guest's processors run */
#define TRANSHIP_FLAG_DMA     2u /* direct I/O into guest RAM: needs the stop-scan-cont barrier */
#define TRANSHIP_FLAG_ARMED   4u /* the VMM holds a userfaultfd for the tracker */

/* What tracks the guest's writes; more kinds (KVM's log and ring) will follow. */
enum tranship_tracker { TRANSHIP_TRACKER_PAGEMAP = 1 };

struct tranship_head {
	uint32_t magic;
	uint16_t version; /* that HELLO agreed on; in HELLO itself TRANSHIP_PROTO_VERSION */
	uint16_t type;	  /* enum tranship_type, with TRANSHIP_REPLY in an answer */
	uint32_t serial;  /* chosen by the asker */
	int32_t status;	  /* answers: 0 or -errno; requests: 0 */
	uint32_t size;	  /* bytes of body that follow */
	uint32_t reserved;
};

struct tranship_hello {
	uint32_t version_min, version_max; /* that the asker speaks */
};

struct tranship_description {
	uint32_t version; /* agreed on */
	uint32_t state;	  /* enum tranship_state */
	uint32_t flags;	  /* TRANSHIP_FLAG_* */
	uint32_t regions;
	uint32_t cpus; /* 0: unknown */
	uint32_t reserved;
	uint64_t ram_bytes; /* of all regions */
	char name[128];	    /* of the guest; all strings are terminated */
	char vmm[64];	    /* the VMM's name */
	char vmm_version[64];
	char machine[64]; /* equal on both sides, or the guest is refused */
	char cpu_model[256];
	char accel[16]; /* "kvm", "tcg", "none" */
};

struct tranship_index {
	uint32_t index;
	uint32_t reserved;
};

struct tranship_region_info {
	char id[128];
	uint64_t size;	      /* bytes, a multiple of page_size */
	uint64_t file_offset; /* of the region's first byte in its file */
	uint64_t address;     /* of its mapping in the VMM */
	uint32_t page_size;   /* of the backing, bytes */
	uint32_t reserved;
};

struct tranship_armed {
	uint32_t tracker; /* enum tranship_tracker */
	uint32_t reserved;
};

/* What went wrong, for a person; one line. */
struct tranship_text {
	char text[256];
};

_Static_assert(sizeof(struct tranship_head) == 24, "tranship_head");
_Static_assert(sizeof(struct tranship_hello) == 8, "tranship_hello");
_Static_assert(sizeof(struct tranship_description) == 624, "tranship_description");
_Static_assert(sizeof(struct tranship_index) == 8, "tranship_index");
_Static_assert(sizeof(struct tranship_region_info) == 160, "tranship_region_info");
_Static_assert(sizeof(struct tranship_armed) == 8, "tranship_armed");
_Static_assert(sizeof(struct tranship_text) == 256, "tranship_text");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "see the head of this file");

union tranship_body {
	struct tranship_hello hello;
	struct tranship_description description;
	struct tranship_index index;
	struct tranship_region_info region;
	struct tranship_armed armed;
	struct tranship_text text;
};

struct tranship_packet {
	struct tranship_head head;
	union tranship_body body;
};

_Static_assert(sizeof(struct tranship_packet) <= TRANSHIP_PACKET_MAX, "tranship_packet");

/* Bytes of body in a request and in a successful answer; -1: no such type. */
static inline int tranship_request_size(uint16_t type)
{
	switch (type) {
	case TRANSHIP_HELLO:
		return sizeof(struct tranship_hello);
	case TRANSHIP_REGION:
		return sizeof(struct tranship_index);
	default:
		return type >= TRANSHIP_HELLO && type < TRANSHIP_TYPES ? 0 : -1;
	}
}

static inline int tranship_reply_size(uint16_t type)
{
	switch (type) {
	case TRANSHIP_HELLO:
	case TRANSHIP_DESCRIBE:
		return sizeof(struct tranship_description);
	case TRANSHIP_REGION:
		return sizeof(struct tranship_region_info);
	case TRANSHIP_ARM:
		return sizeof(struct tranship_armed);
	default:
		return type >= TRANSHIP_HELLO && type < TRANSHIP_TYPES ? 0 : -1;
	}
}

/* Descriptors in a request and in a successful answer. */
static inline int tranship_request_fds(uint16_t type)
{
	return type == TRANSHIP_SAVE || type == TRANSHIP_LOAD;
}

static inline int tranship_reply_fds(uint16_t type)
{
	return type == TRANSHIP_REGION;
}

static inline void tranship_request(struct tranship_head *h, uint16_t type, uint32_t serial,
				    uint32_t size)
{
	memset(h, 0, sizeof(*h));
	h->magic = TRANSHIP_PROTO_MAGIC;
	h->version = TRANSHIP_PROTO_VERSION;
	h->type = type;
	h->serial = serial;
	h->size = size;
}

/*
 * The guard's whole part: this packet on the duplicated connection runs the guest on. The answer
 * has this serial; answers to what transhipd asked before it died may come first. Resuming a guest
 * that runs is answered with 0.
 */
static inline void tranship_request_resume(struct tranship_head *h)
{
	tranship_request(h, TRANSHIP_RESUME, TRANSHIP_SERIAL_GUARD, 0);
}

#endif
