// A clock of its own for one process. Preloaded (LD_PRELOAD), it moves CLOCK_REALTIME by as many seconds as the file named in
// CLOCK_SHIFT holds (a 64-bit integer, seen at once when it changes), and leaves CLOCK_MONOTONIC alone. The machine's clock is
// never touched. systemd-timesyncd keeps it only where there is a CLOCK_SYNCHRONIZED in the environment.
//
// Timers on CLOCK_REALTIME with an absolute time are moved back when they are set, so that they go off when the shifted clock
// shows their time. One that is set already does not notice a later shift, as a real one would: who needs that must look at the clock.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { tracked = 65536 };
static const volatile int64_t *shift;
static unsigned char is_realtime[tracked];
static int (*real_gettime)(clockid_t, struct timespec *);
static int (*real_create)(int, int);
static int (*real_settime)(int, int, const struct itimerspec *, struct itimerspec *);

__attribute__((constructor)) static void prepare(void) {
  real_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
  real_create = (int (*)(int, int))dlsym(RTLD_NEXT, "timerfd_create");
  real_settime =
      (int (*)(int, int, const struct itimerspec *, struct itimerspec *))dlsym(RTLD_NEXT, "timerfd_settime");
  const char *path = getenv("CLOCK_SHIFT");
  int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
  if (file < 0) return;
  void *memory = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
  if (memory != MAP_FAILED) shift = memory;
  close(file);
  // Children keep the machine's time.
  unsetenv("LD_PRELOAD");
}

static int64_t seconds(void) { return shift ? *shift : 0; }

int clock_gettime(clockid_t clock, struct timespec *time) {
  if (!real_gettime) prepare();
  int result = real_gettime(clock, time);
  if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += seconds();
  return result;
}

int gettimeofday(struct timeval *restrict time, void *restrict zone) {
  (void)zone;
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  time->tv_sec = now.tv_sec;
  time->tv_usec = now.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *result) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (result) *result = now.tv_sec;
  return now.tv_sec;
}

// Whether anybody keeps the machine's own clock is no matter here.
int access(const char *path, int mode) {
  if (strcmp(path, "/run/systemd/timesync/synchronized") != 0) return faccessat(AT_FDCWD, path, mode, 0);
  errno = ENOENT;
  return getenv("CLOCK_SYNCHRONIZED") ? 0 : -1;
}

int timerfd_create(int clock, int flags) {
  if (!real_create) prepare();
  int file = real_create(clock, flags);
  if (file >= 0 && file < tracked) is_realtime[file] = clock == CLOCK_REALTIME;
  return file;
}

int timerfd_settime(int file, int flags, const struct itimerspec *wanted, struct itimerspec *old) {
  if (!real_settime) prepare();
  struct itimerspec moved = *wanted;
  int is_set = moved.it_value.tv_sec != 0 || moved.it_value.tv_nsec != 0;
  if (file >= 0 && file < tracked && is_realtime[file] && (flags & TFD_TIMER_ABSTIME) && is_set) {
    moved.it_value.tv_sec -= seconds();
    if (moved.it_value.tv_sec < 1) moved.it_value = (struct timespec){.tv_sec = 1};
  }
  return real_settime(file, flags, &moved, old);
}
