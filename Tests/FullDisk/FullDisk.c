// A disk that is full, for one server. Preloaded (LD_PRELOAD) into PostgreSQL: while the file named in FULL_SWITCH exists, no file below
// a folder `base` can be made longer. What is there can be read and written over, and the write-ahead log goes on.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int file, off_t end) {
  const char *is_on = getenv("FULL_SWITCH");
  char link[64], path[4096];
  if (!is_on || syscall(SYS_access, is_on, F_OK) != 0) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  struct stat status;
  return strstr(path, "/base/") != NULL && fstat(file, &status) == 0 && end > status.st_size;
}

static off_t bytes_of(const struct iovec *parts, int count) {
  off_t sum = 0;
  for (int part = 0; part < count; part++) sum += parts[part].iov_len;
  return sum;
}

#define FULL_OR(end, name, arguments, values)                              \
  if (is_full(file, end)) return errno = ENOSPC, -1;                       \
  ssize_t(*real) arguments = (ssize_t(*) arguments)dlsym(RTLD_NEXT, name); \
  return real values;

ssize_t pwrite(int file, const void *bytes, size_t count, off_t offset) {
  FULL_OR(offset + count, "pwrite", (int, const void *, size_t, off_t), (file, bytes, count, offset))
}

ssize_t pwrite64(int file, const void *bytes, size_t count, off64_t offset) {
  FULL_OR(offset + count, "pwrite64", (int, const void *, size_t, off64_t), (file, bytes, count, offset))
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t offset) {
  FULL_OR(offset + bytes_of(parts, count), "pwritev", (int, const struct iovec *, int, off_t), (file, parts, count, offset))
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off64_t offset) {
  FULL_OR(offset + bytes_of(parts, count), "pwritev64", (int, const struct iovec *, int, off64_t),
          (file, parts, count, offset))
}

// It returns the error instead of setting errno (posix_fallocate(3)).
int posix_fallocate(int file, off_t offset, off_t length) {
  int (*real)(int, off_t, off_t) = (int (*)(int, off_t, off_t))dlsym(RTLD_NEXT, "posix_fallocate");
  return is_full(file, offset + length) ? ENOSPC : real(file, offset, length);
}

int posix_fallocate64(int file, off64_t offset, off64_t length) {
  int (*real)(int, off64_t, off64_t) = (int (*)(int, off64_t, off64_t))dlsym(RTLD_NEXT, "posix_fallocate64");
  return is_full(file, offset + length) ? ENOSPC : real(file, offset, length);
}
