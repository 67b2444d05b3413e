/* SPDX-License-Identifier: MIT */
/*
 * What transhipd and its data-plane process say to each other.
 *
 * Theory of operation
 *   One SOCK_SEQPACKET socketpair a data plane; one message a packet: struct ipc_head, then the
 *   body that its type names, then nothing. Both ends come from one build on one host, so bodies
 *   are plain structs; their sizes are checked on receipt (ipc_recv), and transhipd believes
 *   nothing else of what a data plane says, for the data plane parses bytes from the network.
 *
 *   Descriptors ride with the message that names them and belong to the receiver.
 *
 *   The data plane starts unconfined, takes IPC_CONFIG, regions, mappings, tracker, streams and
 *   state, and drops every privilege at IPC_START, before a byte from the network is read.
 *
 *   Source                                        Destination
 *   CONFIG REGION* MAPPING* TRACKER STREAM*        CONFIG REGION* LISTEN
 *   START                     -> READY            START                  -> READY
 *                                                 (all streams came)     -> CONNECTED
 *   SCAN / SEND(n) CUT?, again -> SCANNED / SENT
 *   STATE (fd), STATE_END     -> STATE_DONE       (device state came)    -> STATE_DONE
 *                                                 LOAD (fd)              -> LOADED
 *   VERIFY                    -> VERIFIED         (hashes compared)      -> VERIFIED
 *   QUIT, or the socket ends: the process exits.
 *
 *   Post-copy (postcopy.h). The pre-copy data planes, at the switch-over:
 *   HAND_OVER -> HANDED_OVER                       MISSING (fd); the set came -> HANDED_OVER
 *   A pair of their own serves then, and is begun anew when one of them or the link is lost:
 *   CONFIG REGION* STREAM*                         CONFIG REGION* MAPPING* UFFD MISSING LISTEN
 *   START -> READY                                 START -> READY, CONNECTED
 *                                                  SERVE -> SERVING
 *   -> POSTCOPY*, COMPLETE                         -> POSTCOPY*, COMPLETE
 *
 *   A bench (bench.h): both sides take BENCH_RUN -> BENCH_INTERVAL*, BENCH_DONE, again.
 *   PROGRESS and FAILED may come at any time after READY. After FAILED only QUIT makes sense.
 *
 *   The order of a copy is transhipd's to give: SCAN reports and re-arms what was written (armed
 *   before read, always), SEND transmits all that is pending and ends with the acknowledgement of
 *   every stream. Guest pages written after the SCAN that reported them are dirty again.
 *
 *   CUT ends a SEND early: what no stream has taken yet stays pending, what has been taken is sent
 *   and acknowledged, and SENT follows as always. A first SEND, which owes what was never
 *   populated, goes on to its end; a CUT that comes when no SEND is under way is too late, and
 *   nothing.
 */
#ifndef TRANSHIP_DATAPLANE_IPC_H
#define TRANSHIP_DATAPLANE_IPC_H

#include <stdbool.h>
#include <stdint.h>

#include "lib/base/failure.h"

#define IPC_REGIONS_MAX	     256   /* RAM regions (memory backends) of one guest */
#define IPC_MAPPINGS_MAX     65536 /* VMAs over all regions */
#define IPC_STREAMS_MAX	     64
#define IPC_SECRET_SIZE	     32
#define IPC_LISTENERS_MAX    8 /* addresses that streams may come to */
#define IPC_CPUS_MAX	     64
#define IPC_BENCH_MEMORY_MAX (16ull << 30)
#define IPC_ID_SIZE	     16

