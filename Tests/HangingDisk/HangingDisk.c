// A disk that stops answering, for one process. Preloaded (LD_PRELOAD): once the file named in HANG_SWITCH exists, looking at
// anything below HANG_PATH never returns, as on a network file system whose server is gone; once that in HANG_DELETE_SWITCH does, deleting
// there never does.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void stand_still_for(const char *path, const char *is_on) {
  const char *hanging = getenv("HANG_PATH");
  if (!hanging || !is_on || !path || strncmp(path, hanging, strlen(hanging)) != 0) return;
  if (syscall(SYS_access, is_on, F_OK) != 0) return;
  for (;;) pause();
}

// A path below an open folder, as a whole one.
static const char *whole(int folder, const char *path, char buffer[static PATH_MAX]) {
  if (!path || path[0] == '/' || folder == AT_FDCWD) return path;
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length < 0) return path;
  snprintf(buffer + length, PATH_MAX - (size_t)length, "/%s", path);
  return buffer;
}

static void stand_still(const char *path) { stand_still_for(path, getenv("HANG_SWITCH")); }

int unlink(const char *path) {
  int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  stand_still_for(path, getenv("HANG_DELETE_SWITCH"));
  return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
  int (*real)(int, const char *, int) = (int (*)(int, const char *, int))dlsym(RTLD_NEXT, "unlinkat");
  char buffer[PATH_MAX];
  stand_still_for(whole(folder, path, buffer), getenv("HANG_DELETE_SWITCH"));
  return real(folder, path, flags);
}

int openat(int folder, const char *path, int flags, ...) {
  int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, "openat");
  va_list more;
  va_start(more, flags);
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;
  va_end(more);
  char buffer[PATH_MAX];
  stand_still(whole(folder, path, buffer));
  return real(folder, path, flags, mode);
}

DIR *opendir(const char *path) {
  DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
  stand_still(path);
  return real(path);
}

int fstatat(int folder, const char *path, struct stat *status, int flags) {
  int (*real)(int, const char *, struct stat *, int) =
      (int (*)(int, const char *, struct stat *, int))dlsym(RTLD_NEXT, "fstatat");
  char buffer[PATH_MAX];
  stand_still(whole(folder, path, buffer));
  return real(folder, path, status, flags);
}
