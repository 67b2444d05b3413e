/* SPDX-License-Identifier: MIT */
/*
 * A simulator's model and goals as JSON: what `tranship predict --model FILE` reads. The members
 * are in tranship(1), MODELS; every one is checked, and none that is not known is passed over.
 */
#ifndef TRANSHIP_CONTROL_MODEL_H
#define TRANSHIP_CONTROL_MODEL_H

#include <jansson.h>

#include "control/policy/simulator.h"
#include "lib/base/failure.h"

struct model {
	char name[128];
	struct simulator_model sim;
	struct policy_goals goals;
};

/*
 * j: the object. -EINVAL with f (usage): the member, what is wrong with it, what it should be.
 * *out is then undefined.
 */
int model_read(struct model *out, const json_t *j, struct failure *f);

/* The same from a file. */
int model_load(struct model *out, const char *path, struct failure *f);

/* The i-th member as "section.name", or NULL beyond the last; for documentation and tests. */
const char *model_member(unsigned int i, char *buf, size_t size);

#endif
