// SPDX-License-Identifier: MIT
/*
 * Judging what a VM is connected to: -chardev and its short forms, -netdev, -nic, -display.
 *
 * No descriptor and no command of the source's host is taken over. What listens must be new here,
 * and never waits for its client, for nobody would come before the VM runs.
 */
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/admission/launch_paths.h"
#include "control/admission/launch_rules.h"

#define INHERITED "is a descriptor that the source's launcher opened"

static const struct launch_rule chardev_rules[] = {
	{ "backend|id|mux|signal|chardev|size|name|debug|mouse|clipboard", NULL, NULL },
	{ "width|height|cols|rows", NULL, NULL },
	{ "path|append|logfile|logappend", launch_value_any, NULL }, /* judged together below */
	{ "server|wait|telnet|tn3270|websocket|reconnect|reconnect-ms|delay|nodelay", NULL, NULL },
	{ "host|port|to|ipv4|ipv6|localaddr|localport|abstract|tight|keep-alive|mptcp", NULL,
	  NULL },
	{ "fd|fds|fdset", launch_value_refused, INHERITED },
	{ "tls-*", launch_value_refused, "names secrets, which stay on their host" },
	{ NULL, NULL, NULL },
};

static const struct {
	const char *backends, *refused;
} chardevs[] = {
	{ "null|pty|stdio|ringbuf|memory|vc|gtk|mux|msmouse|socket|udp|file", NULL },
	{ "spicevmc|spiceport|qemu-vdagent|wctablet|dbus|hub", NULL },
	{ "serial|tty|parallel|parport|braille|console", "a device of the host is not moved" },
	{ "pipe", "its other end is another process, which is not moved" },
	{ "testdev", "it lets the guest end QEMU" },
};

/* A file that QEMU writes: anew, or at the end of the one that is there. Never over what is there.
 */
static int output_file(struct launch_context *c, const char *path, bool append)
{
	const char *why;

	if (append && !launch_path_append(c->config, path, &why))
		return 0;
	return launch_plan_new_path(c, path);
}

static int listens(struct launch_context *c, struct launch_props *p)
{
	const char *path = launch_props_get(p, "path");
	const char *id = launch_props_get(p, "id");

	if (path && !launch_props_on(p, "abstract")) {
		int rc = launch_plan_new_path(c, path);

		if (rc)
			return rc;
		c->listening = c->created.list[c->created.n - 1];
		if (id && !launch_props_on(p, "telnet") && !launch_props_on(p, "websocket") &&
		    (launch_words_add(&c->socket_ids, id) ||
		     launch_words_add(&c->socket_paths, path)))
			return launch_no_memory(c);
	}
	return launch_props_set(p, "wait", "off") ? launch_no_memory(c) : 0;
}

static int chardev_socket(struct launch_context *c, struct launch_props *p)
{
	const char *path = launch_props_get(p, "path");
	const char *why;

	if (launch_props_on(p, "server"))
		return listens(c, p);
	if (path && launch_props_on(p, "abstract"))
		return launch_refuse(c, NULL,
				     "it connects to another program on the source's host");
	if (path && launch_path_connect(c->config, path, &why))
		return launch_refuse(c, NULL, "%s", why);
	return 0;
}

static int judge_chardev(struct launch_context *c, const char *backend, struct launch_props *p)
{
	const char *log = launch_props_get(p, "logfile");
	const char *path = launch_props_get(p, "path");
	const size_t count = sizeof(chardevs) / sizeof(chardevs[0]);
	size_t i = 0;
	int rc = launch_check_props(c, p, chardev_rules);

	if (rc)
		return rc;
	while (i < count && !(backend && launch_matches(chardevs[i].backends, backend)))
		i++;
	if (i == count)
		return launch_refuse(c, NULL, "this backend is not on the list of what is allowed");
	if (chardevs[i].refused)
		return launch_refuse(c, NULL, "%s", chardevs[i].refused);
	if (log && (rc = output_file(c, log, launch_props_on(p, "logappend"))))
		return rc;
	if (!strcmp(backend, "socket"))
		return chardev_socket(c, p);
	if (!strcmp(backend, "file"))
		return path ? output_file(c, path, launch_props_on(p, "append"))
			    : launch_refuse(c, NULL, "it has no path");
	return path ? launch_refuse(c, NULL, "this backend takes no path") : 0;
}

int launch_chardev(struct launch_context *c, struct launch_props *p)
{
	return judge_chardev(c, launch_props_get(p, "backend"), p);
}