enum ipc_type {
	/* transhipd -> data plane */
	IPC_CONFIG = 1, /* struct ipc_config; first message */
	IPC_REGION,	/* struct ipc_region; fd: the RAM file, read-only at the source */
	IPC_MAPPING,	/* struct ipc_mapping; source: where the guest's VMM maps a region */
	IPC_TRACKER,	/* struct ipc_tracker; fd: /proc/PID/pagemap where the kind needs it */
	IPC_STREAM,	/* struct ipc_stream; source; fd: a connected socket */
	IPC_LISTEN,	/* no body; destination; fd: a listening socket */
	IPC_START,	/* no body */
	IPC_LIMIT,	/* struct ipc_limit; at any time */
	IPC_SCAN,	/* struct ipc_scan */
	IPC_SEND,	/* struct ipc_send */
	IPC_STATE,	/* no body; source; fd: the stream that QEMU writes device state to.
			 * From now on it is relayed to the destination as it comes. */
	IPC_STATE_END,	/* no body; source: no more state comes; wait for its end and flush */
	IPC_LOAD,	/* no body; destination; fd: write the held device state there, close it */
	IPC_VERIFY,	/* no body; source: hash all RAM and have the destination compare */
	IPC_QUIT,	/* no body */
	IPC_BENCH =
		32, /* struct ipc_bench; bench, after CONFIG; fd: the file whose bytes are sent */
	IPC_BENCH_RUN,	/* struct ipc_bench_run */
	IPC_BENCH_STOP, /* no body; what this side sends ends early */
	IPC_HAND_OVER =
		40, /* no body; source: says what is pending to the destination, sends none of it */
	IPC_MISSING, /* no body; destination; fd: file for what is missing, see page_set.h */
	IPC_UFFD,    /* no body; post-copy destination; fd: the VMM's userfaultfd, registered */
	IPC_SERVE,   /* no body; post-copy destination: the set of what is missing is final */
	IPC_CUT,     /* no body; source: the round under way is to end soon, see above */

	/* data plane -> transhipd */
	IPC_READY = 64, /* struct ipc_ready; confined; source: all streams authenticated */
	IPC_CONNECTED,	/* no body; destination: all streams authenticated, listener closed */
	IPC_SCANNED,	/* struct ipc_scanned */
	IPC_SENT,	/* struct ipc_sent */
	IPC_STATE_DONE, /* struct ipc_count: bytes of device state relayed / held */
	IPC_LOADED,	/* struct ipc_count: bytes written to the VMM */
	IPC_VERIFIED,	/* struct ipc_verified */
	IPC_PROGRESS,	/* struct ipc_stats; about every 100 ms while something moves */
	IPC_FAILED,	/* struct failure */
	IPC_BENCH_INTERVAL = 96, /* struct ipc_bench_interval; while a run is under way */
	IPC_BENCH_DONE,		 /* struct ipc_bench_done; its end */
	IPC_HANDED_OVER =
		104,  /* struct ipc_count: pages; at both sides: the set is there, durably */
	IPC_SERVING,  /* no body; post-copy destination: faults are served from now on */
	IPC_POSTCOPY, /* struct ipc_postcopy; about every 100 ms while something moves */
	IPC_COMPLETE, /* struct ipc_postcopy: nothing is missing any more */
};

enum ipc_role {
	IPC_ROLE_SOURCE = 1,
	IPC_ROLE_DESTINATION,
	IPC_ROLE_OBSERVER,
	IPC_ROLE_BENCH_SOURCE,	    /* connects: CONFIG BENCH STREAM* START */
	IPC_ROLE_BENCH_DESTINATION, /* is connected to: CONFIG BENCH LISTEN+ START */
	IPC_ROLE_POSTCOPY_SOURCE,
	IPC_ROLE_POSTCOPY_DESTINATION,
	IPC_ROLE_END,
};
/* An observer only scans: dirty-rate. It needs CONFIG REGION* MAPPING* TRACKER START. */

enum ipc_tx { IPC_TX_AUTO, IPC_TX_SENDFILE, IPC_TX_URING, IPC_TX_SEND };
enum ipc_tracker_kind { IPC_TRACKER_NONE, IPC_TRACKER_PAGEMAP };
enum ipc_compress { IPC_COMPRESS_OFF, IPC_COMPRESS_AUTO, IPC_COMPRESS_ZSTD };

