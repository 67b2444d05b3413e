// SPDX-License-Identifier: MIT
/*
 * The table of QEMU options that a VM of a peer may be launched with. What is not here is refused.
 *
 * Dropped is what concerns the source's run only and changes nothing that the guest sees.
 * docs/qemu.md, "What the destination launches", tells users the same.
 */
#include "control/admission/launch_rules.h"

#define FLAG(n)                                                                                    \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_TAKE                                                 \
	}
#define PLAIN(n)                                                                                   \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_TAKE, .has_value = true, .text = launch_plain        \
	}
#define ANY(n)                                                                                     \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_TAKE, .has_value = true                              \
	}
#define TEXT(n, f)                                                                                 \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_TAKE, .has_value = true, .text = f                   \
	}
#define KEYS(n, first, r, f)                                                                       \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_TAKE, .has_value = true, .implied = first,           \
		.rules = r, .props = f                                                             \
	}
#define JSON(n, first, r, f)                                                                       \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_TAKE, .has_value = true, .implied = first,           \
		.json = true, .rules = r, .props = f                                               \
	}
#define DROP_FLAG(n, reason)                                                                       \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_DROP, .why = reason                                  \
	}
#define DROP(n, reason)                                                                            \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_DROP, .has_value = true, .why = reason               \
	}
#define REFUSE(n, reason)                                                                          \
	{                                                                                          \
		.names = n, .verdict = LAUNCH_REFUSE, .why = reason                                \
	}

const struct launch_option launch_options[] = {
	/* the machine */
	KEYS("machine|M", "type", launch_machine_rules, launch_machine),
	KEYS("accel", "accel", launch_accel_rules, NULL),
	FLAG("enable-kvm|no-kvm-irqchip"),
	TEXT("cpu", launch_cpu),
	KEYS("smp", "cpus", launch_plain_rules, NULL),
	KEYS("m", "size", launch_plain_rules, NULL),
	KEYS("numa", "type", launch_plain_rules, NULL),
	JSON("object", "qom-type", NULL, launch_object),
	FLAG("mem-prealloc|nodefaults|no-hpet|no-acpi|no-fd-bootchk|win2k-hack|usb"),
	KEYS("overcommit", NULL, launch_plain_rules, NULL),
	TEXT("global", launch_global),
	KEYS("rtc", "base", launch_plain_rules, NULL),
	KEYS("icount", "shift", launch_plain_rules, NULL),
	KEYS("boot", "order", launch_boot_rules, NULL),
	KEYS("smbios", NULL, launch_smbios_rules, NULL),
	KEYS("fw_cfg", "name", launch_fw_cfg_rules, NULL),
	KEYS("name", "guest", launch_name_rules, NULL),
	PLAIN("uuid|vga|usbdevice|g|k|watchdog-action|seed|tb-size"),

	/* what it boots */
	TEXT("bios|kernel|initrd|dtb|option-rom|shim", launch_readable),
	TEXT("L", launch_firmware_dir),
	ANY("append"),

	/* devices and disks */
	JSON("device", "driver", NULL, launch_device),
	JSON("blockdev", "driver", NULL, launch_blockdev),
	KEYS("drive", NULL, launch_drive_rules, launch_drive),
	TEXT("hda|hdb|hdc|hdd|cdrom|fda|fdb|pflash|sd", launch_disk),

	/* what it is connected to */
	KEYS("chardev", "backend", NULL, launch_chardev),
	TEXT("serial|parallel|monitor|debugcon", launch_chardev_short),
	TEXT("qmp|qmp-pretty", launch_qmp_short),
	KEYS("mon", "chardev", launch_mon_rules, launch_mon),
	JSON("netdev", "type", NULL, launch_netdev),
	KEYS("nic|net", "type", NULL, launch_netdev),
	JSON("audiodev", "driver", launch_audiodev_rules, NULL),
	KEYS("audio", "driver", launch_audiodev_rules, NULL),
	TEXT("display", launch_display),
	TEXT("vnc", launch_vnc),
	{ .names = "nographic", .verdict = LAUNCH_TAKE, .seen = launch_display_seen },

	/* how it runs */
	FLAG("no-reboot|no-shutdown|no-user-config|only-migratable|show-cursor"),
	KEYS("action", NULL, launch_plain_rules, NULL),
	KEYS("sandbox", "enable", launch_plain_rules, NULL),
	KEYS("msg", NULL, launch_plain_rules, NULL),
	KEYS("compat", NULL, launch_plain_rules, NULL),
	KEYS("run-with", NULL, launch_run_with_rules, NULL),
	PLAIN("runas|echr"),

	DROP("incoming", "replaced by -incoming defer"),
	DROP_FLAG("S", "replaced: the VM runs on commit only"),
	DROP("loadvm", "the state comes from the source"),
	DROP_FLAG("daemonize", "transhipd starts it"),
	DROP("pidfile", "transhipd knows the process"),
	DROP("gdb", "a debugger of the source's host"),
	DROP_FLAG("s", "a debugger of the source's host"),
	DROP("d|dfilter|D", "debug output of the source's run"),
	DROP("trace", "trace output of the source's run"),
	DROP_FLAG("full-screen|alt-grab|ctrl-grab|enable-sync-profile",
		  "concerns a desktop session"),

	REFUSE("mem-path", "RAM given this way is not shared; use -object "
			   "memory-backend-file,share=on"),
	REFUSE("add-fd", "it passes a descriptor that the source's launcher opened"),
	REFUSE("readconfig|writeconfig", "it reads options from a file that is not seen here"),
	REFUSE("set", "it changes options after they were judged"),
	REFUSE("plugin", "it loads code"),
	REFUSE("snapshot", "the guest's writes are in temporary files of the source's host"),
	REFUSE("chroot", "paths mean something else after it"),
	REFUSE("preconfig", "the machine is configured over QMP, which is not seen here"),
	REFUSE("fsdev|virtfs|virtfs_synth", "a shared directory of the host is not moved"),
	REFUSE("tpmdev", "a TPM's state is kept outside QEMU"),
	REFUSE("spice", "a spice server needs secrets and certificates, which stay on their host"),
	REFUSE("iscsi", "it carries a secret"),
	REFUSE("acpitable", "it reads files into the guest"),
	REFUSE("semihosting|semihosting-config", "the guest could call the host"),
	REFUSE("xen-domid|xen-attach|xen-domid-restrict", "Xen is not supported"),
	REFUSE("sdl|curses|spice-app", "it needs a desktop session"),
	REFUSE("dump-vmstate|help|h|version", "it is not a VM"),
	{ .names = NULL },
};