/* "PREFIX:first,key=value": judged as -chardev, written back behind the prefix. */
static int short_socket(struct launch_context *c, char **value, size_t skip, const char *implied)
{
	struct launch_props p;
	char *text = NULL, *whole = NULL;
	int rc = launch_props_parse(&p, *value + skip, implied, false);

	if (rc || !p.bare)
		rc = launch_refuse(c, NULL, "it is malformed");
	else if (strcmp(implied, "path") &&
		 (launch_props_get(&p, "path") || strchr(p.list[0].value, ',')))
		rc = launch_refuse(c, NULL,
				   "its address is malformed"); /* no doubled commas here */
	else
		rc = judge_chardev(c, "socket", &p);
	if (!rc) {
		text = launch_props_text(&p);
		if (text && asprintf(&whole, "%.*s%s", (int)skip, *value, text) >= 0) {
			free(*value);
			*value = whole;
		} else {
			rc = launch_no_memory(c);
		}
		free(text);
	}
	launch_props_release(&p);
	return rc;
}

/* What -serial, -monitor and the like take instead of a -chardev. */
int launch_chardev_short(struct launch_context *c, char **value)
{
	static const char *const sockets[] = { "tcp:", "telnet:", "tn3270:", "websocket:" };
	size_t mux = strncmp(*value, "mon:", 4) ? 0 : 4;
	const char *what = *value + mux;

	if (launch_matches("none|null|pty|stdio|vc|vc:*|msmouse|wctablet", what) ||
	    !strncmp(what, "chardev:", 8))
		return launch_plain(c, value);
	if (!strncmp(what, "unix:", 5))
		return short_socket(c, value, mux + 5, "path");
	for (size_t i = 0; i < sizeof(sockets) / sizeof(sockets[0]); i++)
		if (!strncmp(what, sockets[i], strlen(sockets[i])))
			return short_socket(c, value, mux + strlen(sockets[i]), "host");
	if (!strncmp(what, "udp:", 4))
		return launch_plain(c, value);
	if (!strncmp(what, "file:", 5))
		return output_file(c, what + 5, false);
	return launch_refuse(c, NULL, "this backend is not on the list of what is allowed");
}

/* As launch_chardev_short; a listening unix socket among them is one that speaks QMP. */
int launch_qmp_short(struct launch_context *c, char **value)
{
	int rc;

	c->listening = NULL;
	rc = launch_chardev_short(c, value);
	if (rc)
		return rc;
	if (c->listening && !strncmp(*value, "unix:", 5))
		rc = launch_words_add(&c->qmp_paths, c->listening);
	else if (!strncmp(*value, "chardev:", 8))
		rc = launch_words_add(&c->controls, *value + 8);
	return rc ? launch_no_memory(c) : 0;
}

const struct launch_rule launch_mon_rules[] = {
	{ "chardev|pretty", NULL, NULL },
	{ "mode", launch_value_one_of, "control|readline" },
	{ NULL, NULL, NULL },
};

int launch_mon(struct launch_context *c, struct launch_props *p)
{
	const char *chardev = launch_props_get(p, "chardev");
	const char *mode = launch_props_get(p, "mode");

	if (chardev && mode && !strcmp(mode, "control") && launch_words_add(&c->controls, chardev))
		return launch_no_memory(c);
	return 0;
}

const struct launch_rule launch_audiodev_rules[] = {
	{ "driver", launch_value_one_of, "none|spice" },
	{ "id|model|timer-period|in.*|out.*", NULL, NULL },
	{ NULL, NULL, NULL },
};

/* Keys that -nic and -net add to a -netdev's. */
#define NIC_KEYS "type|id|model|mac|macaddr|addr|vectors|name|netdev"

static const struct launch_rule user_rules[] = {
	{ NIC_KEYS, NULL, NULL },
	{ "net|host|ipv6-net|ipv6-host|ipv6-prefix|ipv6-prefixlen|ipv6-dns", launch_value_any,
	  NULL },
	{ "ipv4|ipv6|restrict|hostname|dhcpstart|dns|dnssearch*|domainname|hostfwd*", NULL, NULL },
	{ "guestfwd*", launch_value_refused, "may run a command" },
	{ "tftp|bootfile|smb|smbserver|tftp-server-name", launch_value_refused,
	  "shows a directory of the host" },
	{ NULL, NULL, NULL },
};

