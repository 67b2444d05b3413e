// SPDX-License-Identifier: MIT
/* The failure record, and the one list of stable error codes. */
#include "lib/base/failure.h"

#include <stdio.h>
#include <string.h>

#include "lib/base/text.h"

const struct failure_code failure_codes[] = {
	{ "usage", "the command line or the request is malformed" },
	{ "daemon-unreachable", "the local transhipd does not answer on its socket" },
	{ "peer-unreachable", "the destination's transhipd does not answer" },
	{ "peer-version", "the two daemons have no protocol version in common" },
	{ "peer-failed", "the destination reported a failure of its own" },
	{ "plaintext-refused", "unencrypted streams are not allowed on both sides" },
	{ "encryption-unavailable", "encrypted streams were asked for and are not available" },
	{ "unsupported-option", "the option asks for something this version does not have" },
	{ "vm-not-found", "no VM of that name, socket or pid" },
	{ "vm-ambiguous", "more than one VM matches" },
	{ "vm-busy", "a session for this VM is already under way" },
	{ "vm-gone", "the VM's process ended during the session" },
	{ "vm-changed", "a device or memory was plugged in or removed during the session" },
	{ "vm-not-running", "the VM is in a state from which it cannot be moved" },
	{ "qmp-busy", "another manager holds every QMP socket of the VM" },
	{ "qmp-failed", "QEMU refused or did not answer a command" },
	{ "vmm-failed", "a VMM that links libtranship refused or did not answer a request" },
	{ "ram-not-shared", "the VM's RAM is not in a shared file" },
	{ "ram-memfd", "the RAM is a memfd and this QEMU would send it whole" },
	{ "ram-layout", "the RAM regions of the two VMs differ" },
	{ "ram-unsupported", "a RAM backing that cannot be moved from outside" },
	{ "memory", "not enough free memory at the destination" },
	{ "cpu-model", "the CPU model or its features are not available at the destination" },
	{ "machine-type", "the machine type is not available at the destination" },
	{ "qemu-version", "the QEMU versions do not fit" },
	{ "device-blocks", "a device of the VM blocks migration" },
	{ "device-passthrough", "a passed-through device writes RAM unseen" },
	{ "outside-writer", "another process can write the VM's RAM unseen" },
	{ "disk-not-shared", "a disk is not on storage that both hosts see" },
	{ "confidential", "confidential guests cannot be moved from outside" },
	{ "launch-refused", "the VM's command line is not one that the destination will launch" },
	{ "launch-failed", "QEMU did not start at the destination" },
	{ "incoming-not-waiting", "the VM at the destination does not wait for a migration" },
	{ "tracker-unavailable", "this kernel cannot track the VM's writes from outside" },
	{ "tracker-lost", "tracking of the VM's writes was lost during the session" },
	{ "inject-failed", "no userfaultfd could be made inside the VM's process" },
	{ "throttle-unavailable", "the VM's processors cannot be slowed down here" },
	{ "data-connect", "the data streams could not be connected" },
	{ "data-auth", "a data stream failed to authenticate itself" },
	{ "data-protocol", "the data streams carried something malformed" },
	{ "data-lost", "a data stream broke" },
	{ "dataplane-died", "the data-plane process ended unexpectedly" },
	{ "not-converging", "the VM dirties memory faster than it can be sent" },
	{ "timeout", "the time limit given with --timeout passed" },
	{ "pause-limit", "the guest would have stood still far longer than it is allowed to" },
	{ "state-failed", "QEMU could not save or load the device state" },
	{ "disk-locked", "the destination could not take over a disk image" },
	{ "verify-mismatch", "the two sides' RAM differs after the copy" },
	{ "cancelled", "the session was cancelled" },
	{ "session-not-found", "no session of that id" },
	{ "session-state", "the session is in a state that does not allow this" },
	{ "unresolved", "which side owns the guest is not known" },
	{ "journal", "the session journal could not be written or read" },
	{ "state-dir-full", "the state directory has no room for what is missing in post-copy" },
	{ "busy", "the host admits no further session now" },
	{ "internal", "a defect in tranship or a failing system call" },
	{ NULL, NULL },
};

bool failure_code_known(const char *code)
{
	for (const struct failure_code *c = failure_codes; c->code; c++)
		if (!strcmp(c->code, code))
			return true;
	return false;
}

void failure_clear(struct failure *f)
{
	memset(f, 0, sizeof(*f));
}

int failure_set(struct failure *f, int err, const char *code, const char *hint, const char *fmt,
		...)
{
	va_list args;

	if (!f || failure_is_set(f))
		return err;
	snprintf(f->code, sizeof(f->code), "%s", code);
	snprintf(f->hint, sizeof(f->hint), "%s", hint ? hint : "");
	va_start(args, fmt);
	vsnprintf(f->message, sizeof(f->message), fmt, args);
	va_end(args);
	/* What begins with a name keeps it. */
	if (fmt[0] != '%')
		text_sentence(f->message);
	text_sentence(f->hint);
	/* Names and paths may be any bytes; what is shown and sent on is text. */
	text_clean(f->message);
	text_clean(f->hint);
	return err;
}
