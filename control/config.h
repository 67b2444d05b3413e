/* SPDX-License-Identifier: MIT */
/* What transhipd was told by its command line and its configuration file. */
#ifndef TRANSHIP_CONTROL_CONFIG_H
#define TRANSHIP_CONTROL_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/base/failure.h"

#define CONFIG_DEFAULT_SOCKET	 "/run/tranship/transhipd.sock"
#define CONFIG_DEFAULT_STATE_DIR "/var/lib/tranship"
#define CONFIG_BINARIES_MAX	 16
#define CONFIG_VM_DIRS_MAX	 16
#define CONFIG_ADDRESSES_MAX	 8

struct config {
	char socket[108];
	char state_dir[PATH_MAX];
	char data_address[64]; /* numeric; where data streams reach this host: "127.0.0.1" */
	/* All of them, data_address first; streams take turns over them. */
	char data_addresses[CONFIG_ADDRESSES_MAX][64];
	unsigned int ndata_addresses;
	uint16_t data_port_lo, data_port_hi; /* 0, 0: any free port */
	bool allow_plaintext;
	char qemu_binaries[CONFIG_BINARIES_MAX][PATH_MAX]; /* that may be launched */
	unsigned int nqemu_binaries;
	/*
	 * Directories, absolute, in which a launched VM may have disks, sockets and files. None:
	 * anywhere but in the system's own directories (launch_paths.c).
	 */
	char vm_dirs[CONFIG_VM_DIRS_MAX][PATH_MAX];
	unsigned int nvm_dirs;
	char ram_dir[PATH_MAX];	   /* where RAM files of launched VMs go; "": as at the source */
	bool thp;		   /* transparent huge pages under arriving RAM */
	char dataplane[PATH_MAX];  /* path of tranship-dataplane; found beside transhipd */
	char guard[PATH_MAX];	   /* path of tranship-guard */
	unsigned int sessions_max; /* admitted at once */
	uint64_t state_max;	   /* bytes of device state held for one session */
	bool verbose;
};

/*
 * Defaults, then the file (if any), then the command line. Exits never: 0; -EINVAL with f (usage);
 * 1 when --help or --version was printed.
 */
int config_load(struct config *c, int argc, char **argv, struct failure *f);

/* The settings by number, NULL at the end: each is a key of the file and a long option. */
const char *config_setting_name(unsigned int i);

#endif
