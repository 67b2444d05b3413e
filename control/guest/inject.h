/* SPDX-License-Identifier: MIT */
/*
 * One system call made inside another process, by ptrace. x86-64 only.
 *
 * No code or memory of the process is written. The call is made by one of its threads, which goes
 * on afterwards as if nothing had been: registers, signal mask and an interrupted system call are
 * as they were. What is unavoidable: a call that Linux never restarts after a stop (epoll_wait,
 * sigtimedwait, io_getevents, KVM_RUN) returns EINTR; a thread outside of these is preferred.
 */
#ifndef TRANSHIP_CONTROL_INJECT_H
#define TRANSHIP_CONTROL_INJECT_H

#include <stdint.h>
#include <sys/types.h>

#include "lib/base/failure.h"

/*
 * *result: what the call returned, -errno if it failed. Returns 0 if it was made, else (f:
 * inject-failed, vm-gone) -ESRCH the process is gone, -EBUSY it is stopped or traced already,
 * -EPERM it may not be traced, -EOPNOTSUPP not an x86-64 process or host, -ETIMEDOUT no thread
 * stopped within a second (nothing was changed) or the call itself does not return (a process of
 * our own stays behind to restore the thread when it does). Takes about 1 ms, most of it ours; the
 * thread is held for some 0.1 ms. Safe from any thread.
 */
int inject_syscall(pid_t pid, long nr, const uint64_t args[6], int64_t *result, struct failure *f);

#endif