static const struct launch_rule tap_rules[] = {
	{ NIC_KEYS, NULL, NULL },
	{ "ifname|sndbuf|vnet_hdr|vhost|vhostforce|queues|poll-us", NULL, NULL },
	{ "script|downscript", launch_value_one_of, "no" },
	{ "fd|fds|vhostfd|vhostfds", launch_value_refused, INHERITED },
	{ "br|helper", launch_value_refused, "runs a helper program" },
	{ NULL, NULL, NULL },
};

static const struct launch_rule socket_rules[] = {
	{ NIC_KEYS, NULL, NULL },
	{ "listen|connect|mcast|udp|localaddr|server|reconnect|reconnect-ms", NULL, NULL },
	{ "addr.type|local.type|remote.type", launch_value_one_of, "inet" },
	{ "*.host|*.port|*.to|*.ipv4|*.ipv6|*.numeric|*.keep-alive", NULL, NULL },
	{ "fd|*.str", launch_value_refused, INHERITED },
	{ NULL, NULL, NULL },
};

static const struct launch_rule hub_rules[] = {
	{ NIC_KEYS "|hubid", NULL, NULL },
	{ NULL, NULL, NULL },
};

/* Without ifname QEMU would make an interface of its own, connected to nothing. */
static int netdev_tap(struct launch_context *c, struct launch_props *p)
{
	static const char hint[] = "make the tap device at the destination, and start the VM with "
				   "ifname=NAME,script=no,downscript=no";
	const char *ifname = launch_props_get(p, "ifname");

	if (!ifname || strchr(ifname, '%'))
		return launch_refuse(c, hint, "the tap has no ifname");
	if (!launch_props_get(p, "script"))
		return launch_refuse(c, hint, "its default script would run");
	if (!if_nametoindex(ifname))
		return launch_refuse(c, hint, "there is no network interface %s here", ifname);
	return launch_props_set(p, "downscript", "no") ? launch_no_memory(c) : 0;
}

static const struct {
	const char *types;
	const struct launch_rule *rules;
	int (*check)(struct launch_context *c, struct launch_props *p);
	const char *refused;
} netdevs[] = {
	{ "none|nic|hubport", hub_rules, NULL, NULL },
	{ "user", user_rules, NULL, NULL },
	{ "tap", tap_rules, netdev_tap, NULL },
	{ "socket|stream|dgram", socket_rules, NULL, NULL },
	{ "bridge", NULL, NULL, "it runs a helper program; use tap with ifname and script=no" },
	{ "vhost-user|vhost-vdpa|vde|netmap|af-xdp|passt|l2tpv3", NULL, NULL,
	  "its other half is not moved" },
};

int launch_netdev(struct launch_context *c, struct launch_props *p)
{
	const char *type = launch_props_get(p, "type");

	for (size_t i = 0; type && i < sizeof(netdevs) / sizeof(netdevs[0]); i++) {
		int rc;

		if (!launch_matches(netdevs[i].types, type))
			continue;
		if (netdevs[i].refused)
			return launch_refuse(c, NULL, "%s", netdevs[i].refused);
		rc = launch_check_props(c, p, netdevs[i].rules);
		return rc || !netdevs[i].check ? rc : netdevs[i].check(c, p);
	}
	return launch_refuse(c, NULL, "this kind of network is not on the list of what is allowed");
}

void launch_display_seen(struct launch_context *c)
{
	c->display_seen = true;
}

/* host:display or none; a unix socket or a secret would be of the source's host. */
int launch_vnc(struct launch_context *c, char **value)
{
	static const struct launch_rule rules[] = {
		{ "vnc|password|share|to|websocket|power-control|lossy|non-adaptive|key-delay-ms|"
		  "audiodev",
		  NULL, NULL },
		{ "lock-key-sync|connections", NULL, NULL },
		{ NULL, NULL, NULL },
	};
	struct launch_props p;
	int rc = launch_props_parse(&p, *value, "vnc", false);

	c->display_seen = true;
	if (rc)
		return launch_refuse(c, NULL, "it is malformed");
	rc = launch_check_props(c, &p, rules);
	launch_props_release(&p);
	return rc;
}

int launch_display(struct launch_context *c, char **value)
{
	c->display_seen = true;
	if (!strcmp(*value, "none"))
		return 0;
	if (!strncmp(*value, "vnc=", 4)) {
		char *rest = strdup(*value + 4);
		int rc = rest ? launch_vnc(c, &rest) : launch_no_memory(c);

		free(rest);
		return rc;
	}
	return launch_refuse(c, "start the VM with -display none or -vnc",
			     "it needs a desktop session, which the destination has not");
}
