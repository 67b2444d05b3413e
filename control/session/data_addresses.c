// SPDX-License-Identifier: MIT
/* Where data streams reach a host; see data_addresses.h. */
#include "control/session/data_addresses.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "control/session/sockets.h"

int data_addresses_listen(const struct config *c, bool all, struct data_addresses *out,
			  int fds[IPC_LISTENERS_MAX], struct failure *f)
{
	uint32_t n = c->ndata_addresses ? c->ndata_addresses : 1;
	int err = 0;

	*out = (struct data_addresses){ .count = 0 };
	for (uint32_t i = 0; i < IPC_LISTENERS_MAX; i++)
		fds[i] = -1;
	for (uint32_t i = 0; !(err && all) && i < n && i < IPC_LISTENERS_MAX; i++) {
		uint32_t at = out->count;

		failure_clear(f);
		snprintf(out->address[at], sizeof(out->address[at]), "%s",
			 c->ndata_addresses ? c->data_addresses[i] : c->data_address);
		err = sockets_listen(out->address[at], c->data_port_lo, c->data_port_hi, &fds[at],
				     &out->port[at], f);
		out->count += !err;
	}
	if (err && (all || !out->count))
		return err;
	failure_clear(f);
	return 0;
}

json_t *data_addresses_json(const struct data_addresses *a)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < a->count; i++)
		json_array_append_new(list, json_pack("{s:s, s:i}", "address", a->address[i],
						      "port", (int)a->port[i]));
	return list;
}

int data_addresses_from_json(struct data_addresses *a, const json_t *list)
{
	size_t n = json_array_size(list);

	*a = (struct data_addresses){ .count = 0 };
	if (!n || n > IPC_LISTENERS_MAX)
		return -EPROTO;
	for (size_t i = 0; i < n; i++) {
		const json_t *at = json_array_get(list, i);
		const char *address = json_string_value(json_object_get(at, "address"));
		json_int_t port = json_integer_value(json_object_get(at, "port"));

		if (!address || strlen(address) >= sizeof(a->address[i]) || port < 1 ||
		    port > UINT16_MAX)
			return -EPROTO;
		snprintf(a->address[i], sizeof(a->address[i]), "%s", address);
		a->port[i] = (uint16_t)port;
	}
	a->count = (uint32_t)n;
	return 0;
}

int data_addresses_from_answer(struct data_addresses *a, const json_t *data)
{
	const json_t *all = json_object_get(data, "addresses");
	json_t *one;
	int err;

	if (all)
		return data_addresses_from_json(a, all);
	one = json_pack("[O?]", data);
	err = data_addresses_from_json(a, one);
	json_decref(one);
	return err;
}

json_t *data_addresses_names(const struct data_addresses *a)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < a->count; i++)
		json_array_append_new(list, json_string(a->address[i]));
	return list;
}
