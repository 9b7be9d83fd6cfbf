#define _GNU_SOURCE
#include "CConfinement.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// The numbers and bits are those of include/uapi/linux/landlock.h and of the system call tables of Linux 6.18; Debian
// 12's headers know the first two ABIs only.
enum { create_ruleset = 444, add_rule = 445, restrict_self = 446, version_flag = 1 << 0, rule_path_beneath = 1 };

enum {
  fs_execute = 1 << 0,
  fs_write_file = 1 << 1,
  fs_read_file = 1 << 2,
  fs_read_dir = 1 << 3,
  fs_remove_dir = 1 << 4,
  fs_remove_file = 1 << 5,
  fs_make_char = 1 << 6,
  fs_make_dir = 1 << 7,
  fs_make_reg = 1 << 8,
  fs_make_sock = 1 << 9,
  fs_make_fifo = 1 << 10,
  fs_make_block = 1 << 11,
  fs_make_sym = 1 << 12,
  fs_refer = 1 << 13,      // ABI 2
  fs_truncate = 1 << 14,   // ABI 3
  fs_ioctl_dev = 1 << 15,  // ABI 5
};
enum { net_bind_tcp = 1 << 0, net_connect_tcp = 1 << 1 };          // ABI 4
enum { scope_abstract_unix_socket = 1 << 0, scope_signal = 1 << 1 };  // ABI 6

struct ruleset_attributes {
  uint64_t handled_fs;
  uint64_t handled_net;
  uint64_t scoped;
};

struct path_beneath_attributes {
  uint64_t allowed;
  int32_t parent;
} __attribute__((packed));

static uint64_t handled(int abi) {
  uint64_t all = fs_refer - 1;
  if (abi >= 2) all |= fs_refer;
  if (abi >= 3) all |= fs_truncate;
  if (abi >= 5) all |= fs_ioctl_dev;
  return all;
}

int cconfinement_landlock_abi(void) {
  long abi = syscall(create_ruleset, NULL, 0, version_flag);
  return abi < 0 ? 0 : (int)abi;
}

int cconfinement_rules(int abi) {
  struct ruleset_attributes attributes = {.handled_fs = handled(abi)};
  size_t size = sizeof attributes.handled_fs;
  if (abi >= 4) {
    attributes.handled_net = net_bind_tcp | net_connect_tcp;
    size += sizeof attributes.handled_net;
  }
  if (abi >= 6) {
    attributes.scoped = scope_abstract_unix_socket | scope_signal;
    size += sizeof attributes.scoped;
  }
  return (int)syscall(create_ruleset, &attributes, size, 0);
}

int cconfinement_allow_file(int rules, int abi, int file, int rights) {
  struct stat about;
  if (fstat(file, &about) != 0) return -1;
  struct path_beneath_attributes rule = {.parent = file};
  if (rights != 0) rule.allowed |= fs_read_file | fs_read_dir;
  if (rights & CCONFINEMENT_EXECUTE) rule.allowed |= fs_execute;
  if (rights & CCONFINEMENT_WRITE) rule.allowed |= fs_write_file | fs_truncate;
  if (rights & CCONFINEMENT_OWN) {
    rule.allowed |= fs_write_file | fs_truncate | fs_remove_dir | fs_remove_file | fs_make_dir | fs_make_reg;
    rule.allowed |= fs_make_sock | fs_make_fifo | fs_refer;
  }
  // The kernel refuses rights that a file can't have, and those that the set does not handle.
  if (!S_ISDIR(about.st_mode)) rule.allowed &= fs_execute | fs_write_file | fs_read_file | fs_truncate;
  rule.allowed &= handled(abi);
  return syscall(add_rule, rules, rule_path_beneath, &rule, 0) == 0 ? 1 : -1;
}

int cconfinement_allow(int rules, int abi, const char *path, int rights) {
  int file = open(path, O_PATH | O_CLOEXEC);
  // What the caller may not enter, the program may not either.
  if (file < 0) return errno == ENOENT || errno == ENOTDIR || errno == EACCES ? 0 : -1;
  int result = cconfinement_allow_file(rules, abi, file, rights);
  int reason = errno;
  close(file);
  errno = reason;
  return result;
}

struct confined_work {
  int rules;
  void (*work)(void *);
  void *context;
  int reason;
};

static void *work_confined(void *given) {
  struct confined_work *confined = given;
  // Both are of this thread alone: credentials(7), landlock(7).
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(restrict_self, confined->rules, 0) != 0) {
    confined->reason = errno;
  } else {
    confined->work(confined->context);
  }
  return NULL;
}

int cconfinement_on_confined_thread(int rules, void (*work)(void *), void *context) {
  struct confined_work confined = {.rules = rules, .work = work, .context = context};
  pthread_t thread;
  int reason = pthread_create(&thread, NULL, work_confined, &confined);
  if (reason != 0) return reason;
  pthread_join(thread, NULL);
  return confined.reason;
}

int cconfinement_keep_memory_private(void) {
  struct rlimit none = {0, 0};
  if (setrlimit(RLIMIT_CORE, &none) != 0) return -1;
  return prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}
