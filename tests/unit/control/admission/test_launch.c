// SPDX-License-Identifier: MIT
/* Planning a launch: what is taken, rewritten and dropped. Refusals: test_launch_hostile.c. */
#include "tests/unit/control/admission/launch_fixture.h"

static void test_base(void **state)
{
	size_t n = 0;

	(void)state;
	assert_planned();
	assert_string_equal(fx.plan.argv[0], QEMU);
	assert_has("-machine", "pc-q35-7.2,accel=tcg,memory-backend=ram0");
	assert_has("-object",
		   "memory-backend-file,id=ram0,size=64M,mem-path=DIR/ram." SESSION ",share=on");
	assert_has("-qmp", "unix:DIR/qmp.sock,server=on,wait=off");
	assert_true(creates("DIR/ram." SESSION));
	assert_true(creates("DIR/qmp.sock"));
	assert_int_equal(strncmp(fx.plan.qmp_path, fx.dir, strlen(fx.dir)), 0);
	while (fx.plan.argv[n])
		n++;
	assert_string_equal(fx.plan.argv[n - 3], "-incoming");
	assert_string_equal(fx.plan.argv[n - 2], "defer");
	assert_string_equal(fx.plan.argv[n - 1], "-S");
}

/* The name of the RAM file does not grow with every move, and other suffixes are left alone. */
static void test_ram_names(void **state)
{
	static const struct {
		const char *old, *new;
	} cases[] = {
		{ "DIR/ram.ffeeddccbbaa99887766554433221100", "DIR/ram." SESSION },
		{ "DIR/ram.ffeeddccbbaa9988776655443322110",
		  "DIR/ram.ffeeddccbbaa9988776655443322110." SESSION },
		{ "DIR/ram.FFEEDDCCBBAA99887766554433221100",
		  "DIR/ram.FFEEDDCCBBAA99887766554433221100." SESSION },
		{ "DIR/.ffeeddccbbaa99887766554433221100",
		  "DIR/.ffeeddccbbaa99887766554433221100." SESSION },
		{ "DIR/a,b", "DIR/a,b." SESSION },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char object[256], *p = in_dir(cases[i].old);
		char quoted[200];
		size_t n = 0;

		for (const char *c = cases[i].old; *c; c++) {
			if (*c == ',')
				quoted[n++] = ',';
			quoted[n++] = *c;
		}
		quoted[n] = '\0';
		snprintf(object, sizeof(object),
			 "memory-backend-file,id=ram0,size=64M,mem-path=%s,share=on", quoted);
		strcpy(fx.regions[0].path, p);
		free(p);
		set_words(WORDS(QEMU, "-M", "q35,memory-backend=ram0", "-object", object, "-qmp",
				"unix:DIR/qmp.sock,server,nowait"));
		assert_planned();
		if (!creates(cases[i].new))
			fail_msg("%s did not become %s but %s", cases[i].old, cases[i].new,
				 fx.plan.created[0]);
	}
}

static void test_ram_dir(void **state)
{
	char *other = in_dir("DIR/other");

	(void)state;
	assert_int_equal(mkdir(other, 0700), 0);
	strcpy(fx.config.ram_dir, other);
	free(other);
	/* Two files of one name in two directories come into one. */
	add_region("ram1", "DIR/sub/ram");
	add_words(WORDS("-object",
			"memory-backend-file,id=ram1,size=64M,mem-path=DIR/sub/ram,share=on"));
	assert_planned();
	assert_true(creates("DIR/other/ram." SESSION));
	assert_true(creates("DIR/other/ram-1." SESSION));
	/* One that cannot hold RAM, or is not there, is not passed over. */
	strcpy(fx.config.ram_dir, "/usr");
	fx.vm.nregions = 1;
	base_vm();
	assert_refused("not on tmpfs");
	strcpy(fx.config.ram_dir, "/nonexistent");
	base_vm();
	assert_refused("/nonexistent");
}

static void test_json(void **state)
{
	(void)state;
	set_words(WORDS(
		QEMU, "-machine", "pc-q35-7.2,memory-backend=ram0", "-object",
		"{\"qom-type\":\"memory-backend-file\",\"id\":\"ram0\",\"mem-path\":\"DIR/ram\","
		"\"share\":true,\"size\":67108864,\"host-nodes\":[0]}",
		"-device", "{\"driver\":\"virtio-rng-pci\",\"id\":\"r\",\"addr\":\"0x5\"}",
		"-chardev", "socket,id=mon,path=DIR/qmp.sock,server=on", "-mon",
		"chardev=mon,mode=control"));
	assert_planned();
	assert_has("-object",
		   "{\"qom-type\":\"memory-backend-file\",\"id\":\"ram0\",\"mem-path\":\"DIR/"
		   "ram." SESSION "\",\"share\":true,\"size\":67108864,\"host-nodes\":[0]}");
	/* Nobody would come to a socket that waits for its client. */
	assert_has("-chardev", "socket,id=mon,path=DIR/qmp.sock,server=on,wait=off");
	assert_non_null(strstr(fx.plan.qmp_path, "/qmp.sock"));
}

