// What native code of a hostile backup tries in a drill's server: `LOAD` runs this constructor, before PostgreSQL
// finds that it is no module. It reads whom to attack from a file `targets` beside the library, and adds a line for
// each attack to `found` there: `NAME: DONE`, or `NAME: refused (reason)`. Preloaded into another program it does the
// same, unconfined.
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[4096], secret[4096], store[4096], stream[108], datagram[108];
static int victim, port;
static FILE *found;

// What a call gave: zero or more is a success of the attack.
static void tell(const char *name, long result) {
  if (result >= 0) {
    fprintf(found, "%s: DONE\n", name);
  } else {
    fprintf(found, "%s: refused (%s)\n", name, strerrorname_np(errno));
  }
  fflush(found);
}

// For a call that may be answered with success and not be done.
static void tell_effect(const char *name, bool is_done) {
  errno = ECANCELED;
  tell(name, is_done ? 0 : -1);
}

static const char *inside(const char *name) {
  static char path[8192];
  snprintf(path, sizeof path, "%s/%s", folder, name);
  return path;
}

static const char *in_store(const char *name) {
  static char path[8192];
  snprintf(path, sizeof path, "%s/%s", store, name);
  return path;
}

static const char *of_victim(const char *name) {
  static char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", victim, name);
  return path;
}

static long folder_opens(const char *path) {
  DIR *entries = opendir(path);
  if (entries == NULL) return -1;
  closedir(entries);
  return 0;
}

static void attack_files(void) {
  struct stat about;
  tell("read the key", open(secret, O_RDONLY));
  tell("write the key", open(secret, O_WRONLY));
  tell("list the store", folder_opens(store));
  tell("write into the store", open(in_store("forged"), O_CREAT | O_WRONLY, 0600));
  tell("remove from the store", unlink(in_store("backup")));
  tell("make a folder in the store", mkdir(in_store("folder"), 0700));
  tell("watch the store", inotify_add_watch(inotify_init1(0), store, IN_ALL_EVENTS));
  tell("write to /tmp", open("/tmp", O_TMPFILE | O_WRONLY, 0600));
  tell("write to /var/tmp", open("/var/tmp", O_TMPFILE | O_WRONLY, 0600));
  tell("write to shared memory", open("/dev/shm", O_TMPFILE | O_WRONLY, 0600));
  tell("list the home", folder_opens("/root"));
  tell("list the root", folder_opens("/"));
  tell("read /etc/shadow", open("/etc/shadow", O_RDONLY));
  (void)!symlink(secret, inside("link"));
  tell("read the key by a symbolic link", open(inside("link"), O_RDONLY));
  (void)!link(secret, inside("hard"));
  tell("read the key by a hard link", open(inside("hard"), O_RDONLY));
  tell("move the backup here", rename(in_store("moved"), inside("moved")));
  // Landlock refuses no chmod(2), nor truncate(2) below ABI 3: the filter answers them without doing them.
  (void)!chmod(secret, 0666);
  tell_effect("open the key for all", stat(secret, &about) == 0 && (about.st_mode & 0777) == 0666);
  (void)!truncate(secret, 0);
  tell_effect("empty the key", stat(secret, &about) == 0 && about.st_size == 0);
  tell("set the key's owner", chown(secret, -1, getegid()));
  tell("set the key's time", utimensat(AT_FDCWD, secret, NULL, 0));
  int file = open(inside("set"), O_CREAT | O_RDWR, 04755);
  if (file < 0) file = open(inside("set"), O_CREAT | O_RDWR, 0755);
  (void)!fchmod(file, 04755);
  tell_effect("leave a set-user-ID file", fstat(file, &about) == 0 && (about.st_mode & S_ISUID) != 0);
  // A file beyond the limit of 2 GiB, without filling the disk.
  signal(SIGXFSZ, SIG_IGN);
  tell("write a large file", pwrite(file, "x", 1, (off_t)3 << 30));
  tell("make a device", mknod(inside("device"), S_IFIFO | 0600, 0));
}

static void attack_programs(void) {
  int file = open(inside("program"), O_CREAT | O_WRONLY, 0700);
  const char text[] = "#!/bin/sh\nexit 0\n";
  (void)!write(file, text, sizeof text - 1);
  close(file);
  const char *programs[] = {"run a program of its own", inside("program"), "run python", "/usr/bin/python3"};
  for (int at = 0; at < 4; at += 2) {
    int ends[2], reason = 0;
    (void)!pipe2(ends, O_CLOEXEC);
    pid_t child = fork();
    if (child == 0) {
      char *arguments[] = {(char *)programs[at + 1], "-c", "pass", NULL}, *environment[] = {NULL};
      execve(arguments[0], arguments, environment);
      reason = errno;
      (void)!write(ends[1], &reason, sizeof reason);
      _exit(1);
    }
    close(ends[1]);
    bool is_refused = read(ends[0], &reason, sizeof reason) > 0;
    close(ends[0]);
    waitpid(child, NULL, 0);
    errno = reason;
    tell(programs[at], is_refused ? -1 : 0);
  }
  tell("run from memory", syscall(SYS_memfd_create, "x", 0));
}

