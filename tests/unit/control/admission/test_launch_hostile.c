// SPDX-License-Identifier: MIT
/* Command lines that a destination must not launch, each refused with the word and a remedy. */
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/control/admission/launch_fixture.h"

#define RAM "memory-backend-file,id=ram0,size=64M,mem-path="

struct hostile {
	const char *option, *value; /* value NULL: takes none */
};

static void refuse_all(const struct hostile *list, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		base_vm();
		add_words(WORDS(list[i].option, list[i].value));
		if (!plan())
			fail_msg("was planned: %s %s", list[i].option,
				 list[i].value ? list[i].value : "");
		if (strcmp(fx.f.code, "launch-refused") || !strstr(fx.f.message, list[i].option) ||
		    !fx.f.hint[0])
			fail_msg("%s %s: %s: %s", list[i].option, list[i].value, fx.f.code,
				 fx.f.message);
	}
}

static void test_options(void **state)
{
	static const struct hostile list[] = {
		{ "-", NULL },
		{ "--", NULL },
		{ "---S", NULL },
		{ "-unknown", NULL },
		{ "-*", "x" },
		{ "-machine|M", "q35" },
		{ "-readconfig", "/tmp/x" },
		{ "-set", "device.d.romfile=/etc/shadow" },
		{ "-plugin", "/tmp/x.so" },
		{ "-add-fd", "fd=3,set=1" },
		{ "-fsdev", "local,id=f,path=/,security_model=none" },
		{ "-virtfs", "local,path=/,mount_tag=t,security_model=none" },
		{ "-tpmdev", "emulator,id=t,chardev=c" },
		{ "-chroot", "/tmp" },
		{ "-snapshot", NULL },
		{ "-preconfig", NULL },
		{ "-mem-path", "/dev/shm" },
		{ "-spice", "port=5900,disable-ticketing=on" },
		{ "-xen-attach", NULL },
		{ "-acpitable", "file=/etc/shadow" },
		{ "-semihosting", NULL },
		{ "-dump-vmstate", "/etc/x" },
		{ "-append", NULL }, /* no value */
	};

	(void)state;
	refuse_all(list, sizeof(list) / sizeof(list[0]));
}

static void test_devices(void **state)
{
	static const struct hostile list[] = {
		{ "-device", "vfio-pci,host=01:00.0" },
		{ "-device", "{\"driver\":\"vfio-pci\",\"host\":\"01:00.0\"}" },
		{ "-device", "driver=vfio-pci,host=01:00.0" },
		{ "-device", "virtio-net-pci,driver=vfio-pci" },
		{ "-device", "virtio-net-pci,,driver=vfio-pci" },
		{ "-device", "{\"driver\":\"virtio-net-pci\",\"driver\":\"vfio-pci\"}" },
		{ "-device", "{'driver':'vfio-pci'}" }, /* QEMU takes it, JSON it is not */
		{ "-device", "{\"driver\":\"virtio-net-pci\"" },
		{ "-device", "{\"driver\":[\"virtio-net-pci\"]}" },
		{ "-device", " vfio-pci" },
		{ "-device", "" },
		{ "-device", "id=x" },
		{ "-device", "ivshmem-plain,memdev=m" },
		{ "-device", "vhost-user-fs-pci,chardev=c" },
		{ "-device", "virtio-mem-pci,memdev=m" },
		{ "-device", "virtio-pmem-pci,memdev=m" },
		{ "-device", "virtio-9p-pci,fsdev=f" },
		{ "-device", "nvdimm,memdev=m" },
		{ "-device", "usb-host,hostbus=1" },
		{ "-device", "usb-mtp,rootdir=/etc" },
		{ "-device", "loader,file=/etc/shadow,addr=0" },
		{ "-device", "virtio-net-pci,romfile=/etc/shadow" },
		{ "-device", "virtio-net-pci,romfile=/dev/../etc/shadow" },
		{ "-device", "{\"driver\":\"virtio-net-pci\",\"romfile\":\"/etc/shadow\"}" },
		{ "-device", "vhost-vsock-pci,vhostfd=3" },
		{ "-device", "virtio-input-host-pci,evdev=/dev/input/event0" },
		{ "-device", "virtio-blk-pci,x=/etc/shadow" },
		{ "-device", "scsi-block,drive=d" },
		{ "-global", "virtio-net-pci.romfile=/etc/shadow" },
		{ "-global", "driver=virtio-net-pci,property=romfile,value=/etc/shadow" },
		{ "-usbdevice", "disk:/etc/shadow" },
	};

	(void)state;
	refuse_all(list, sizeof(list) / sizeof(list[0]));
}

