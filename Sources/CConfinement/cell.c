#define _GNU_SOURCE
#include "CConfinement.h"
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// Numbers that older headers lack: include/uapi/asm-generic/unistd.h and linux/close_range.h.
enum { nr_pidfd_open = 434, nr_close_range = 436, close_on_exec = 1 << 2, nr_landlock_restrict_self = 446 };

// What the keeper and its child tell the caller, in one write(2) each.
struct message {
  enum { message_not_begun, message_ended } kind;
  // errno, or the status.
  int value;
};

static void tell(int report, int kind, int value) {
  struct message message = {.kind = kind, .value = value};
  (void)!write(report, &message, sizeof message);
}

// MARK: - The program's process, from fork(2) on: only system calls, since other threads may have held any lock.

static void close_on_exec_from(int first) {
  if (syscall(nr_close_range, first, ~0U, close_on_exec) == 0) return;
  long most = sysconf(_SC_OPEN_MAX);
  for (int file = first; file < most; file++) (void)fcntl(file, F_SETFD, FD_CLOEXEC);
}

static bool limit(int what, uint64_t most) {
  struct rlimit limit;
  if (getrlimit(what, &limit) != 0) return false;
  if (limit.rlim_max == RLIM_INFINITY || limit.rlim_max > most) limit.rlim_max = most;
  limit.rlim_cur = limit.rlim_max;
  return setrlimit(what, &limit) == 0;
}

// The raw calls: those of libc reach for all threads, of which a forked process has one.
static bool change_account(const struct cconfinement_program *program) {
  if (!program->changes_account) return true;
  return syscall(SYS_setgroups, 0, NULL) == 0 &&
         syscall(SYS_setresgid, program->group, program->group, program->group) == 0 &&
         syscall(SYS_setresuid, program->user, program->user, program->user) == 0;
}

static bool confine(const struct cconfinement_program *program) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  if (program->rules >= 0 && syscall(nr_landlock_restrict_self, program->rules, 0) != 0) return false;
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program->filter->program, 0, 0) == 0;
}

static void become(const struct cconfinement_program *program, int report) {
  sigset_t none;
  sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
  close_on_exec_from(3);
  umask(077);
  if (fchdir(program->folder) == 0 && setsid() >= 0 && dup2(program->errors, 2) == 2 &&
      limit(RLIMIT_DATA, program->memory) && limit(RLIMIT_FSIZE, program->file_size) && limit(RLIMIT_CORE, 0) &&
      change_account(program) && confine(program)) {
    execve(program->path, program->arguments, program->environment);
  }
  tell(report, message_not_begun, errno);
  _exit(127);
}

// MARK: - The keeper: a fork of this process with one thread, none of its descriptors but a few, and no program of
// its own.

static void close_range_of(int first, int last) {
  if (first > last || syscall(nr_close_range, first, last, 0) == 0) return;
  long most = sysconf(_SC_OPEN_MAX);
  for (int file = first; file <= last && file < most; file++) close(file);
}

static void close_others(int *kept, int count) {
  int before = 2;
  for (int done = 0; done < count; done++) {
    int next = 0x7fffffff;
    for (int at = 0; at < count; at++) {
      if (kept[at] > before && kept[at] < next) next = kept[at];
    }
    if (next == 0x7fffffff) break;
    close_range_of(before + 1, next - 1);
    before = next;
  }
  close_range_of(before + 1, 0x7fffffff);
}

// Sends a signal to each child. Their numbers can't be others': only this process lets go of them (waitpid). Returns
// how many there were, or -1 where that can't be read.
static int signal_children(int list, int signal) {
  char text[4096];
  off_t offset = 0;
  pid_t number = 0;
  int count = 0;
  for (;;) {
    ssize_t size = pread(list, text, sizeof text, offset);
    if (size < 0) return -1;
    if (size == 0) break;
    for (ssize_t at = 0; at < size; at++) {
      if (text[at] >= '0' && text[at] <= '9') {
        number = number * 10 + (text[at] - '0');
      } else if (number > 1) {
        (void)kill(number, signal);
        number = 0;
        count++;
      }
    }
    offset += size;
  }
  return count;
}

// Waits until no child is left, for so long at most.
static bool are_gone(int list, int signals, int signal, int seconds) {
  struct timespec now, end;
  clock_gettime(CLOCK_MONOTONIC, &end);
  end.tv_sec += seconds;
  if (signal != SIGKILL) signal_children(list, signal);
  for (;;) {
    // An orphan becomes a child of ours when its parent has ended, and is met in the next round.
    if (signal == SIGKILL) signal_children(list, signal);
    pid_t ended;
    while ((ended = waitpid(-1, NULL, WNOHANG)) > 0) {}
    if (ended < 0 && errno == ECHILD) return true;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (now.tv_sec > end.tv_sec) return false;
    struct pollfd wait = {.fd = signals, .events = POLLIN};
    (void)poll(&wait, 1, 100);
    struct signalfd_siginfo drained[16];
    while (read(signals, drained, sizeof drained) > 0) {}
  }
}

// The small segments of servers that could not remove them. Only what no process uses and whose maker is gone.
static void remove_segments(uid_t user) {
  struct shm_info info;
  int highest = shmctl(0, SHM_INFO, (struct shmid_ds *)&info);
  for (int index = 0; index <= highest; index++) {
    struct shmid_ds about;
    int segment = shmctl(index, SHM_STAT, &about);
    if (segment < 0 || about.shm_perm.cuid != user || about.shm_nattch != 0 || about.shm_segsz > 1 << 20) continue;
    if (kill(about.shm_cpid, 0) != 0 && errno == ESRCH) (void)shmctl(segment, IPC_RMID, NULL);
  }
}