static void attack_processes(void) {
  char byte;
  struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
  tell("open its memory", open(of_victim("mem"), O_RDWR));
  tell("read its environment", open(of_victim("environ"), O_RDONLY));
  tell("list its descriptors", folder_opens(of_victim("fd")));
  tell("read its status", open(of_victim("status"), O_RDONLY));
  long handle = syscall(434, victim, 0);
  tell("pidfd_open", handle);
  // Its own standard error, where it has no handle: whether the call is there at all.
  tell("pidfd_getfd", syscall(438, handle >= 0 ? handle : 2, 0, 0));
  tell("pidfd_send_signal", syscall(424, handle >= 0 ? handle : 2, 0, NULL, 0));
  // Reads nothing there, perhaps; an address that isn't mapped is a way in all the same.
  long size = process_vm_readv(victim, &here, 1, &there, 1, 0);
  tell("process_vm_readv", size < 0 && errno == EFAULT ? 0 : size);
  size = process_vm_writev(victim, &here, 1, &there, 1, 0);
  tell("process_vm_writev", size < 0 && errno == EFAULT ? 0 : size);
  tell("kcmp", syscall(SYS_kcmp, getpid(), victim, 0, 0, 0));
  struct rlimit limit;
  tell("prlimit", prlimit(victim, RLIMIT_NOFILE, NULL, &limit));
  tell("setpriority", setpriority(PRIO_PROCESS, victim, 19));
  // To what they have already: the call is refused, or is not.
  tell("setpriority of the account", setpriority(PRIO_USER, 0, getpriority(PRIO_PROCESS, 0)));
  tell("ioprio_set of the account", syscall(SYS_ioprio_set, 3, 0, 0));
  long traced = ptrace(PTRACE_ATTACH, victim, NULL, NULL);
  tell("ptrace", traced);
  if (traced == 0) {
    waitpid(victim, NULL, __WALL);
    ptrace(PTRACE_DETACH, victim, NULL, NULL);
  }
}

static void attack_sockets(void) {
  struct sockaddr_un to = {.sun_family = AF_UNIX};
  strcpy(to.sun_path, stream);
  int line = socket(AF_UNIX, SOCK_STREAM, 0);
  tell("connect to a unix socket", connect(line, (struct sockaddr *)&to, sizeof to));
  strcpy(to.sun_path, datagram);
  struct iovec word = {"x", 1};
  struct msghdr message = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iov = &word, .msg_iovlen = 1};
  int letter = socket(AF_UNIX, SOCK_DGRAM, 0);
  tell("sendmsg to a unix datagram socket", letter < 0 ? -1 : sendmsg(letter, &message, 0));
  int pair[2];
  int made = socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
  tell("sendmsg by a pair", made < 0 ? -1 : sendmsg(pair[0], &message, 0));
  tell("sendmsg by a stream socket", sendmsg(line, &message, MSG_NOSIGNAL));
  tell("sendto", sendto(letter >= 0 ? letter : line, "x", 1, MSG_NOSIGNAL, (struct sockaddr *)&to, sizeof to));
  struct sockaddr_in host = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
  int call = socket(AF_INET, SOCK_STREAM, 0);
  tell("connect by TCP", call < 0 ? -1 : connect(call, (struct sockaddr *)&host, sizeof host));
  tell("a UDP socket", socket(AF_INET, SOCK_DGRAM, 0));
  tell("a netlink socket", socket(AF_NETLINK, SOCK_RAW, 0));
  // Open to every account of the machine.
  struct sockaddr_un abstract = {.sun_family = AF_UNIX};
  snprintf(abstract.sun_path + 1, sizeof abstract.sun_path - 1, "pgbackupd-attacker-%d", (int)getpid());
  int open_to_all = socket(AF_UNIX, SOCK_STREAM, 0);
  tell("bind an abstract socket", bind(open_to_all, (struct sockaddr *)&abstract, sizeof abstract));
  tell("listen", listen(open_to_all, 1));
}

