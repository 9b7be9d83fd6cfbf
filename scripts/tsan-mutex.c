/* Tells ThreadSanitizer of Swift's Mutex (preloaded by scripts/sanitize.sh).
 *
 * On Linux a Mutex is a futex. Its quick paths are compiled into the caller, and instrumented with it. Its slow path, for
 * a lock that another thread holds, lies in libswiftSynchronization.so, which is not: the lock is taken there unseen, and
 * all that it protects is reported as a race; and so it is let go, where another thread waits for it. (Swift:
 * stdlib/public/Synchronization/Mutex/LinuxImpl.swift.) The word of the futex begins the handle. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern void __tsan_acquire(void *address) __attribute__((weak));
extern void __tsan_release(void *address) __attribute__((weak));

typedef __attribute__((swiftcall)) void (*lock_slow)(uint32_t, __attribute__((swift_context)) void *);
typedef __attribute__((swiftcall)) void (*unlock_slow)(__attribute__((swift_context)) void *);
typedef __attribute__((swiftcall)) bool (*try_lock_slow)(__attribute__((swift_context)) void *);

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"
#define TRY_LOCK "$s15Synchronization12_MutexHandleV12_tryLockSlowSbyF"

/* Without its original the program would go on unlocked. */
static void *original(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (found == NULL) {
    fprintf(stderr, "tsan-mutex: libswiftSynchronization has no %s: this Swift's Mutex is another one\n", name);
    abort();
  }
  return found;
}

__attribute__((swiftcall)) void lock(uint32_t state, __attribute__((swift_context)) void *handle) __asm__(LOCK);
__attribute__((swiftcall)) void lock(uint32_t state, __attribute__((swift_context)) void *handle) {
  ((lock_slow)original(LOCK))(state, handle);
  if (__tsan_acquire) __tsan_acquire(handle);
}

__attribute__((swiftcall)) void unlock(__attribute__((swift_context)) void *handle) __asm__(UNLOCK);
__attribute__((swiftcall)) void unlock(__attribute__((swift_context)) void *handle) {
  if (__tsan_release) __tsan_release(handle);
  ((unlock_slow)original(UNLOCK))(handle);
}

__attribute__((swiftcall)) bool try_lock(__attribute__((swift_context)) void *handle) __asm__(TRY_LOCK);
__attribute__((swiftcall)) bool try_lock(__attribute__((swift_context)) void *handle) {
  bool is_locked = ((try_lock_slow)original(TRY_LOCK))(handle);
  if (is_locked && __tsan_acquire) __tsan_acquire(handle);
  return is_locked;
}

/* Not for the servers and programs that tests start. */
__attribute__((constructor)) static void stay_here(void) {
  const char *ending = strrchr(program_invocation_short_name, '.');
  if (ending != NULL && strcmp(ending, ".xctest") == 0) unsetenv("LD_PRELOAD");
}