/* Encodings of pages (wire.h) beyond the plain ones, as agreed between the two hosts. */
#define IPC_ENCODING_ZSTD  1u
#define IPC_ENCODING_DELTA 2u

struct ipc_head {
	uint32_t type; /* enum ipc_type */
	uint32_t size; /* of the body that follows, bytes */
};

struct ipc_config {
	uint32_t role;	  /* enum ipc_role */
	uint32_t regions; /* how many IPC_REGION will come */
	uint32_t streams; /* how many data streams */
	uint32_t tx;	  /* enum ipc_tx; source */
	uint8_t id[IPC_ID_SIZE];
	uint8_t secret[IPC_SECRET_SIZE];
	uint64_t rate_limit;   /* bytes per second over all streams; 0: none; source */
	uint32_t scan_threads; /* 0: chosen from size and processors */
	uint32_t track_dma; /* 1: keep what was reported since the last barrier (design, hazards) */
	uint32_t thp;	    /* destination: 1: transparent huge pages where they serve */
	uint32_t encodings; /* IPC_ENCODING_*: what may be sent, and is accepted */
	uint32_t compress;  /* enum ipc_compress; source, bench; with IPC_ENCODING_ZSTD or OFF */
	uint32_t level;	    /* of zstd, 1 .. 22; source, bench; with IPC_COMPRESS_ZSTD */
	uint64_t delta_cache; /* bytes; 0: no DELTA is sent; source; needs IPC_ENCODING_DELTA */
	uint64_t page_hashes; /* bytes, of RAM in huge pages; 0: chosen; below 4096: none; source */
	uint64_t state_max;   /* destination: most bytes of device state it will hold */
	uint32_t connect_ms;  /* how long streams may take to come and authenticate */
	uint32_t log_level;   /* enum log_level */
};

struct ipc_region {
	uint32_t index;	      /* 0 .. regions-1; the same on both sides */
	uint32_t page_size;   /* of the backing: 4096, 2 MiB, 1 GiB */
	uint64_t size;	      /* bytes; a multiple of page_size */
	uint64_t file_offset; /* where the region starts in the file */
	uint32_t hugetlb;     /* 1: hugetlbfs (no sendfile, no pwrite, no SEEK_DATA) */
	uint32_t reserved;
};

struct ipc_mapping {
	uint32_t region;
	uint32_t reserved;
	uint64_t start, end;	/* virtual addresses in the VMM */
	uint64_t region_offset; /* bytes from the region's start */
};

struct ipc_tracker {
	uint32_t kind; /* enum ipc_tracker_kind */
	uint32_t kvm;  /* 1: the VMM runs its guest by KVM; see tracker.h */
};

struct ipc_stream {
	uint32_t index; /* 0 .. streams-1 */
	uint32_t reserved;
};

struct ipc_limit {
	uint64_t rate_limit; /* bytes per second; 0: none */
};

#define IPC_SCAN_FIRST	 1u /* arm everything and take what to send from the file's extents */
#define IPC_SCAN_BARRIER 2u /* the guest is stopped and its block I/O drained */
#define IPC_SCAN_OBSERVE 4u /* observer: count, keep nothing pending */
#define IPC_SCAN_PERIODS 8u /* observer: count by doublings of the time between scans, too */
#define IPC_PERIODS_MAX	 12
#define IPC_PLACES	 16

struct ipc_scan {
	uint32_t flags;
	uint32_t reserved;
};

enum { IPC_SEND_DEFER = 1 }; /* leave pages for later that were written again meanwhile */

struct ipc_send {
	uint32_t round; /* numbered from 1 */
	uint32_t flags;
};

struct ipc_ready {
	uint32_t tx;	    /* enum ipc_tx that was chosen; source */
	uint32_t tracker;   /* enum ipc_tracker_kind */
	char tx_reason[96]; /* why this one */
	char rx_reason[96]; /* destination: the placement strategy and why */
};

