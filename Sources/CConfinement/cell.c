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
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
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

// One descriptor, over a socket (unix(7)).
static bool hand_over(int socket, int file) {
  char byte = 0, space[CMSG_SPACE(sizeof file)] = {0};
  struct iovec data = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  part->cmsg_level = SOL_SOCKET;
  part->cmsg_type = SCM_RIGHTS;
  part->cmsg_len = CMSG_LEN(sizeof file);
  memcpy(CMSG_DATA(part), &file, sizeof file);
  return sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

static int take_over(int socket) {
  char byte, space[CMSG_SPACE(sizeof(int))] = {0};
  struct iovec data = {.iov_base = &byte, .iov_len = 1};
  struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof space};
  if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT) != 1) return -1;
  struct cmsghdr *part = CMSG_FIRSTHDR(&message);
  if (part == NULL || part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS) return -1;
  int file;
  memcpy(&file, CMSG_DATA(part), sizeof file);
  return file;
}

// - Parameter questions: where the keeper waits for the descriptor that it is asked through.
static bool confine(const struct cconfinement_program *program, int questions) {
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return false;
  if (program->rules >= 0 && syscall(nr_landlock_restrict_self, program->rules, 0) != 0) return false;
  if (program->filter->asking.filter != NULL) {
    int listener = (int)syscall(
      SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program->filter->asking);
    if (listener >= 0) return hand_over(questions, listener);
    // Somebody else is asked already, such as the manager of a container: the kernel knows one.
    if (errno != EBUSY) return false;
  }
  return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program->filter->program, 0, 0) == 0;
}

static void become(const struct cconfinement_program *program, int report, int questions) {
  sigset_t none;
  sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
  close_on_exec_from(3);
  umask(077);
  if (fchdir(program->folder) == 0 && setsid() >= 0 && dup2(program->errors, 2) == 2 &&
      limit(RLIMIT_DATA, program->memory) && limit(RLIMIT_FSIZE, program->file_size) && limit(RLIMIT_CORE, 0) &&
      change_account(program) && confine(program, questions)) {
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

// Lets a call pass about which the kernel asks (seccomp_unotify(2)). What asks is the program that was begun, or a child
// of it: code of strangers comes later.
static void let_pass(int listener) {
  union {
    struct seccomp_notif question;
    char room[1024];
  } asked;
  union {
    struct seccomp_notif_resp answer;
    char room[1024];
  } said;
  memset(&asked, 0, sizeof asked);
  memset(&said, 0, sizeof said);
  if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) != 0) return;
  said.answer.id = asked.question.id;
  said.answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
  (void)ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &said);
}

// Until the caller lets go, or is gone. Returns whether the disk was nearly full before.
static bool watch(
  const struct cconfinement_program *program, pid_t child, int control, int signals, int report, int questions) {
  int listener = -1;
  for (;;) {
    struct pollfd waits[4] = {
      {.fd = control, .events = POLLIN},
      {.fd = signals, .events = POLLIN},
      {.fd = questions, .events = POLLIN},
      {.fd = listener, .events = POLLIN},
    };
    (void)poll(waits, 4, program->reserve > 0 ? 500 : -1);
    if (waits[2].revents != 0) {
      listener = take_over(questions);
      close(questions);
      questions = -1;
    }
    if (listener >= 0 && waits[3].fd == listener && (waits[3].revents & POLLIN) != 0) let_pass(listener);
    struct signalfd_siginfo drained[16];
    while (read(signals, drained, sizeof drained) > 0) {}
    pid_t ended;
    int status;
    while ((ended = waitpid(-1, &status, WNOHANG)) > 0) {
      if (ended != child) continue;
      // The server has its socket. Who wants to listen from now on is told that there is no such call.
      if (listener >= 0) close(listener);
      listener = -1;
      tell(report, message_ended, status);
    }
    if (waits[0].revents != 0) return false;
    // It was asked something, and has other work then.
    if (waits[2].revents != 0 || (waits[3].revents & POLLIN) != 0) continue;
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
  int questions[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, questions) != 0) {
    tell(report, message_not_begun, errno);
    _exit(CCONFINEMENT_ENDED);
  }
  pid_t child = fork();
  if (child == 0) become(program, report, questions[1]);
  if (child < 0) tell(report, message_not_begun, errno);
  close(questions[1]);
  bool was_full = child > 0 && watch(program, child, control, signals, report, questions[0]);
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
