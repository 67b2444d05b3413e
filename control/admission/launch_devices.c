// SPDX-License-Identifier: MIT
/* Judging -device, -drive, -blockdev: what the guest sees, and which images are opened for it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/admission/launch_rules.h"

/* First match counts, so that exceptions come before what they are excepted from. */
static const struct {
	const char *drivers;
	const char *refused; /* NULL: taken */
} devices[] = {
	{ "vfio-*|kvm-pci-assign|pvrdma|usb-host|scsi-block|scsi-generic|u2f-passthru",
	  "a passed-through device stays on its host" },
	{ "virtio-input-host*|ccid-card-*|usb-braille",
	  "a passed-through device stays on its host" },
	{ "vhost-user-*|vhost-scsi*|vhost-vdpa*|x-pci-proxy-dev|vfio-user-*",
	  "its other half is another process, which is not moved" },
	{ "ivshmem*", "its memory is shared with other processes" },
	{ "nvdimm|virtio-pmem*|cxl-type3", "persistent memory cannot be moved from outside" },
	{ "virtio-mem*", "virtio-mem cannot be moved from outside" },
	{ "virtio-9p*|usb-mtp", "a shared directory of the host is not moved" },
	{ "tpm-*", "a TPM's state is kept by another process, which is not moved" },
	{ "loader|guest-loader", "it reads files into RAM" },

	{ "virtio-*|virtserialport|virtconsole", NULL },
	{ "vhost-vsock-*", NULL },
	{ "pci-bridge*|pcie-root-port|pcie-pci-bridge|pxb|pxb-pcie|ioh3420|x3130-*|xio3130-*",
	  NULL },
	{ "i82801b11-bridge|intel-iommu|amd-iommu|AMDVI-PCI", NULL },
	{ "usb-*|qemu-xhci|nec-usb-xhci|ich9-usb-*|piix3-usb-uhci|piix4-usb-uhci|pci-ohci", NULL },
	{ "ahci|ich9-ahci|ide-*|isa-ide|piix?-ide|scsi-hd|scsi-cd|floppy|isa-fdc", NULL },
	{ "am53c974|dc390|lsi53c8*|megasas*|mptsas1068|pvscsi|nvme|nvme-ns|nvme-subsys", NULL },
	{ "sd-card|sdhci-pci", NULL },
	{ "e1000*|igb|i825*|i82801|ne2k_*|pcnet|rtl8139|tulip|vmxnet3", NULL },
	{ "VGA|*-vga|qxl|bochs-display|ramfb|cirrus-vga|secondary-vga|sga", NULL },
	{ "isa-serial|isa-parallel|isa-debugcon|isa-debug-exit|pci-serial*|i8042|vmmouse|vmport",
	  NULL },
	{ "intel-hda|ich9-intel-hda|hda-*|AC97|ES1370|sb16|adlib|gus|cs4231a", NULL },
	{ "pvpanic*|vmgenid|vmcoreinfo|vmclock|i6300esb|ib700|diag288|hv-syndbg", NULL },
	{ "pc-dimm|*-x86_64-cpu|*-i386-cpu|mc146818rtc|acpi-erst", NULL },
};

static const struct launch_rule device_rules[] = {
	{ "fd|fds|vhostfd|vhostfds|*-fd", launch_value_refused,
	  "is a descriptor that the source's launcher opened" },
	{ "romfile", launch_value_readable, NULL },
	/* Text that the guest sees; a slash in it is not a path. */
	{ "serial|product|vendor|ver|model|mn|sn|wwn|name|label|edid*", launch_value_any, NULL },
	{ "rootdir|filename|file|path|*-path|*-file|evdev|sysfsdev|hostdev", launch_value_refused,
	  "is something of the source's host" },
	{ "*", NULL, NULL },
	{ NULL, NULL, NULL },
};

int launch_device(struct launch_context *c, struct launch_props *p)
{
	const char *driver = launch_props_get(p, "driver");
	const size_t count = sizeof(devices) / sizeof(devices[0]);

	/* The patterns would let anything follow. */
	if (!driver || driver[strspn(driver, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					     "0123456789._-")])
		return launch_refuse(c, NULL, "it has no proper driver name");
	for (size_t i = 0; i < count; i++) {
		if (!launch_matches(devices[i].drivers, driver))
			continue;
		if (devices[i].refused)
			return launch_refuse(c, NULL, "%s", devices[i].refused);
		return launch_check_props(c, p, device_rules);
	}
	return launch_refuse(c, NULL, "this device is not on the list of what is allowed");
}