struct ipc_scanned {
	uint64_t dirty_pages;	 /* 4 KiB pages reported by this scan */
	uint64_t pending_pages;	 /* to be sent, after this scan */
	uint64_t pending_chunks; /* in which they lie */
	uint64_t union_pages;	 /* reported at least once since the first scan: working set */
	uint64_t since_ns;	 /* time since the scan before; 0 for the first */
	uint64_t scan_ns;	 /* duration of the scan */
	/* With IPC_SCAN_PERIODS. [k]: reported in the last 2^k scans, if so many are complete. */
	uint64_t period_pages[IPC_PERIODS_MAX];
	/* Likewise of the first scan: what the files hold, and of a sample how much is zero. */
	uint64_t populated_pages, sampled_pages, sampled_zero_pages;
	/*
	 * Of the sampled pages that held data, in the order of a pass: how many of each part have
	 * been reported since the first scan.
	 */
	uint32_t written_places[IPC_PLACES];
};

/* Cumulative since the start; bytes of guest memory unless wire_ is in the name. */
struct ipc_stats {
	uint64_t sent_pages;	/* pages described to the destination, all encodings */
	uint64_t pending_pages; /* still to be sent in this round */
	uint64_t zero_bytes;
	uint64_t hole_bytes;
	uint64_t raw_bytes;
	uint64_t same_bytes;	  /* not sent: recognised as what the destination has */
	uint64_t deferred_bytes;  /* not sent: written again before their turn */
	uint64_t zero_copy_bytes; /* of raw_bytes, sent by reference */
	uint64_t zstd_in_bytes, zstd_out_bytes;
	uint64_t delta_in_bytes, delta_out_bytes;
	uint64_t encode_cpu_ns;	 /* of cpu_ns, spent encoding */
	uint32_t encode_changes; /* how often the way of compressing was changed */
	uint32_t encode_level;	 /* of zstd, at present; 0: nothing is compressed */
	uint64_t wire_bytes;	 /* all bytes on the streams, headers and state included */
	uint64_t state_bytes;	 /* device state */
	uint64_t cpu_ns;	 /* of this process, user and system */
	uint64_t rss_bytes;	 /* of this process without RAM mappings (RssAnon) */
};

enum { IPC_SENT_CUT = 1 }; /* not all that was pending: CUT came in time */

struct ipc_sent {
	uint32_t round;
	uint32_t flags;
	uint64_t pages;	     /* sent in this round, all encodings */
	uint64_t wire_bytes; /* of this round */
	uint64_t ns;	     /* from the first byte to the last acknowledgement */
	struct ipc_stats total;
};

struct ipc_count {
	uint64_t bytes; /* HANDED_OVER: pages */
};

/*
 * Cumulative. At the destination over all data planes of the session, since it is kept in the file
 * of IPC_MISSING; at the source since its start.
 */
struct ipc_postcopy {
	uint64_t missing_pages;		 /* not there yet */
	uint64_t faults;		 /* pages asked of the source because somebody waited */
	uint64_t local_faults;		 /* faults on pages that were there already */
	uint64_t p50_ns, p99_ns, max_ns; /* destination: from reading a fault to CONTINUE */
	uint64_t demand_pages, push_pages;
	uint64_t late_pages; /* came twice; the second went nowhere */
	/* destination: from the last page that came before a loss until faults were served again */
	uint64_t interruptions, interrupted_ns;
};

struct ipc_verified {
	uint64_t chunks;       /* compared */
	uint64_t mismatches;   /* chunks that differ */
	uint32_t first_region; /* of the first mismatch */
	uint32_t reserved;
	uint64_t first_offset; /* bytes in that region */
};

enum ipc_bench_data { IPC_BENCH_ZERO, IPC_BENCH_TEXT, IPC_BENCH_RANDOM, IPC_BENCH_FILE };
enum ipc_bench_place { IPC_BENCH_PLACE_AUTO, IPC_BENCH_PLACE_MAP, IPC_BENCH_PLACE_PWRITE };