static bool is_nearly_full(int folder, uint64_t reserve) {
  struct statfs about;
  return reserve > 0 && fstatfs(folder, &about) == 0 && (uint64_t)about.f_bavail * (uint64_t)about.f_bsize < reserve;
}

// Until the caller lets go, or is gone. Returns whether the disk was nearly full before.
static bool watch(const struct cconfinement_program *program, pid_t child, int control, int signals, int report) {
  for (;;) {
    struct pollfd waits[2] = {{.fd = control, .events = POLLIN}, {.fd = signals, .events = POLLIN}};
    (void)poll(waits, 2, program->reserve > 0 ? 500 : -1);
    struct signalfd_siginfo drained[16];
    while (read(signals, drained, sizeof drained) > 0) {}
    pid_t ended;
    int status;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended == child) tell(report, message_ended, status);
    }
    if (waits[0].revents != 0) return false;
    if (is_nearly_full(program->folder, program->reserve)) return true;
  }
}

static void keep(const struct cconfinement_program *program, int control, int report) {
  sigset_t all;
  for (int number = 1; number < NSIG; number++) (void)signal(number, SIG_DFL);
  sigfillset(&all);
  (void)sigprocmask(SIG_SETMASK, &all, NULL);
  (void)setsid();
  (void)prctl(PR_SET_NAME, "pgbackupd-cell", 0, 0, 0);
  (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
  int nothing = open("/dev/null", O_RDWR);
  if (nothing < 0 || dup2(nothing, 0) != 0 || dup2(nothing, 1) != 1 || dup2(nothing, 2) != 2) {
    tell(report, message_not_begun, errno);
    _exit(CCONFINEMENT_ENDED);
  }
  int kept[] = {control, report, program->errors, program->folder, program->rules};
  close_others(kept, sizeof kept / sizeof kept[0]);
  int signals = signalfd(-1, &all, SFD_NONBLOCK | SFD_CLOEXEC);
  // proc_pid_task(5). A process has no other way to learn which orphans it was given.
  char path[64];
  snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
  int list = open(path, O_RDONLY | O_CLOEXEC);
  if (signals < 0 || list < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0) {
    tell(report, message_not_begun, errno);
    _exit(CCONFINEMENT_ENDED);
  }
  pid_t child = fork();
  if (child == 0) become(program, report);
  if (child < 0) tell(report, message_not_begun, errno);
  bool was_full = child > 0 && watch(program, child, control, signals, report);
  bool are_all = are_gone(list, signals, SIGQUIT, 5) || are_gone(list, signals, SIGKILL, 30);
  remove_segments(program->changes_account ? program->user : geteuid());
  _exit(!are_all ? CCONFINEMENT_STAYS : was_full ? CCONFINEMENT_FULL : CCONFINEMENT_ENDED);
}

// MARK: - The caller's side

int cconfinement_begin(const struct cconfinement_program *program, struct cconfinement_cell *cell, int *status) {
  int control[2], report[2];
  if (pipe2(control, O_CLOEXEC) != 0) return -1;
  if (pipe2(report, O_CLOEXEC) != 0) {
    int reason = errno;
    close(control[0]);
    close(control[1]);
    errno = reason;
    return -1;
  }
  pid_t keeper = fork();
  if (keeper == 0) {
    close(control[1]);
    keep(program, control[0], report[1]);
  }
  int reason = errno;
  close(control[0]);
  close(report[1]);
  struct message message = {.kind = message_not_begun, .value = reason};
  if (keeper > 0) {
    ssize_t size;
    while ((size = read(report[0], &message, sizeof message)) < 0 && errno == EINTR) {}
    // The keeper was ended from outside.
    if (size != sizeof message) message = (struct message){.kind = message_not_begun, .value = ECHILD};
  }
  close(report[0]);
  *cell = (struct cconfinement_cell){.keeper = keeper, .control = control[1]};
  if (message.kind == message_ended) {
    *status = message.value;
    return 0;
  }
  if (keeper > 0) (void)cconfinement_end(cell); else close(control[1]);
  errno = message.value;
  return -1;
}

enum cconfinement_end_reason cconfinement_end(struct cconfinement_cell *cell) {
  int status = 0;
  pid_t ended;
  close(cell->control);
  while ((ended = waitpid(cell->keeper, &status, 0)) < 0 && errno == EINTR) {}
  if (ended != cell->keeper || !WIFEXITED(status)) return CCONFINEMENT_LOST;
  return (enum cconfinement_end_reason)WEXITSTATUS(status);
}

void cconfinement_end_server(pid_t server) {
  // A descriptor of the process tells when it is gone (Linux 5.3).
  int handle = (int)syscall(nr_pidfd_open, server, 0);
  if (handle < 0) {
    (void)kill(server, SIGKILL);
    return;
  }
  struct pollfd wait = {.fd = handle, .events = POLLIN};
  (void)kill(server, SIGQUIT);
  if (poll(&wait, 1, 10000) == 0) {
    (void)kill(server, SIGKILL);
    (void)poll(&wait, 1, 10000);
  }
  close(handle);
}
