// SPDX-License-Identifier: MIT
/*
 * Leading a benchmark; see bench_lead.h.
 *
 * Theory of operation
 *   The rows of a sweep are run one after another. With --reuse one set of streams carries all of
 *   them, else each row has streams, data planes and memory of its own, so that no row inherits
 *   another's congestion window or warm memory.
 *
 *   A row begins first where it is received, then where it is sent from, and has ended here when
 *   everything was acknowledged, or has arrived. The other side's figures are asked for then.
 *
 *   A cancel ends the row early on both sides: what was measured is kept and shown.
 */
#include "control/bench/bench_lead.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "control/failure_class.h"
#include "lib/base/clock.h"

/* How long a row may take beyond its time: what is under way must still arrive. */
#define GRACE_MS 20000u
#define STOP_MS	 15000u

struct leading {
	struct bench_lead *lead;
	struct bench_options o;
	struct bench_side near;
	struct bench_answer answer;
	struct bench_totals totals;
	json_t *result, *rows;
	json_t *going; /* the row that is under way, as it is shown */
	struct failure *f;
};

/* --- the other side's answer ------------------------------------------------------------------ */

/* It goes into results and on terminals: plain characters, and not half of one at the end. */
static void copy_text(char *to, size_t size, const json_t *j, const char *member)
{
	const char *text = json_string_value(json_object_get(j, member)) ?: "";

	snprintf(to, size, "%s", text);
	for (; *to; to++)
		if (*to < ' ' || *to > '~')
			*to = '?';
}

int bench_answer_from_json(struct bench_answer *a, const json_t *j)
{
	*a = (struct bench_answer){ .to.count = 0 };
	if (data_addresses_from_json(&a->to, json_object_get(j, "data")))
		return -EPROTO;
	copy_text(a->tx, sizeof(a->tx), j, "tx");
	copy_text(a->tx_reason, sizeof(a->tx_reason), j, "tx_reason");
	copy_text(a->rx_reason, sizeof(a->rx_reason), j, "rx");
	copy_text(a->congestion, sizeof(a->congestion), j, "congestion");
	return 0;
}

/* --- the result ------------------------------------------------------------------------------- */

const char *bench_status(const struct failure *f)
{
	if (!f || !failure_is_set(f))
		return "completed";
	switch (failure_class_of(f->code)) {
	case FAILURE_CANCELLED:
		return "cancelled";
	case FAILURE_USAGE:
	case FAILURE_NOT_FOUND:
	case FAILURE_CONFLICT:
	case FAILURE_REFUSED:
		return "refused";
	default:
		return "failed";
	}
}

static json_t *error_json(const struct failure *f)
{
	if (!f || !failure_is_set(f))
		return json_null();
	return json_pack("{s:s, s:s, s:s}", "code", f->code, "message", f->message, "hint",
			 f->hint);
}

json_t *bench_result_empty(const char *dest, const char *status, const struct failure *f)
{
	static const char *const unknown[] = {
		"tx",	   "tx_reason",	 "rx",	      "data",
		"streams", "congestion", "addresses", "memory_bytes"
	};
	struct bench_totals none = { 0 };
	json_t *j = json_pack("{s:n, s:s, s:s, s:s, s:s, s:s}", "id", "status", status, "dest",
			      dest ? dest : "", "transport", "tcp", "encrypt", "off", "compress",
			      "off");

	for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++)
		json_object_set_new(j, unknown[i], json_null());
	json_object_set_new(j, "rows", json_array());
	bench_result_totals(j, &none);
	json_object_set_new(j, "error", error_json(f));
	return j;
}

static void tell(struct leading *l)
{
	bench_result_totals(l->result, &l->totals);
	if (l->lead->news)
		l->lead->news(l->lead->arg, l->result);
}