#define FORMATS	    "raw|qcow2|qed|vdi|vhdx|vpc"
#define NO_SNAPSHOT "off|no|false"
/* What an image's format and its cache are told; none of it is a path. */
#define IMAGE_KEYS                                                                                 \
	"cache|cache.*|aio|discard|detect-zeroes|read-only|readonly|auto-read-only|copy-on-read|"
#define IMAGE_KEYS_MORE "lazy-refcounts|pass-discard-*|overlap-check*|l2-cache-*|refcount-cache-*|"
#define IMAGE_KEYS_LAST "locking|x-check-cache-dropped|drop-cache|aio-max-batch|size|node-name|id"

const struct launch_rule launch_drive_rules[] = {
	{ "file|file.filename", launch_value_disk, NULL },
	{ "if|index|bus|unit|media|werror|rerror|group|bps*|iops*|throttling.*|serial", NULL,
	  NULL },
	{ "format|driver", launch_value_one_of, FORMATS "|file|host_device" },
	{ "file.driver", launch_value_one_of, "file|host_device" },
	{ "snapshot", launch_value_one_of, NO_SNAPSHOT },
	{ IMAGE_KEYS, NULL, NULL },
	{ IMAGE_KEYS_MORE, NULL, NULL },
	{ IMAGE_KEYS_LAST, NULL, NULL },
	{ "file.locking|file.aio|file.cache.*|file.drop-cache|file.aio-max-batch|file.node-name",
	  NULL, NULL },
	{ NULL, NULL, NULL },
};

static const struct launch_rule blockdev_rules[] = {
	{ "filename|*.filename", launch_value_disk, NULL },
	{ "driver|*.driver", launch_value_one_of,
	  FORMATS "|file|host_device|throttle|copy-on-read|null-co|null-aio" },
	/* Names of other nodes; nested ones are judged key by key. */
	{ "file|backing|throttle-group|*.file|*.backing|*.throttle-group", NULL, NULL },
	{ IMAGE_KEYS, NULL, NULL },
	{ IMAGE_KEYS_MORE, NULL, NULL },
	{ IMAGE_KEYS_LAST, NULL, NULL },
	{ "*.cache.*|*.aio|*.discard|*.detect-zeroes|*.read-only|*.auto-read-only|*.node-name",
	  NULL, NULL },
	{ "*.locking|*.drop-cache|*.aio-max-batch|*.size|offset|*.offset", NULL, NULL },
	{ NULL, NULL, NULL },
};

/*
 * An image without a format is probed, and a guest can write a header into a raw image that makes
 * it something else; so the format that the source has open is named.
 */
int launch_drive(struct launch_context *c, struct launch_props *p)
{
	if (!c->disk || launch_props_get(p, "format") || launch_props_get(p, "driver"))
		return 0;
	if (!launch_matches(FORMATS, c->disk->format))
		return launch_refuse(c, "give the drive's format= on the VM's command line",
				     "the image's format is not known");
	return launch_props_set(p, "format", c->disk->format) ? launch_no_memory(c) : 0;
}

int launch_blockdev(struct launch_context *c, struct launch_props *p)
{
	return launch_check_props(c, p, blockdev_rules);
}

/* -hda and the like as the -drive that QEMU makes of them. */
static const struct {
	const char *option, *drive;
} short_drives[] = {
	{ "", "index=0,media=disk" },	 { "hda", "index=0,media=disk" },
	{ "hdb", "index=1,media=disk" }, { "hdc", "index=2,media=disk" },
	{ "hdd", "index=3,media=disk" }, { "cdrom", "index=2,media=cdrom" },
	{ "fda", "if=floppy,index=0" },	 { "fdb", "if=floppy,index=1" },
	{ "pflash", "if=pflash" },	 { "sd", "if=sd" },
};

int launch_disk(struct launch_context *c, char **value)
{
	const char *name = c->option + strspn(c->option, "-");
	struct launch_props p = { 0 };
	char *text = NULL;
	int rc = -1;

	for (size_t i = 0; rc && i < sizeof(short_drives) / sizeof(short_drives[0]); i++)
		if (!strcmp(short_drives[i].option, name))
			rc = launch_props_parse(&p, short_drives[i].drive, NULL, false);
	if (rc || launch_props_set(&p, "file", *value)) {
		launch_props_release(&p);
		return launch_no_memory(c);
	}
	rc = launch_check_props(c, &p, launch_drive_rules);
	if (!rc)
		rc = launch_drive(c, &p);
	if (!rc && !(text = launch_props_text(&p)))
		rc = launch_no_memory(c);
	launch_props_release(&p);
	if (rc)
		return rc;
	free(*value);
	*value = text;
	c->rename = "-drive";
	return 0;
}