static void test_dropped(void **state)
{
	static const char *const gone[] = { "-daemonize", "-pidfile", "DIR/pid", "--loadvm",
					    "snap",	  "-gdb",     "-s",	 "-D",
					    "-d",	  "-trace",   "tcp::1" };

	(void)state;
	add_words(WORDS("-daemonize", "-pidfile", "DIR/pid", "-S", "--incoming", "tcp:0:4444",
			"--loadvm", "snap", "-gdb", "tcp::1", "-s", "-D", "DIR/log", "-d", "int",
			"-trace", "enable=*"));
	assert_planned();
	for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++)
		assert_false(planned(gone[i], NULL));
	assert_false(planned("-incoming", "tcp:0:4444"));
	assert_has("-incoming", "defer");
}

/* What is not said must not be guessed anew by another QEMU. */
static void test_added(void **state)
{
	(void)state;
	set_words(WORDS("qemu-system-x86_64", "-m", "64", "-object",
			"memory-backend-file,id=ram0,size=64M,mem-path=DIR/ram,share", "-qmp",
			"unix:DIR/qmp.sock,server,nowait"));
	assert_planned();
	assert_string_equal(fx.plan.argv[0], QEMU);
	assert_has("-machine", "pc-q35-7.2");
	assert_has("-display", "none");
	assert_has("-qmp", "unix:DIR/qmp.sock,server=on,wait=off");
	set_words(WORDS(QEMU, "-machine", "accel=tcg", "-nographic", "-object",
			"memory-backend-file,id=ram0,size=64M,mem-path=DIR/ram,share=on", "-qmp",
			"unix:DIR/qmp.sock,server=on,wait=off"));
	assert_planned();
	assert_has("-machine", "pc-q35-7.2");
	assert_false(planned("-display", NULL));
}

static void test_by_hand(void **state)
{
	(void)state;
	make_file("DIR/disk,1.qcow2", 0600, 65536);
	make_file("DIR/cd.iso", 0644, 65536);
	make_file("DIR/vmlinuz", 0644, 10);
	make_file("DIR/console.log", 0600, 10);
	add_disk("d0", "DIR/disk,1.qcow2", "qcow2");
	add_disk("ide1-cd0", "DIR/cd.iso", "raw")->read_only = true;
	add_words(WORDS(
		"-cpu", "Skylake-Server,+x2apic,model-id=My CPU @ 3 GHz", "-smp",
		"4,sockets=1,cores=4", "-numa", "node,nodeid=0,cpus=0-1,cpus=2-3,memdev=ram0",
		"-drive", "file=DIR/disk,,1.qcow2,if=none,id=d0,cache=none,aio=native", "-device",
		"virtio-blk-pci,drive=d0,serial=a/b", "-cdrom", "DIR/cd.iso", "-netdev",
		"tap,id=n1,ifname=lo,script=no,vhost=on", "-vnc", "127.0.0.1:5,password=on",
		"-netdev", "user,id=n0,hostfwd=tcp::2222-:22,hostfwd=tcp::8080-:80", "-device",
		"virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile=", "-serial", "mon:stdio",
		"-chardev", "file,id=log,path=DIR/console.log,append=on", "-device",
		"isa-serial,chardev=log", "-kernel", "DIR/vmlinuz", "-append",
		"console=ttyS0 root=/dev/vda -incoming", "-bios", "bios-256k.bin", "-rtc",
		"base=utc,driftfix=slew", "-uuid", "7d6ea3b8-1b1e-4d9c-8f3e-2b6f1c4a5d60",
		"-global", "ICH9-LPC.disable_s3=1", "-sandbox", "on,spawn=deny", "-smbios",
		"type=1,manufacturer=a/b", "-boot", "d", "--no-reboot", "-enable-kvm", "-msg",
		"timestamp=on", "-usbdevice", "tablet", "-object",
		"rng-random,id=r,filename="
		"/dev/urandom",
		"-object", "iothread,id=io0", "-device",
		"isa-debug-exit,iobase="
		"0xf4",
		"-device", "pcie-root-port,port=16,chassis=1,id=p1"));
	assert_planned();
	/* The open format is named: a probed one the guest could change. */
	assert_has("-drive",
		   "file=DIR/disk,,1.qcow2,if=none,id=d0,cache=none,aio=native,format=qcow2");
	assert_has("-drive", "index=2,media=cdrom,file=DIR/cd.iso,format=raw");
	assert_has("-append", "console=ttyS0 root=/dev/vda -incoming");
	assert_has("-netdev", "user,id=n0,hostfwd=tcp::2222-:22,hostfwd=tcp::8080-:80");
	assert_has("-device", "virtio-net-pci,netdev=n0,mac=52:54:00:12:34:56,romfile=");
	assert_false(creates("DIR/console.log"));
}