/* What the streams turned out to be. */
static void describe(struct leading *l)
{
	bool sends = bench_options_forward(&l->o) > 0;
	bool receives = l->o.reverse || l->o.bidir;
	const struct bench_answer *a = &l->answer;
	json_t *j = l->result;
	char compress[16];

	json_object_set_new(j, "addresses", data_addresses_names(&a->to));
	json_object_set_new(j, "tx", json_string(sends ? bench_tx_name(l->near.ready.tx) : a->tx));
	json_object_set_new(j, "tx_reason",
			    json_string(sends ? l->near.ready.tx_reason : a->tx_reason));
	json_object_set_new(j, "rx",
			    json_string(receives ? l->near.ready.rx_reason : a->rx_reason));
	json_object_set_new(j, "congestion",
			    json_string(sends ? l->near.congestion : a->congestion));
	json_object_set_new(j, "streams", json_integer(l->o.streams));
	json_object_set_new(j, "compress", json_string(bench_compress_name(&l->o, compress)));
	json_object_set_new(j, "data", json_string(bench_data_name(l->o.data)));
	json_object_set_new(j, "memory_bytes", json_integer((json_int_t)l->o.memory));
	json_object_set_new(j, "fresh_memory", json_boolean(l->o.fresh));
	if (l->o.tos >= 0)
		json_object_set_new(j, "tos", json_integer(l->o.tos));
}

/* --- a row ------------------------------------------------------------------------------------ */

/* Shown while it goes on; the other side's part of it is not known yet. */
static void on_interval(void *arg, const struct ipc_bench_interval *i)
{
	struct leading *l = arg;
	json_t *j = bench_result_interval(i, NULL);

	/* a side that only receives has seen what arrived */
	if (!bench_options_forward(&l->o)) {
		struct ipc_bench_figures got = i->rx;

		got.zero_copy_bytes = got.retransmits = 0;
		bench_result_figures(j, &got, &i->rx);
		json_object_set_new(j, "tx_cpu_s_per_gb", json_null());
	}
	json_array_append_new(json_object_get(l->going, "intervals"), j);
	tell(l);
}

static bool cancelled(void *arg)
{
	struct bench_lead *lead = ((struct leading *)arg)->lead;

	return lead->cancelled && lead->cancelled(lead->arg);
}

static int run_both(struct leading *l, uint64_t size)
{
	struct bench_lead *lead = l->lead;
	int err = 0;

	if (l->o.reverse)
		err = bench_side_run(&l->near, size, l->f);
	if (!err)
		err = lead->far_ops->run(lead->far, l->f);
	if (!err && !l->o.reverse)
		err = bench_side_run(&l->near, size, l->f);
	return err;
}

/* The row is to end now; what it has measured stays. */
static int end_early(struct leading *l)
{
	struct bench_wait w = { .cancel_fd = -1,
				.deadline_ns = clock_ns() + STOP_MS * NSEC_PER_MSEC };
	int err = l->lead->far_ops->stop(l->lead->far, l->f);

	if (!err)
		err = bench_side_stop(&l->near, l->f);
	return err ? err : bench_side_wait(&l->near, &w, l->f);
}

static int check_verified(struct leading *l, const struct bench_account *far)
{
	uint64_t bad = l->near.account.done.mismatches + far->done.mismatches;

	if (!bad)
		return 0;
	return failure_set(l->f, -EBADMSG, "verify-mismatch", "This is a defect: report it.",
			   "%llu chunks of 2 MiB arrived otherwise than they were sent.",
			   (unsigned long long)bad);
}