static void test_objects(void **state)
{
	static const struct hostile list[] = {
		{ "-object", "secret,id=s,file=/etc/shadow" },
		{ "-object", "{\"qom-type\":\"secret\",\"id\":\"s\",\"file\":\"/etc/shadow\"}" },
		{ "-object", "filter-dump,id=f,netdev=n,file=/etc/cron.d/x" },
		{ "-object", "input-linux,id=i,evdev=/dev/input/event0" },
		{ "-object", "rng-random,id=r,filename=/etc/shadow" },
		{ "-object", "rng-random,id=r,filename=/dev/urandom,filename=/etc/shadow" },
		{ "-object", "qom-type=rng-builtin,id=r,qom-type=secret" },
		{ "-object", "sev-guest,id=s" },
		{ "-object", "tls-creds-x509,id=t,dir=/etc/pki,endpoint=server" },
		{ "-object", "x-remote-object,id=x,fd=3" },
		{ "-object", "memory-backend-file,id=ram9,size=1M,mem-path=/etc/passwd,share=on" },
		{ "-object", "memory-backend-epc,id=e,size=1M" },
		{ "-object", "id=r" },
		{ "-machine", "q35,dumpdtb=/etc/x" },
		{ "-machine", "q35,firmware=/etc/shadow" },
		{ "-machine", "q35,kernel=/etc/shadow" },
		{ "-machine", "q35,nvdimm=on" },
		{ "-machine", "q35,confidential-guest-support=s" },
		{ "-machine", "q35,accel=qtest" },
		{ "-M", "q35,type=none" },
		{ "-accel", "kvm,device=/etc/shadow" },
		{ "-accel", "qtest" },
		{ "-fw_cfg", "name=opt/x,file=/etc/shadow" },
		{ "-smbios", "type=11,path=/etc/shadow" },
		{ "-smbios", "file=/etc/shadow" },
		{ "-boot", "splash=/etc/shadow" },
		{ "-kernel", "/etc/shadow" },
		{ "-kernel", "vmlinuz/../../etc/shadow" },
		{ "-initrd", "/proc/kcore" },
		{ "-bios", "/etc/shadow" },
		{ "-bios", "/nowhere/at/all" },
		{ "-L", "/root" },
		{ "-L", "roms" },
		{ "-icount", "shift=7,rr=record,rrfile=/etc/x" },
		{ "-run-with", "chroot=/tmp" },
		{ "-cpu", "host,x=/etc" },
	};

	(void)state;
	refuse_all(list, sizeof(list) / sizeof(list[0]));
}

