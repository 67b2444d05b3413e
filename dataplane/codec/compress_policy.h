/* SPDX-License-Identifier: MIT */
/*
 * Whether to compress, and how hard: decided anew for every epoch from what the last one measured.
 * Pure: no clock, no lock, no system call.
 *
 * Theory of operation
 *   What counts is how fast guest data gets across, T. Without compression that is the link's (or
 *   the processors') rate R, whatever the data is. Encoders that make E bytes of guest data a
 *   second smaller by the ratio q let the link carry min(q R, R + E (1 - 1/q)): all of it encoded
 *   if they keep up with the link, else what they manage, and raw bytes beside it. But both hosts
 *   pay for it with processors, which may be what the streams are short of, or the guest. So:
 *
 *   RAW    R is measured. When the formula, with what processors are idle now (encoders have the
 *          lowest priority, so of busy ones they get a tenth), promises a tenth more, TRIAL.
 *   TRIAL  encoders and streams side by side, for an epoch or two. T above R: ON. Otherwise RAW,
 *          and the next trial waits twice as long as the last did. A session begins with one if
 *          its link is known to be slow, with RAW otherwise: raw bytes cost a slow link a fraction
 *          of a second once, and a trial a fast link a tenth of a short migration.
 *   ON     as long as T stays above R. R is measured again by an epoch of CHECK: when T has fallen
 *          to the R of before, and now and then (at twice the interval each time), unless the link
 *          is the limit for certain and slow.
 *
 *   ON has rungs, levels of zstd. Encoders that wait for the link half of their time may take more
 *   of it: the next rung is tried, and kept if T rises. Streams wait for encoders (`only`) while
 *   these are faster than the link, for then raw bytes only take their place on it.
 *
 *   Content that does not compress ends ON and TRIAL like a T that is too low.
 *
 *   Epochs in which too little got across are added up until there is enough to judge by.
 */
#ifndef TRANSHIP_DATAPLANE_COMPRESS_POLICY_H
#define TRANSHIP_DATAPLANE_COMPRESS_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define COMPRESS_RUNGS 4

/* One epoch, all streams and encoders together. Bytes are of guest memory unless wire or out. */
struct compress_sample {
	uint64_t ns;
	uint64_t raw;	      /* sent as they are */
	uint64_t in;	      /* sent encoded */
	uint64_t empty;	      /* described without payload: zeros and holes */
	uint64_t wire;	      /* sent in all */
	uint64_t tried;	      /* that encoders worked at */
	uint64_t shrunk, out; /* of them, encoded; into so much */
	uint64_t cpu_ns;      /* of encoders */
	uint64_t waited_ns;   /* of encoders, for streams to take what is ready */
	uint64_t sending_ns;  /* of streams, in sending */
	uint64_t blocked_ns;  /* of streams, in sending, beyond their processor time */
	uint64_t idle_ns;     /* of all processors; COMPRESS_UNKNOWN */
	uint32_t streams, workers;
};

#define COMPRESS_UNKNOWN UINT64_MAX

enum compress_state { COMPRESS_RAW, COMPRESS_TRIAL, COMPRESS_ON, COMPRESS_CHECK };

struct compress_rung {
	double speed; /* guest bytes a second of an encoder's processor time */
	double ratio;
};

struct compress_policy {
	enum compress_state state;
	uint64_t limit;		    /* bytes a second, 0: none */
	struct compress_sample sum; /* epochs that are too little to judge by, yet */
	uint64_t now_ns;	    /* of epochs, added up */
	double raw_rate;	    /* R, bytes a second; 0: not known */
	double rate;		    /* T, lately */
	double link_rate;	    /* of the wire, lately, while something was being sent */
	double wire_rate;	    /* lately, any state */
	double idle;		    /* processors, lately; negative: not known */
	uint32_t epochs;	    /* in this state */
	uint64_t retry_ns;	    /* no trial before */
	uint64_t backoff_ns;
	uint64_t check_ns; /* when R is measured again */
	uint64_t check_interval_ns;
	uint32_t useless; /* epochs in a row in which nothing shrank */
	bool only;

	uint32_t rung, top;
	struct compress_rung rungs[COMPRESS_RUNGS];
	double rate_before;    /* T on the rung below, while this one is on probation; else 0 */
	double probation_rate; /* T since, summed */
	uint64_t climb_ns, climb_backoff_ns;
	uint32_t changes; /* of what is done, trials and checks included */
};

struct compress_choice {
	bool on, only;
	int level; /* of zstd */
};

/* limit: bytes a second that may be sent, 0: any. */
void compress_policy_init(struct compress_policy *p, uint64_t limit);

/* Takes an epoch into account and says how the next one goes. */
struct compress_choice compress_policy_step(struct compress_policy *p,
					    const struct compress_sample *s);
/* As the policy has it now. */
struct compress_choice compress_policy_choice(const struct compress_policy *p);

/* The limit has changed: what was measured of the link is void. */
void compress_policy_link_changed(struct compress_policy *p, uint64_t limit);

/* How long the next epoch should be. */
uint64_t compress_policy_epoch_ns(const struct compress_policy *p);

/*
 * Whether a round of so many bytes is over before compressing it would have paid: raw, then, and
 * nobody is woken.
 */
bool compress_policy_round_is_small(const struct compress_policy *p, uint64_t bytes);

#endif
