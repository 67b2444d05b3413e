/* SPDX-License-Identifier: MIT */
/*
 * How one option of a peer's QEMU command line is judged: the state of the judging, the rules for
 * keys, and the checks that the option table (launch_options.c) refers to.
 *
 *   launch.c            the plan: binary, every word in turn, what must be there at the end
 *   launch_options.c    the table of options: taken, dropped, refused, and why
 *   launch_machine.c    -machine, -cpu, -object (RAM is placed anew here), -smbios, -fw_cfg ...
 *   launch_devices.c    -device, -drive, -blockdev
 *   launch_backends.c   -chardev and its short forms, -netdev, -nic, -display
 *   launch_paths.c      which paths may be touched
 *   launch_process.c    starting and undoing
 */
#ifndef TRANSHIP_CONTROL_LAUNCH_RULES_H
#define TRANSHIP_CONTROL_LAUNCH_RULES_H

#include "control/admission/launch.h"
#include "control/admission/launch_props.h"

/* A growing, NULL-terminated list of owned strings. */
struct launch_words {
	char **list;
	size_t n;
};

int launch_words_add(struct launch_words *w, const char *word); /* copies; -ENOMEM */
bool launch_words_have(const struct launch_words *w, const char *word);
void launch_words_release(struct launch_words *w);

struct launch_context {
	const struct guest_description *source;
	const struct config *config;
	const char *session_id;
	struct failure *failure;
	const char *option, *value; /* under judgement, for messages; value may be NULL */

	struct launch_words argv, created;
	struct launch_words socket_ids, socket_paths; /* chardevs that listen, pairwise */
	struct launch_words controls;		      /* chardevs that carry QMP */
	struct launch_words qmp_paths;		      /* sockets of -qmp unix: */
	bool *disk_seen, *region_seen;		      /* by index in source */
	const char *listening;	       /* unix socket that a chardev was last found to listen on */
	const struct guest_disk *disk; /* that launch_value_disk found last */
	const char *rename; /* a check wants the option written under this name instead */
	bool reads_only;    /* the option under judgement opens its disk for reading */
	bool machine_typed, display_seen;
};

/* One kind of key in an option's value. */
struct launch_rule {
	const char *keys; /* patterns as of fnmatch(3), separated by '|' */
	/* 0 or a refusal; arg is the rule's. NULL: launch_value_plain. */
	int (*check)(struct launch_context *c, const char *key, const char *value, const char *arg);
	const char *arg;
};

enum launch_verdict { LAUNCH_TAKE, LAUNCH_DROP, LAUNCH_REFUSE };

struct launch_option {
	const char *names; /* "machine|M" */
	enum launch_verdict verdict;
	bool has_value;
	const char *why;     /* dropped or refused */
	const char *implied; /* key of a first element without one */
	bool json;	     /* QEMU takes JSON here */
	const struct launch_rule *rules;
	/* The value as keys, after rules (if any); may change it. */
	int (*props)(struct launch_context *c, struct launch_props *p);
	/* Or as one text; may replace *value (owned). Neither, nor rules: as it is. */
	int (*text)(struct launch_context *c, char **value);
	/* For options without a value: told that it is there. */
	void (*seen)(struct launch_context *c);
};

extern const struct launch_option launch_options[];

/* Refuses the option under judgement: -EPERM with launch-refused. hint NULL: the general one. */
int launch_refuse(struct launch_context *c, const char *hint, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* For what is not a refusal: no memory. */
int launch_no_memory(struct launch_context *c);

/* True if word matches one of the patterns, separated by '|'. */
bool launch_matches(const char *patterns, const char *word);
/* Every key must match a rule, and its value pass it. */
int launch_check_props(struct launch_context *c, const struct launch_props *p,
		       const struct launch_rule *rules);

/* Checks of one value, for rules. plain: no '/' (so: no path). */
int launch_value_plain(struct launch_context *c, const char *key, const char *value,
		       const char *arg);
int launch_value_any(struct launch_context *c, const char *key, const char *value, const char *arg);
int launch_value_one_of(struct launch_context *c, const char *key, const char *value,
			const char *arg);
int launch_value_refused(struct launch_context *c, const char *key, const char *value,
			 const char *arg);
int launch_value_disk(struct launch_context *c, const char *key, const char *value,
		      const char *arg);
int launch_value_readable(struct launch_context *c, const char *key, const char *value,
			  const char *arg);
/* Plans the making of a socket or file: new here, and to be removed if the session fails. */
int launch_plan_new_path(struct launch_context *c, const char *path);

/* launch_machine.c */
int launch_machine(struct launch_context *c, struct launch_props *p);
int launch_object(struct launch_context *c, struct launch_props *p);
int launch_cpu(struct launch_context *c, char **value);
int launch_global(struct launch_context *c, char **value);
int launch_readable(struct launch_context *c, char **value);
int launch_plain(struct launch_context *c, char **value);
int launch_firmware_dir(struct launch_context *c, char **value);
extern const struct launch_rule launch_machine_rules[], launch_accel_rules[], launch_smbios_rules[],
	launch_fw_cfg_rules[], launch_boot_rules[], launch_plain_rules[], launch_name_rules[],
	launch_run_with_rules[];

/* launch_devices.c */
int launch_device(struct launch_context *c, struct launch_props *p);
int launch_blockdev(struct launch_context *c, struct launch_props *p);
int launch_drive(struct launch_context *c, struct launch_props *p);
int launch_disk(struct launch_context *c, char **value);
extern const struct launch_rule launch_drive_rules[];

/* launch_backends.c */
int launch_chardev(struct launch_context *c, struct launch_props *p);
int launch_chardev_short(struct launch_context *c, char **value);
int launch_qmp_short(struct launch_context *c, char **value);
int launch_mon(struct launch_context *c, struct launch_props *p);
int launch_netdev(struct launch_context *c, struct launch_props *p);
int launch_display(struct launch_context *c, char **value);
int launch_vnc(struct launch_context *c, char **value);
void launch_display_seen(struct launch_context *c);
extern const struct launch_rule launch_audiodev_rules[], launch_mon_rules[];

#endif