static void test_disks(void **state)
{
	static const struct hostile list[] = {
		{ "-drive", "file=/etc/shadow,format=raw" },
		{ "-drive", "file=/etc/shadow,,,format=raw" },
		{ "-drive", "file=DIR/disk,file=/etc/shadow,format=raw" },
		{ "-drive", "file=DIR/disk,format=raw,file.filename=/etc/shadow" },
		{ "-drive", "file=DIR/other,format=raw" },
		{ "-drive", "file=disk,format=raw" },
		{ "-drive", "file=DIR/../disk,format=raw" },
		{ "-drive", "file=/dev/fdset/1,format=raw" },
		{ "-drive", "file=/proc/self/fd/0,format=raw" },
		{ "-drive", "file=/dev/fd/3,format=raw" },
		{ "-drive", "file=/dev/null,format=raw" },
		{ "-drive", "file=/dev/mem,format=raw" },
		{ "-drive", "file=json:{\"driver\":\"raw\"\\,\"file\":\"x\"},format=raw" },
		{ "-drive", "file=nbd:unix:/run/x,format=raw" },
		{ "-drive", "file=ssh://host/x,format=raw" },
		{ "-drive", "file=fat:rw:/etc,format=raw" },
		{ "-drive", "file=DIR/disk,format=raw,snapshot=on" },
		{ "-drive", "file=DIR/disk,format=luks" },
		{ "-drive", "file=DIR/disk,format=raw,backing.file.filename=/etc/shadow" },
		{ "-drive", "file=DIR/disk,format=raw,file.driver=ssh" },
		{ "-drive", "DIR/disk" },
		{ "-blockdev", "driver=ssh,host=h,path=/x,node-name=n" },
		{ "-blockdev", "driver=nvme,device=0000:01:00.0,namespace=1,node-name=n" },
		{ "-blockdev", "driver=file,filename=/etc/shadow,node-name=n" },
		{ "-blockdev", "driver=vvfat,dir=/etc,node-name=n" },
		{ "-blockdev",
		  "driver=raw,node-name=n,file.driver=file,file.filename=/etc/shadow" },
		{ "-blockdev",
		  "{\"driver\":\"raw\",\"node-name\":\"n\",\"file\":{\"driver\":\"file\","
		  "\"filename\":\"/etc/shadow\"}}" },
		{ "-blockdev",
		  "{\"driver\":\"raw\",\"node-name\":\"n\",\"file\":{\"driver\":\"nbd\","
		  "\"server\":{\"type\":\"unix\",\"path\":\"/run/x\"}}}" },
		{ "-blockdev",
		  "{\"driver\":\"file\",\"pr-manager\":\"p\",\"filename\":\"DIR/disk\"}" },
		{ "-hda", "/etc/shadow" },
		{ "-cdrom", "/dev/sr99" },
		{ "-pflash", "DIR/other" },
	};

	(void)state;
	make_file("DIR/disk", 0600, 4096);
	make_file("DIR/other", 0600, 4096);
	for (size_t i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
		base_vm();
		add_disk("d0", "DIR/disk", "raw");
		add_words(WORDS(list[i].option, list[i].value));
		/* The disk itself is on the command line, so that only the rest is amiss. */
		add_words(WORDS("-blockdev", "driver=file,filename=DIR/disk,node-name=ok"));
		if (!plan())
			fail_msg("was planned: %s %s", list[i].option, list[i].value);
		if (!strstr(fx.f.message, list[i].option))
			fail_msg("%s does not name %s %s", fx.f.message, list[i].option,
				 list[i].value);
	}
	/* An image without any option. */
	base_vm();
	add_words(WORDS("/etc/shadow"));
	assert_refused("/etc/shadow");
	base_vm();
	add_words(WORDS("disk.img"));
	assert_refused("disk.img");
	/* Its format is unknown: it would be probed. */
	base_vm();
	add_disk("d0", "DIR/disk", "");
	add_words(WORDS("-drive", "file=DIR/disk"));
	assert_refused("-drive");
	/* A link is what it leads to. */
	base_vm();
	char *link = in_dir("DIR/link");

	assert_int_equal(symlink("/proc/self/mem", link), 0);
	add_disk("d0", "DIR/link", "raw");
	add_words(WORDS("-drive", "file=DIR/link,format=raw"));
	assert_refused("-drive");
	free(link);
}