// Calls of other kinds of processes. In a process of its own: a unit's SystemCallArchitectures= ends who makes one.
static void attack_by_foreign_calls(void) {
#if defined(__x86_64__)
  pid_t child = fork();
  if (child == 0) {
    tell("a call of x32", syscall(0x40000000 | SYS_getppid));
    long parent;
    // getppid(2) of i386; it may be no call at all on this kernel.
    __asm__ volatile("int $0x80" : "=a"(parent) : "a"(64) : "memory");
    errno = parent < 0 ? -parent : 0;
    tell("a call of i386", parent < 0 ? -1 : 0);
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFSIGNALED(status)) return;
  errno = EPERM;
  tell("a call of i386", -1);
#endif
}

static void attack_kernel(void) {
  char parameters[512] = {0};
  tell("io_uring_setup", syscall(425, 4, parameters));
  tell("keyctl", syscall(SYS_keyctl, 0, -4, 1));
  tell("add_key", syscall(SYS_add_key, "user", "x", "y", 1, -4));
  tell("semctl", syscall(SYS_semctl, 0, 0, 0, 0) < 0 && errno == EPERM ? -1 : 0);
  tell("msgsnd", syscall(SYS_msgsnd, 0, parameters, 1, 04000) < 0 && errno == EPERM ? -1 : 0);
  tell("bpf", syscall(SYS_bpf, 0, parameters, 64));
  tell("userfaultfd", syscall(SYS_userfaultfd, 1));
  tell("perf_event_open", syscall(SYS_perf_event_open, parameters, 0, -1, -1, 0));
  tell("unshare", unshare(CLONE_NEWUSER));
  tell("mount", mount("none", folder, "tmpfs", 0, NULL));
  tell("fsopen", syscall(430, "tmpfs", 0));
  tell("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, parameters, 0));
  tell("setns", setns(open("/proc/self/ns/net", O_RDONLY), 0));
  long child = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, NULL, NULL, NULL, NULL);
  if (child == 0) _exit(0);
  tell("clone", child);
  tell("a call of the future", syscall(599) == -1 && errno == ENOSYS ? -1 : 0);
  attack_by_foreign_calls();
  struct rlimit core;
  getrlimit(RLIMIT_CORE, &core);
  tell_effect("dump core", core.rlim_max != 0);
  tell_effect("gain privileges", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1);
}

// A process that has left its session and its parent: only the process that inherits orphans knows it. It could also
// not be traced.
static void attack_time(void) {
  int ends[2];
  (void)!pipe(ends);
  pid_t child = fork();
  if (child == 0) {
    setsid();
    pid_t orphan = fork();
    if (orphan == 0) {
      prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
      for (int number = 1; number < 32; number++) signal(number, SIG_IGN);
      for (int file = 0; file < 256; file++) close(file);
      for (;;) pause();
    }
    (void)!write(ends[1], &orphan, sizeof orphan);
    _exit(0);
  }
  pid_t orphan = 0;
  (void)!read(ends[0], &orphan, sizeof orphan);
  waitpid(child, NULL, 0);
  fprintf(found, "background %d\n", (int)orphan);
  tell("kill everybody", kill(-1, 0));
  tell("kill", kill(victim, SIGKILL));
}

static bool read_targets(void) {
  char line[8192];
  FILE *targets = fopen(inside("targets"), "re");
  if (targets == NULL) return false;
  while (fgets(line, sizeof line, targets) != NULL) {
    line[strcspn(line, "\n")] = 0;
    char *value = strchr(line, '=');
    if (value == NULL) continue;
    *value++ = 0;
    if (strcmp(line, "victim") == 0) victim = atoi(value);
    if (strcmp(line, "port") == 0) port = atoi(value);
    if (strcmp(line, "secret") == 0) snprintf(secret, sizeof secret, "%s", value);
    if (strcmp(line, "store") == 0) snprintf(store, sizeof store, "%s", value);
    if (strcmp(line, "stream") == 0) snprintf(stream, sizeof stream, "%s", value);
    if (strcmp(line, "datagram") == 0) snprintf(datagram, sizeof datagram, "%s", value);
  }
  fclose(targets);
  return victim > 1;
}

__attribute__((constructor)) static void attack(void) {
  // As the victim: a process that lets itself be traced, so that a kernel with Yama is no other wall.
  if (getenv("ATTACKER_VICTIM") != NULL) {
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    return;
  }
  Dl_info about;
  if (dladdr((void *)attack, &about) == 0) return;
  snprintf(folder, sizeof folder, "%s", about.dli_fname);
  char *end = strrchr(folder, '/');
  if (end == NULL) return;
  *end = 0;
  if (!read_targets()) return;
  found = fopen(inside("found"), "ae");
  if (found == NULL) return;
  attack_files();
  attack_programs();
  attack_processes();
  attack_sockets();
  attack_kernel();
  attack_time();
  fclose(found);
}
