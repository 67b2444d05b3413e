# SPDX-License-Identifier: MIT
# tranship. `make help` lists the targets. Sources are found by folder; each folder's *_main.c is a
# program, everything else goes into the folder's library:
#   lib/base -> base; lib -> tranship (libtranship); dataplane; control; each may use those before it,
#   and control may use dataplane's ipc and region headers.

CC      ?= gcc
BUILD   ?= build
V       ?= 0
PREFIX  ?= /usr/local
WERROR  ?= 0
SANITIZE ?=
VERSION := 0.1.0

# One line a file; V=1 shows the commands. All processors, unless -j was given.
Q := $(if $(filter 0,$(V)),@)
say = $(if $(filter 0,$(V)),@printf '  %-4s %s\n' $(1) $(2:$(BUILD)/%=%))
ifeq ($(MAKELEVEL)$(filter -j%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(shell nproc)
endif

CFLAGS ?= -O2 -g
ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DTRANSHIP_VERSION='"$(VERSION)"' -I. -pthread -MMD -MP \
	-Wall -Wextra -Wshadow -Wvla -Wmissing-prototypes $(if $(filter 1,$(WERROR)),-Werror) \
	$(CFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE) -fno-omit-frame-pointer)
ALL_LDFLAGS = -pthread $(LDFLAGS) $(if $(SANITIZE),-fsanitize=$(SANITIZE))
LIBS = -luring -lzstd -lgnutls -lseccomp -lxxhash -ljansson -lmicrohttpd -lcurl-gnutls -lm

objs = $(patsubst %.c,$(BUILD)/obj/%.o,$(filter-out %_main.c,$(wildcard $(1:%=%/*.c))))
LIB_BASE      := $(BUILD)/libbase.a
LIB_TRANSHIP  := $(BUILD)/libtranship.a
LIB_DATAPLANE := $(BUILD)/libdataplane.a
LIB_CONTROL   := $(BUILD)/libcontrol.a
ARCHIVES := $(LIB_CONTROL) $(LIB_DATAPLANE) $(LIB_TRANSHIP) $(LIB_BASE)

PROGRAMS := $(BUILD)/transhipd $(BUILD)/tranship $(BUILD)/tranship-dataplane \
	$(BUILD)/tranship-guard $(BUILD)/tranship-synthetic
UNIT_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/unit/*/test_*.c tests/unit/*/*/test_*.c))
PLATFORM_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/platform/*.c))
FUZZ_TARGETS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/fuzz/fuzz_*.c))
BENCHES := $(patsubst %.c,$(BUILD)/%,$(wildcard bench/*.c))

.DEFAULT_GOAL := all
.PHONY: all help deps deps-demo deps-test check test demo bench bench-vs-qemu lint format \
	check-asan check-tsan fuzz install clean guests demo-guest

all: $(PROGRAMS)

help:
	@echo 'make all        build the programs into $(BUILD)/'
	@echo 'make demo       install what is missing, build, move a running VM between two hosts'
	@echo 'make test       install what is missing, build with WERROR=1, run every test'
	@echo 'make check      unit and platform tests only'
	@echo 'make fuzz       each parser of foreign bytes under libFuzzer, FUZZ_SECONDS=60 each'
	@echo 'make bench      every benchmark and comparison, plots; BENCH_QUICK=1 for a short one'
	@echo 'make bench-report   the figures of the last make bench into docs/benchmarks.md and README.md'
	@echo 'make bench-vs-qemu  the same VM moved by QEMU and by tranship, side by side'
	@echo 'make check-asan, check-tsan   unit tests under sanitizers'
	@echo 'make lint, format, install, clean'

$(LIB_BASE): $(call objs,lib/base)
# libtranship.a is installed alone: it brings what it uses of lib/base.
$(LIB_TRANSHIP): $(call objs,lib) $(BUILD)/obj/lib/base/io.o
$(LIB_DATAPLANE): $(call objs,dataplane dataplane/bench dataplane/codec dataplane/destination dataplane/postcopy dataplane/source dataplane/track dataplane/transport)
$(LIB_CONTROL): $(call objs,control control/cli control/guest control/admission control/session \
	control/bench control/policy)
$(ARCHIVES):
	$(call say,AR,$@)
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(ALL_CFLAGS) -c $< -o $@

$(BUILD)/transhipd: $(BUILD)/obj/control/transhipd_main.o $(ARCHIVES)
$(BUILD)/tranship: $(BUILD)/obj/control/cli/tranship_main.o $(ARCHIVES)
$(BUILD)/tranship-dataplane: $(BUILD)/obj/dataplane/dataplane_main.o $(LIB_DATAPLANE) $(LIB_BASE)
$(BUILD)/tranship-guard: $(BUILD)/obj/control/guard_main.o $(LIB_BASE)
$(BUILD)/tranship-synthetic: $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tools/synthetic_*.c)) \
	$(LIB_TRANSHIP) $(LIB_BASE)
$(PROGRAMS):
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o %.a,$^) -Wl,--as-needed $(LIBS)

# A test or benchmark is one file with a main; it may use everything.
$(UNIT_TESTS) $(PLATFORM_TESTS) $(BENCHES): $(BUILD)/%: $(BUILD)/obj/%.o $(ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) -o $@ $(filter %.o %.a,$^) -Wl,--as-needed $(LIBS) -lcmocka

$(BUILD)/bench/deferral: $(patsubst %,$(BUILD)/obj/tools/synthetic_%.o,pattern pages)

# A fuzz target gets its main from libFuzzer, or from a driver that replays the saved corpus.
FUZZER ?=
FUZZ_MAIN := $(if $(FUZZER),,$(BUILD)/obj/tests/fuzz/replay_main.o)
$(FUZZ_TARGETS): $(BUILD)/%: $(BUILD)/obj/%.o $(FUZZ_MAIN) $(ARCHIVES)
	@mkdir -p $(@D)
	$(call say,LD,$@)
	$(Q)$(CC) $(ALL_LDFLAGS) $(if $(FUZZER),-fsanitize=fuzzer) -o $@ $(filter %.o %.a,$^) \
		-Wl,--as-needed $(LIBS) -lcmocka

deps:
	@tools/install-deps build
deps-demo:
	@tools/install-deps demo
deps-test:
	@tools/install-deps test

check: $(PROGRAMS) $(UNIT_TESTS) $(PLATFORM_TESTS) $(FUZZ_TARGETS)
	@BUILD=$(BUILD) tests/run unit platform

test: deps-test
	@$(MAKE) --no-print-directory WERROR=1 all check-build guests
	@BUILD=$(BUILD) tests/run

.PHONY: check-build
check-build: $(PROGRAMS) $(UNIT_TESTS) $(PLATFORM_TESTS) $(FUZZ_TARGETS) $(BENCHES)

guests:
	@$(MAKE) --no-print-directory -C tests/guest BUILD=$(abspath $(BUILD))/guest
# What make demo moves: no kernel is needed for it.
demo-guest:
	@$(MAKE) --no-print-directory -C tests/guest BUILD=$(abspath $(BUILD))/guest bare

demo: deps-demo
	@$(MAKE) --no-print-directory all demo-guest
	@BUILD=$(BUILD) tools/demo

bench-vs-qemu: deps-test
	@$(MAKE) --no-print-directory all guests check-build
	@BUILD=$(BUILD) bench/vs-qemu

# All benchmarks and comparisons, half an hour; BENCH_QUICK=1: minutes. BENCH=SECTION... for some.
BENCH ?=
BENCH_QUICK ?= 0
bench:
	@tools/install-deps bench
	@$(MAKE) --no-print-directory all guests check-build
	@BUILD=$(BUILD) BENCH_QUICK=$(BENCH_QUICK) bench/run $(BENCH)

# The tables of docs/benchmarks.md and README.md, of what the last `make bench` measured.
.PHONY: bench-report
bench-report:
	@BUILD=$(BUILD) bench/report

check-asan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan SANITIZE=address,undefined check-sanitized
check-tsan:
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan SANITIZE=thread check-sanitized
.PHONY: check-sanitized
check-sanitized: $(PROGRAMS) $(UNIT_TESTS) $(FUZZ_TARGETS)
	@BUILD=$(BUILD) tests/run unit

# Each target for FUZZ_SECONDS; FUZZ=PATTERN chooses some; what was found goes to $(BUILD)/fuzz.
FUZZ_SECONDS ?= 60
FUZZ ?= *
FUZZ_FLAGS := CC=clang FUZZER=1 SANITIZE=address,undefined \
	CFLAGS='-O1 -g -fsanitize=fuzzer-no-link -fno-sanitize-recover=undefined \
	-Wno-missing-field-initializers -Wno-unknown-pragmas'
fuzz:
	@tools/install-deps fuzz
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz $(FUZZ_FLAGS) fuzz-build
	@BUILD=$(BUILD)/fuzz FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run '$(FUZZ)'
.PHONY: fuzz-build
fuzz-build: $(FUZZ_TARGETS)
# clang knows no "#pragma GCC target".
$(BUILD)/obj/dataplane/%_avx2.o: ALL_CFLAGS += $(if $(FUZZER),-mavx2)

lint:
	@tests/lint

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

install: all
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/sbin $(DESTDIR)$(PREFIX)/lib/tranship \
		$(DESTDIR)$(PREFIX)/share/man/man1 $(DESTDIR)$(PREFIX)/share/man/man8 \
		$(DESTDIR)$(PREFIX)/include
	install -m 755 $(BUILD)/tranship $(BUILD)/tranship-synthetic $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(BUILD)/transhipd $(DESTDIR)$(PREFIX)/sbin
	install -m 755 $(BUILD)/tranship-dataplane $(BUILD)/tranship-guard $(DESTDIR)$(PREFIX)/lib/tranship
	install -m 644 $(LIB_TRANSHIP) $(DESTDIR)$(PREFIX)/lib
	install -m 644 lib/tranship.h $(DESTDIR)$(PREFIX)/include
	install -m 644 docs/tranship.1 $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 docs/transhipd.8 $(DESTDIR)$(PREFIX)/share/man/man8

clean:
	rm -rf $(BUILD)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