static void test_backends(void **state)
{
	static const struct hostile list[] = {
		{ "-chardev", "socket,id=c,fd=3,server=on" },
		{ "-chardev", "file,id=c,path=/etc/cron.d/x" },
		{ "-chardev", "file,id=c,path=/etc/passwd,append=on" },
		{ "-chardev", "file,id=c,path=DIR/there" },
		{ "-chardev", "file,id=c,path=DIR/dangling" },
		{ "-chardev", "file,id=c,path=relative" },
		{ "-chardev", "file,id=c,path=DIR/" },
		{ "-chardev", "file,id=c" },
		{ "-chardev", "null,id=c,logfile=/etc/cron.d/x" },
		{ "-chardev", "null,id=c,logfile=DIR/there" },
		{ "-chardev", "pty,id=c,path=/etc/x" },
		{ "-chardev", "socket,id=c,path=DIR/there,server=on" },
		{ "-chardev", "socket,id=c,path=DIR/peer" }, /* would connect to another program */
		{ "-chardev", "socket,id=c,path=peer,abstract=on" },
		{ "-chardev", "socket,id=c,host=h,port=1,tls-creds=t" },
		{ "-chardev", "serial,id=c,path=/dev/ttyS0" },
		{ "-chardev", "pipe,id=c,path=DIR/there" },
		{ "-chardev", "testdev,id=c" },
		{ "-chardev", "id=c" },
		{ "-serial", "/dev/ttyS0" },
		{ "-serial", "file:/etc/cron.d/x" },
		{ "-serial", "file:DIR/there" },
		{ "-serial", "unix:DIR/there,server=on,wait=off" },
		{ "-serial", "unix:DIR/new,server=on,fd=3" },
		{ "-serial", "tcp:h:1,fd=3" },
		{ "-serial", "tcp:h:1,,fd=3" },
		{ "-serial", "tcp:h:1,path=/etc/x" },
		{ "-serial", "telnet:h:1,server=on,logfile=/etc/x" },
		{ "-serial", "mon:unix:DIR/there,server=on" },
		{ "-serial", "pipe:DIR/there" },
		{ "-monitor", "exec:sh" },
		{ "-monitor", "unix:DIR/qmp.sock,server=on" }, /* -qmp makes it already */
		{ "-qmp", "unix:DIR/there,server=on,wait=off" },
		{ "-mon", "chardev=c,mode=x" },
		{ "-netdev", "tap,id=n,fd=3" },
		{ "-netdev", "{\"type\":\"tap\",\"id\":\"n\",\"fd\":\"3\"}" },
		{ "-netdev",
		  "{\"type\":\"tap\",\"id\":\"n\",\"fds\":\"3:4\",\"vhostfds\":\"5:6\"}" },
		{ "-netdev", "tap,id=n,ifname=lo" },
		{ "-netdev", "tap,id=n,ifname=lo,script=/tmp/x" },
		{ "-netdev", "tap,id=n,ifname=lo,script=no,downscript=/tmp/x" },
		{ "-netdev", "tap,id=n,script=no" },
		{ "-netdev", "tap,id=n,ifname=nosuchif0,script=no" },
		{ "-netdev", "tap,id=n,helper=/tmp/x" },
		{ "-netdev", "bridge,id=n,br=br0" },
		{ "-netdev", "user,id=n,guestfwd=tcp:10.0.2.100:1-cmd:sh" },
		{ "-netdev", "{\"type\":\"user\",\"id\":\"n\",\"guestfwd\":[{\"str\":\"tcp:1:1-cmd:"
			     "sh\"}]}" },
		{ "-netdev", "user,id=n,tftp=/etc" },
		{ "-netdev", "user,id=n,smb=/etc" },
		{ "-netdev", "vhost-user,id=n,chardev=c" },
		{ "-netdev", "vhost-vdpa,id=n,vhostdev=/dev/vhost-vdpa-0" },
		{ "-netdev", "stream,id=n,addr.type=unix,addr.path=/run/x" },
		{ "-netdev", "stream,id=n,addr.type=fd,addr.str=3" },
		{ "-netdev", "socket,id=n,fd=3" },
		{ "-netdev", "l2tpv3,id=n,src=a,dst=b,txsession=1" },
		{ "-nic", "bridge,br=br0" },
		{ "-nic", "user,smb=/etc" },
		{ "-net", "tap" },
		{ "-display", "gtk" },
		{ "-display", "egl-headless,rendernode=/dev/dri/renderD128" },
		{ "-display", "vnc=unix:/etc/x" },
		{ "-vnc", "unix:/etc/x" },
		{ "-vnc", ":0,tls-creds=t" },
		{ "-vnc", ":0,reverse=on" },
		{ "-audiodev", "wav,id=a,path=/etc/x" },
		{ "-audiodev", "{\"driver\":\"wav\",\"id\":\"a\",\"path\":\"/etc/x\"}" },
	};
	char *link = in_dir("DIR/dangling"), *peer = in_dir("DIR/peer");
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	(void)state;
	make_file("DIR/there", 0600, 1);
	assert_int_equal(symlink("/etc/cron.d/x", link), 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", peer);
	assert_int_equal(bind(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
	refuse_all(list, sizeof(list) / sizeof(list[0]));
	close(fd);
	free(link);
	free(peer);
}

static void test_ram(void **state)
{
	static const char *const objects[] = {
		RAM "DIR/ram", /* not shared */
		RAM "DIR/ram,share=off",
		RAM "DIR/ram,share=on,readonly=on",
		RAM "DIR/ram,share=on,pmem=on",
		RAM "DIR/ram,share=on,offset=4096",
		RAM "DIR/ram,share=on,mem-path=/etc/passwd",
		RAM "DIR/ram,share=on,unknown=1",
		RAM "ram,share=on",	 /* relative */
		RAM "/etc/ram,share=on", /* not tmpfs, and not the VM's RAM */
		RAM "DIR/nowhere/ram,share=on",
		RAM "DIR,share=on", /* a directory */
		RAM "DIR/,share=on",
		"memory-backend-file,id=ram0,size=64M,share=on",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(objects) / sizeof(objects[0]); i++) {
		base_vm();
		/* So that the path is not what the refusal is about, except where it is. */
		fx.regions[0].path[0] = '\0';
		set_words(WORDS(QEMU, "-M", "q35,memory-backend=ram0", "-object", objects[i],
				"-qmp", "unix:DIR/qmp.sock,server=on,wait=off"));
		if (!plan())
			fail_msg("was planned: %s", objects[i]);
		if (!strstr(fx.f.message, "-object"))
			fail_msg("%s: %s", objects[i], fx.f.message);
	}
	/* The file has another name than mem-path: that is a directory at the source. */
	base_vm();
	strcat(fx.regions[0].path, "/qemu_back_mem.ram0.x");
	assert_refused("-object");
	/* Huge pages come from hugetlbfs only. */
	base_vm();
	fx.regions[0].hugetlb = true;
	fx.regions[0].page_size = 2u << 20;
	assert_refused("hugetlbfs");
	/* What would be made must not be there. */
	base_vm();
	make_file("DIR/ram." SESSION, 0600, 1);
	assert_refused("ram." SESSION);
}

static void test_whole(void **state)
{
	char *qmp = in_dir("DIR/qmp.sock");
	char deep[400];

	(void)state;
	/* Hot-plugged RAM, disk, device. */
	add_region("ram1", "DIR/ram1");
	assert_refused("ram1");
	base_vm();
	make_file("DIR/late", 0600, 1);
	add_disk("d9", "DIR/late", "raw");
	assert_refused("late");
	base_vm();
	fx.vm.extra = json_pack("{s:[s]}", "hotplugged", "nic7");
	assert_refused("nic7");
	json_decref(fx.vm.extra);
	/* Binaries. */
	base_vm();
	free(fx.argv[0]);
	fx.argv[0] = strdup("/bin/sh");
	assert_refused("/bin/sh");
	free(fx.argv[0]);
	fx.argv[0] = strdup("../../tmp/qemu-system-aarch64");
	assert_refused("qemu-system-aarch64");
	clear_words();
	assert_refused("command line");
	fx.vm.argv = NULL;
	assert_refused("command line");
	/* The machine type goes to the command line: it must be a word. */
	base_vm();
	strcpy(fx.vm.machine, "q35,dumpdtb=/etc/x");
	assert_refused("command line");
	fx.vm.machine[0] = '\0';
	assert_refused("command line");
	/* No QMP socket of its own, or one that is there. */
	base_vm();
	set_words(WORDS(QEMU, "-object", RAM "DIR/ram,share=on"));
	assert_refused("command line");
	base_vm();
	make_file("DIR/qmp.sock", 0600, 0);
	assert_refused("qmp.sock");
	unlink(qmp);
	/* A path that no socket can have. */
	base_vm();
	set_words(WORDS(QEMU, "-object", RAM "DIR/ram,share=on", "-qmp"));
	snprintf(deep, sizeof(deep), "unix:%s/%0120d,server=on,wait=off", fx.dir, 0);
	add_words(WORDS(deep));
	assert_refused("command line");
	/* A session id is part of paths. */
	base_vm();
	assert_int_equal(launch_plan(&fx.plan, &fx.vm, &fx.config, "../../../etc/x", &fx.f),
			 -EINVAL);
	free(qmp);
}

/* Bytes that are no text, and too much of everything. */
static void test_shapes(void **state)
{
	static char huge[100 << 10], many[8192];

	(void)state;
	add_words(WORDS("-device", "\xff\x01\n,x"));
	assert_refused("-device");
	for (const char *c = fx.f.message; *c; c++)
		assert_true(*c >= ' ' && *c < 127);
	base_vm();
	memset(huge, 'a', sizeof(huge) - 1);
	add_words(WORDS("-name", huge));
	assert_refused("command line");
	base_vm();
	for (size_t i = 0; i + 10 < sizeof(many); i += 4)
		memcpy(many + i, "a=b,", 5);
	add_words(WORDS("-device", many));
	assert_refused("-device");
	base_vm();
	memset(many, '[', 4000);
	memcpy(many, "{\"driver\":", 10);
	many[4000] = '\0';
	add_words(WORDS("-device", many));
	assert_refused("-device");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_options),  TEST(test_devices), TEST(test_objects), TEST(test_disks),
		TEST(test_backends), TEST(test_ram),	 TEST(test_whole),   TEST(test_shapes),
	};

	if (access(QEMU, X_OK)) {
		printf("skipped: no %s\n", QEMU);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
