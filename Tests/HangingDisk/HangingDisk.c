// A disk that stops answering, for one process. Preloaded (LD_PRELOAD): once the file named in HANG_SWITCH exists, looking at
// anything below HANG_PATH never returns, as on a network file system whose server is gone; once that in HANG_DELETE_SWITCH does, deleting
// there never does.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
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

static void stand_still(const char *path) { stand_still_for(path, getenv("HANG_SWITCH")); }

int unlink(const char *path) {
  int (*real)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");
  stand_still_for(path, getenv("HANG_DELETE_SWITCH"));
  return real(path);
}

DIR *opendir(const char *path) {
  DIR *(*real)(const char *) = (DIR * (*)(const char *)) dlsym(RTLD_NEXT, "opendir");
  stand_still(path);
  return real(path);
}

int fstatat(int folder, const char *path, struct stat *status, int flags) {
  int (*real)(int, const char *, struct stat *, int) =
      (int (*)(int, const char *, struct stat *, int))dlsym(RTLD_NEXT, "fstatat");
  stand_still(path);
  return real(folder, path, status, flags);
}
