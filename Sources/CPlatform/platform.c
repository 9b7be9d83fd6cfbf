#define _GNU_SOURCE
#include "CPlatform.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
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

#if defined(__x86_64__)
#define CONFINED_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define CONFINED_ARCH AUDIT_ARCH_AARCH64
#else
#error "name this processor's AUDIT_ARCH_ constant"
#endif

#define FIELD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define REFUSE(reason) BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (reason))
#define ALLOW BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
// Goes on with the next line where the value is the one looked at, else `lines` lines further on.
#define WHERE(value, lines) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (lines))

// A filter may look at numbers only, not at what they point to: so connect(2) is refused whole, and an address of sendto(2) is no address
// only where it is null. An upper half of an argument lies behind its lower half: both kinds of processor are little-endian.
static int confine(void) {
  struct sock_filter lines[] = {
    FIELD(arch),
    WHERE(CONFINED_ARCH, 1),
    BPF_JUMP(BPF_JMP | BPF_JA, 1, 0, 0),
    REFUSE(EPERM),
    FIELD(nr),
    // The x32 calls of an x86_64 kernel.
    BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
    REFUSE(EPERM),
    WHERE(__NR_connect, 1),
    REFUSE(EPERM),
    // A ring makes connections of its own, past this filter.
    WHERE(__NR_io_uring_setup, 1),
    REFUSE(ENOSYS),
    WHERE(__NR_socket, 4),
    FIELD(args[0]),
    WHERE(AF_UNIX, 1),
    ALLOW,
    REFUSE(EAFNOSUPPORT),
    WHERE(__NR_sendto, 6),
    FIELD(args[4]),
    WHERE(0, 3),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[4]) + 4),
    WHERE(0, 1),
    ALLOW,
    REFUSE(EPERM),
    ALLOW,
  };
  struct sock_fprog program = {.len = sizeof lines / sizeof lines[0], .filter = lines};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return -1;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0);
}

// Nothing that is open goes along with the program but the first three: libraries open sockets that are to be inherited, and what a child
// has open it can use, whatever else is refused to it.
static void keep_to_itself(void) {
  // As in <linux/close_range.h>, which older headers lack; the flag needs Linux 5.11.
  enum { closeOnExec = 1 << 2, number = 436 };
  if (syscall(number, 3, ~0U, closeOnExec) == 0) return;
  long most = sysconf(_SC_OPEN_MAX);
  for (int file = 3; file < most; file++) (void)fcntl(file, F_SETFD, FD_CLOEXEC);
}

// The child's way to the program: nothing but calls that are safe behind fork(2). The caller reads why it failed from `report`.
static void become(
  const char *path, char *const arguments[], char *const environment[], int errors, uint64_t memory, int report) {
  struct rlimit limit = {.rlim_cur = memory, .rlim_max = memory};
  keep_to_itself();
  int nothing = open("/dev/null", O_RDWR);
  if (nothing >= 0 && dup2(nothing, 0) >= 0 && dup2(nothing, 1) >= 0 && dup2(errors, 2) >= 0 && setsid() >= 0 &&
      setrlimit(RLIMIT_DATA, &limit) == 0 && confine() == 0) {
    execve(path, arguments, environment);
  }
  int reason = errno;
  (void)!write(report, &reason, sizeof reason);
  _exit(127);
}

int cplatform_run_confined(
  const char *path, char *const arguments[], char *const environment[], int errors, uint64_t memory, int *status) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) return -1;
  pid_t child = fork();
  if (child == 0) become(path, arguments, environment, errors, memory, ends[1]);
  int reason = child < 0 ? errno : 0;
  close(ends[1]);
  if (child > 0) {
    // Closed by the program's beginning.
    while (read(ends[0], &reason, sizeof reason) < 0 && errno == EINTR) {}
    while (waitpid(child, status, 0) < 0 && errno == EINTR) {}
  }
  close(ends[0]);
  errno = reason;
  return reason == 0 ? 0 : -1;
}
