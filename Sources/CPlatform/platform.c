#define _GNU_SOURCE
#include "CPlatform.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
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

int cplatform_rename_exclusive(const char *from, const char *to) {
  if (renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return -1;
  if (link(from, to) != 0) return -1;
  return unlink(from);
}

void cplatform_trim_heap(void) { malloc_trim(0); }

void cplatform_tune_heap(void) {
  mallopt(M_ARENA_MAX, 4);
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

void cplatform_begin_writeback(int file, int64_t offset, int64_t count) {
  (void)sync_file_range(file, offset, count, SYNC_FILE_RANGE_WRITE);
}