static int run_row(struct leading *l, uint64_t size)
{
	uint64_t most_ms = l->o.time_ms ? l->o.omit_ms + l->o.time_ms + GRACE_MS : 0;
	struct bench_wait w = { .cancel_fd = l->lead->cancel_fd,
				.cancelled = cancelled,
				.interval = on_interval,
				.arg = l,
				.deadline_ns = most_ms ? clock_ns() + most_ms * NSEC_PER_MSEC : 0 };
	struct bench_account far = { .nintervals = 0 };
	bool gave_up = false;
	int err;

	l->going = json_pack("{s:I, s:[]}", "size", (json_int_t)size, "intervals");
	json_object_set_new(l->result, "running", l->going);
	err = run_both(l, size);
	if (!err)
		err = bench_side_wait(&l->near, &w, l->f);
	if (err == -ECANCELED && !failure_is_set(l->f)) {
		gave_up = true;
		err = end_early(l);
	}
	if (!err)
		err = l->lead->far_ops->result(l->lead->far, &far, l->f);
	json_object_del(l->result, "running");
	l->going = NULL;
	if (!err) {
		bench_result_rows(l->rows, &l->totals, &l->o, size, &l->near.account, &far);
		tell(l);
		err = check_verified(l, &far);
	}
	bench_account_clear(&far);
	if (!err && gave_up)
		err = failure_set(l->f, -ECANCELED, "cancelled", NULL,
				  "The benchmark was cancelled.");
	return err;
}

/* --- all -------------------------------------------------------------------------------------- */

static int new_secrets(struct bench_opening *o, struct failure *f)
{
	if (getrandom(o->id, sizeof(o->id), 0) != sizeof(o->id) ||
	    getrandom(o->secret, sizeof(o->secret), 0) != sizeof(o->secret))
		return failure_set(f, -EIO, "internal", NULL, "no random numbers");
	return 0;
}

/* Streams for the rows [first, first + count). */
static int run_group(struct leading *l, const struct bench_options *all, uint32_t first,
		     uint32_t count)
{
	struct bench_lead *lead = l->lead;
	struct bench_opening opening = { .o = &l->o };
	json_t *options = json_copy((json_t *)lead->options);
	int err = new_secrets(&opening, l->f);

	l->o = *all;
	l->o.nsizes = count;
	memcpy(l->o.sizes, all->sizes + first, count * sizeof(l->o.sizes[0]));
	if (!all->reuse && l->o.sizes[0])
		json_object_set_new(options, "size",
				    json_sprintf("%llu", (unsigned long long)l->o.sizes[0]));
	opening.options = options;
	l->near = (struct bench_side){ .dp = DATAPLANE_NONE };
	if (!err)
		err = lead->far_ops->open(lead->far, &opening, &l->answer, l->f);
	if (!err)
		err = bench_side_connect(&l->near, lead->config, &l->o, opening.id, opening.secret,
					 &l->answer.to, lead->cancel_fd, l->f);
	explicit_bzero(opening.secret, sizeof(opening.secret));
	if (!err)
		describe(l);
	for (uint32_t i = 0; !err && i < count; i++)
		err = run_row(l, l->o.sizes[i]);
	bench_side_end(&l->near);
	lead->far_ops->close(lead->far);
	json_decref(options);
	return err;
}

int bench_lead(struct bench_lead *lead, json_t **result, struct failure *f)
{
	struct leading l = { .lead = lead, .f = f, .result = NULL };
	struct bench_options all;
	int err;

	l.result = bench_result_empty(lead->dest, "running", NULL);
	l.rows = json_object_get(l.result, "rows");
	err = bench_options_read(&all, lead->options, f);
	for (uint32_t i = 0; !err && i < all.nsizes; i += all.reuse ? all.nsizes : 1)
		err = run_group(&l, &all, i, all.reuse ? all.nsizes : 1);
	/* a cancel while it was being set up */
	if (err == -ECANCELED)
		failure_set(f, err, "cancelled", NULL, "The benchmark was cancelled.");
	bench_result_totals(l.result, &l.totals);
	json_object_del(l.result, "running");
	json_object_set_new(l.result, "status", json_string(bench_status(err ? f : NULL)));
	json_object_set_new(l.result, "error", error_json(err ? f : NULL));
	*result = l.result;
	return err;
}
