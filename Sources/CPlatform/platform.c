#define _GNU_SOURCE
#include "CPlatform.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

int cplatform_pipe(int descriptors[2], size_t bytes) {
  if (pipe2(descriptors, O_CLOEXEC) != 0) return -1;
  (void)fcntl(descriptors[0], F_SETPIPE_SZ, (int)bytes);
  return 0;
}

int cplatform_memory_file(const char *name) {
  int file = memfd_create(name, MFD_CLOEXEC);
  if (file < 0) return -1;
  if (fchmod(file, 0600) != 0) {
    int reason = errno;
    close(file);
    errno = reason;
    return -1;
  }
  return file;
}

int cplatform_rename_exclusive(int from_folder, const char *from, int to_folder, const char *to) {
  if (renameat2(from_folder, from, to_folder, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  if (linkat(from_folder, from, to_folder, to, 0) != 0) return -1;
  return unlinkat(from_folder, from, 0);
}

void cplatform_trim_heap(void) { malloc_trim(0); }

void cplatform_tune_heap(void) {
  mallopt(M_ARENA_MAX, 4);
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

void cplatform_begin_writeback(int file, int64_t offset, int64_t count) {
  (void)sync_file_range(file, offset, count, SYNC_FILE_RANGE_WRITE);
}

// The child's actions, in this order: each descriptor gets its place, and the others are closed. `copies` lie above all places, so that none is
// overwritten before it was used.
static int place(posix_spawn_file_actions_t *actions, const int *copies, int count) {
  int reason = 0;
  for (int at = 0; at < count && reason == 0; at++) reason = posix_spawn_file_actions_adddup2(actions, copies[at], at);
  return reason != 0 ? reason : posix_spawn_file_actions_addclosefrom_np(actions, count);
}

static int start(
  const char *path, char *const arguments[], char *const environment[], const int *copies, int count, pid_t *child) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  sigset_t none, all;
  sigemptyset(&none);
  sigfillset(&all);
  int reason = posix_spawn_file_actions_init(&actions);
  if (reason != 0) return reason;
  reason = posix_spawnattr_init(&attributes);
  if (reason == 0) {
    reason = place(&actions, copies, count);
    if (reason == 0) reason = posix_spawnattr_setsigmask(&attributes, &none);
    if (reason == 0) reason = posix_spawnattr_setsigdefault(&attributes, &all);
    const short flags = POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF;
    if (reason == 0) reason = posix_spawnattr_setflags(&attributes, flags);
    if (reason == 0) reason = posix_spawn(child, path, &actions, &attributes, arguments, environment);
    posix_spawnattr_destroy(&attributes);
  }
  posix_spawn_file_actions_destroy(&actions);
  return reason;
}

int cplatform_spawn(
  const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count, pid_t *child) {
  enum { most = 16 };
  int copies[most];
  if (count > most) return EINVAL;
  int reason = 0, made = 0;
  for (; made < count && reason == 0; made++) {
    copies[made] = fcntl(descriptors[made], F_DUPFD_CLOEXEC, most);
    if (copies[made] < 0) reason = errno;
  }
  if (reason == 0) reason = start(path, arguments, environment, copies, count, child);
  for (int at = 0; at < made; at++) {
    if (copies[at] >= 0) close(copies[at]);
  }
  return reason;
}

static int describe(int result, const struct stat *about, struct cplatform_file *file) {
  if (result != 0) return -1;
  *file = (struct cplatform_file){.device = about->st_dev, .number = about->st_ino, .size = about->st_size};
  return 0;
}

int cplatform_file_of_descriptor(int descriptor, struct cplatform_file *file) {
  struct stat about;
  return describe(fstat(descriptor, &about), &about, file);
}

int cplatform_file_of_path(const char *path, struct cplatform_file *file) {
  struct stat about;
  return describe(stat(path, &about), &about, file);
}