static void test_blockdev(void **state)
{
	(void)state;
	make_file("DIR/disk.raw", 0600, 65536);
	add_disk("d0", "DIR/disk.raw", "raw");
	add_words(WORDS("-blockdev",
			"{\"driver\":\"file\",\"filename\":\"DIR/disk.raw\",\"node-name\":\"s\","
			"\"cache\":{\"direct\":true,\"no-flush\":false}}",
			"-blockdev", "driver=raw,node-name=f,file=s,read-only=off", "-device",
			"virtio-blk-pci,drive=f"));
	assert_planned();
	assert_has("-blockdev", "driver=raw,node-name=f,file=s,read-only=off");
	base_vm();
	add_disk("d0", "DIR/disk.raw", "raw");
	add_words(WORDS("-blockdev",
			"node-name=f,driver=qcow2,file.driver=file,file.filename=DIR/disk.raw"));
	assert_planned();
}

/* Backing images are opened by the image above them and are not on the command line. */
static void test_backing(void **state)
{
	(void)state;
	make_file("DIR/top.qcow2", 0600, 65536);
	make_file("DIR/base.raw", 0600, 65536);
	add_disk("d0", "DIR/top.qcow2", "qcow2");
	add_disk("d0/backing1", "DIR/base.raw", "raw")->read_only = true;
	add_words(WORDS("-drive", "file=DIR/top.qcow2,if=virtio,format=qcow2"));
	assert_planned();
}

/* Firmware is read from the system's own directories, and never written there. */
static void test_firmware(void **state)
{
	(void)state;
	add_disk("pflash0", QEMU, "raw")->read_only = true;
	add_words(WORDS("-drive", "if=pflash,format=raw,unit=0,readonly=on,file=" QEMU));
	assert_planned();
	base_vm();
	add_disk("pflash0", QEMU, "raw")->read_only = true;
	add_words(WORDS("-drive", "if=pflash,format=raw,unit=0,file=" QEMU));
	assert_refused("-drive");
	base_vm();
	add_disk("pflash0", QEMU, "raw")->read_only = true;
	add_words(WORDS("-blockdev", "driver=file,node-name=n,read-only=off,filename=" QEMU));
	assert_refused("-blockdev");
	base_vm();
	add_disk("pflash0", "/etc/shadow", "raw")->read_only = true;
	add_words(WORDS("-drive", "if=pflash,format=raw,readonly=on,file=/etc/shadow"));
	assert_refused("-drive");
}

static void test_memfd(void **state)
{
	(void)state;
	fx.vm.nregions = 0;
	add_region("ram0", "");
	set_words(WORDS(QEMU, "-M", "q35,memory-backend=ram0", "-object",
			"memory-backend-memfd,id=ram0,size=64M,share=on,hugetlb=off", "-qmp",
			"unix:DIR/qmp.sock,server=on,wait=off"));
	assert_planned();
	assert_has("-object", "memory-backend-memfd,id=ram0,size=64M,share=on,hugetlb=off");
}

static void test_vm_dirs(void **state)
{
	char *d = in_dir("DIR");

	(void)state;
	make_file("DIR/disk.raw", 0600, 65536);
	add_disk("d0", "DIR/disk.raw", "raw");
	add_words(WORDS("-drive", "file=DIR/disk.raw,format=raw"));
	snprintf(fx.config.vm_dirs[fx.config.nvm_dirs++], PATH_MAX, "%s/", d);
	assert_planned();
	snprintf(fx.config.vm_dirs[0], PATH_MAX, "%s/state", d);
	assert_refused("-qmp");
	/* A directory is not below one whose name it begins with. */
	snprintf(fx.config.vm_dirs[0], PATH_MAX, "%.*s", (int)strlen(d) - 1, d);
	assert_refused("-qmp");
	free(d);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fixture_setup, fixture_teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_base),    TEST(test_ram_names), TEST(test_ram_dir), TEST(test_json),
		TEST(test_dropped), TEST(test_added),	  TEST(test_by_hand), TEST(test_blockdev),
		TEST(test_backing), TEST(test_memfd),	  TEST(test_vm_dirs), TEST(test_firmware),
	};

	if (access(QEMU, X_OK)) {
		printf("skipped: no %s\n", QEMU);
		return 77;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