/* What all runs of a bench have in common; see bench.h. */
struct ipc_bench {
	uint64_t memory;  /* bytes on this side, shared out among its streams */
	uint32_t forward; /* streams 0 .. forward-1 carry data from source to destination, */
	uint32_t data;	  /* the others the other way; enum ipc_bench_data of what is sent here */
	uint32_t place;	  /* enum ipc_bench_place */
	uint32_t fresh;	  /* 1: received into memory that does not exist yet, again and again */
	uint32_t verify;  /* 1: everything is compared with what was sent; as at the other side */
	uint32_t ncpus;
	uint16_t cpus[IPC_CPUS_MAX]; /* stream i's thread runs on cpus[i % ncpus] */
	char far_congestion[16];     /* of accepted streams whose peer is not near; "": none else */
};

#define IPC_BENCH_LATENCY 1u /* single messages, each waited for */

struct ipc_bench_run {
	uint32_t number; /* from 1 */
	uint32_t flags;
	uint64_t size;	      /* bytes of a message; 0, of a latency run: a header alone */
	uint64_t time_ns;     /* that count, after omit_ns; 0: no limit */
	uint64_t bytes;	      /* over all streams of a direction; 0: no limit */
	uint64_t omit_ns;     /* not counted at the start */
	uint64_t interval_ns; /* 0: no intervals */
	uint64_t rate_limit;  /* bytes per second over all that this side sends; 0: none */
};

/* What this side did in one direction. Bytes are of messages unless wire_ is in the name. */
struct ipc_bench_figures {
	uint64_t ns, bytes, wire_bytes, zero_copy_bytes, cpu_ns, retransmits;
};

struct ipc_bench_interval {
	uint32_t number;	   /* of the run */
	uint32_t index;		   /* from 0 */
	uint64_t start_ns, end_ns; /* from the start of what counts */
	struct ipc_bench_figures tx, rx;
};

struct ipc_bench_latency {
	uint64_t count, min, p50, p99, p99_9, max; /* nanoseconds */
};

struct ipc_bench_done {
	uint32_t number;
	uint32_t reserved;
	struct ipc_bench_figures tx, rx;
	struct ipc_bench_latency latency; /* of what this side has sent */
	uint64_t verified, mismatches;	  /* chunks sent from here: compared, and of them unequal */
};

/* Large enough for every body. */
union ipc_body {
	struct ipc_config config;
	struct ipc_region region;
	struct ipc_mapping mapping;
	struct ipc_tracker tracker;
	struct ipc_stream stream;
	struct ipc_limit limit;
	struct ipc_scan scan;
	struct ipc_send send;
	struct ipc_ready ready;
	struct ipc_scanned scanned;
	struct ipc_stats stats;
	struct ipc_sent sent;
	struct ipc_count count;
	struct ipc_verified verified;
	struct failure failure;
	struct ipc_bench bench;
	struct ipc_bench_run bench_run;
	struct ipc_bench_interval bench_interval;
	struct ipc_bench_done bench_done;
	struct ipc_postcopy postcopy;
};

struct ipc_message {
	struct ipc_head head;
	union ipc_body body;
};

/*
 * Sends one message; body may be NULL when the type has none; fd may be -1 and stays the caller's.
 * Thread-safe (one packet is one sendmsg). 0 or -errno (-EPIPE, -ECONNRESET: the peer is gone).
 */
int ipc_send(int sock, enum ipc_type type, const void *body, int fd);

/*
 * Receives one message. timeout_ms < 0 waits for ever. *fd is the descriptor that came, or -1; it
 * is the caller's. Strings in the body are terminated. 0; -ETIMEDOUT; -ECONNRESET at the end;
 * -EBADMSG when the type is unknown, the size is not the type's, or a descriptor is missing or
 * superfluous.
 */
int ipc_recv(int sock, struct ipc_message *m, int *fd, int timeout_ms);

/* The body's size of a type, or -1 if the type is unknown. */
int ipc_body_size(uint32_t type);
/* True if a message of this type carries a descriptor. IPC_TRACKER may do without (kind NONE). */
bool ipc_carries_fd(uint32_t type);
const char *ipc_type_name(uint32_t type);

#endif
