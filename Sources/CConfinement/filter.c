#define _GNU_SOURCE
#include "CConfinement.h"
#include "private.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <seccomp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

// A filter sees numbers, not what they point to. So a call is refused whole where an argument that matters is in
// memory.

// The numbers of calls that libseccomp 2.5.4 (Debian 12) does not know. From 424 on a call has the same number on
// every processor (include/uapi/asm-generic/unistd.h of Linux 6.18).
enum {
  nr_pidfd_send_signal = 424,
  nr_io_uring_setup = 425,
  nr_io_uring_enter = 426,
  nr_io_uring_register = 427,
  nr_open_tree = 428,
  nr_move_mount = 429,
  nr_fsopen = 430,
  nr_fsconfig = 431,
  nr_fsmount = 432,
  nr_fspick = 433,
  nr_pidfd_open = 434,
  nr_clone3 = 435,
  nr_openat2 = 437,
  nr_pidfd_getfd = 438,
  nr_process_madvise = 440,
  nr_mount_setattr = 442,
  nr_quotactl_fd = 443,
  nr_memfd_secret = 447,
  nr_process_mrelease = 448,
  nr_fchmodat2 = 452,
  nr_lsm_set_self_attr = 460,
  nr_setxattrat = 463,
  nr_removexattrat = 466,
  nr_open_tree_attr = 467,
  nr_file_setattr = 469,
  // IOPRIO_WHO_PROCESS of include/uapi/linux/ioprio.h, which glibc has not.
  ioprio_who_process = 1,
  // Calls that come after those of Linux 6.18.
  nr_first_unknown = 471,
  nr_last_unknown = 600,
};

// Refused whole. What they would reach is named in front of each group.
static const int refused[] = {
  // Others' sockets
  SCMP_SYS(connect), SCMP_SYS(sendmmsg),
  // Others' memory, descriptors and processes
  SCMP_SYS(ptrace), SCMP_SYS(process_vm_readv), SCMP_SYS(process_vm_writev), SCMP_SYS(kcmp), nr_pidfd_open,
  nr_pidfd_getfd,
  nr_pidfd_send_signal, nr_process_madvise, nr_process_mrelease, SCMP_SYS(move_pages), SCMP_SYS(migrate_pages),
  SCMP_SYS(perf_event_open), SCMP_SYS(get_robust_list),
  // Keys of the account
  SCMP_SYS(add_key), SCMP_SYS(request_key), SCMP_SYS(keyctl),
  // Queues of the account. PostgreSQL has unnamed semaphores in shared memory, and one small segment.
  SCMP_SYS(msgget), SCMP_SYS(msgsnd), SCMP_SYS(msgrcv), SCMP_SYS(msgctl), SCMP_SYS(semget), SCMP_SYS(semop),
  SCMP_SYS(semtimedop), SCMP_SYS(semctl), SCMP_SYS(mq_open),
  // The kernel's riskiest parts
  SCMP_SYS(bpf), SCMP_SYS(userfaultfd), SCMP_SYS(init_module), SCMP_SYS(finit_module), SCMP_SYS(delete_module),
  SCMP_SYS(kexec_load), SCMP_SYS(kexec_file_load),
  // Mounts and namespaces
  SCMP_SYS(mount), SCMP_SYS(umount), SCMP_SYS(umount2), SCMP_SYS(pivot_root), SCMP_SYS(chroot),
  SCMP_SYS(setns), SCMP_SYS(unshare),
  nr_open_tree, nr_move_mount, nr_fsopen, nr_fsconfig, nr_fsmount, nr_fspick, nr_mount_setattr, nr_open_tree_attr,
  // Files past their paths, and programs past Landlock
  SCMP_SYS(open_by_handle_at), SCMP_SYS(name_to_handle_at), SCMP_SYS(memfd_create), nr_memfd_secret, SCMP_SYS(execveat),
  // What Landlock lets an account do to any of its files: see landlock(7), "Current limitations"
  SCMP_SYS(chown), SCMP_SYS(fchown), SCMP_SYS(lchown), SCMP_SYS(fchownat), SCMP_SYS(utime), SCMP_SYS(utimes),
  SCMP_SYS(futimesat), SCMP_SYS(utimensat), SCMP_SYS(setxattr), SCMP_SYS(lsetxattr), SCMP_SYS(fsetxattr), nr_setxattrat,
  SCMP_SYS(removexattr), SCMP_SYS(lremovexattr), SCMP_SYS(fremovexattr), nr_removexattrat, nr_file_setattr,
  // Watching folders that may not be listed
  SCMP_SYS(inotify_init), SCMP_SYS(inotify_init1), SCMP_SYS(fanotify_init), SCMP_SYS(lookup_dcookie),
  // Devices, and the machine
  SCMP_SYS(mknod), SCMP_SYS(mknodat), SCMP_SYS(acct), SCMP_SYS(quotactl), nr_quotactl_fd,
  SCMP_SYS(swapon), SCMP_SYS(swapoff),
  SCMP_SYS(reboot), SCMP_SYS(syslog), SCMP_SYS(sethostname), SCMP_SYS(setdomainname), SCMP_SYS(settimeofday),
  SCMP_SYS(clock_settime), SCMP_SYS(clock_adjtime), SCMP_SYS(adjtimex), SCMP_SYS(iopl), SCMP_SYS(ioperm),
  SCMP_SYS(vhangup),
  SCMP_SYS(personality), nr_lsm_set_self_attr,
};

// Answered as if the kernel did not have them: programs then do the same by older calls, which this filter can look
// into.
static const int unknown[] = {nr_io_uring_setup, nr_io_uring_enter, nr_io_uring_register, nr_clone3, nr_openat2};

// Answered with success, and not done: PostgreSQL sets the mode of its socket and folder, which the umask has made
// already, and Landlock lets an account set the mode of any of its files.
static const int ignored[] = {SCMP_SYS(chmod), SCMP_SYS(fchmod), SCMP_SYS(fchmodat), nr_fchmodat2};

// The first argument names a process, and must be 0, the caller itself.
static const int own_process[] = {
  SCMP_SYS(prlimit64), SCMP_SYS(sched_setaffinity), SCMP_SYS(sched_setscheduler), SCMP_SYS(sched_setparam),
  SCMP_SYS(sched_setattr),
};

// As <linux/sched.h> has them; a set bit makes a namespace.
static const scmp_datum_t namespaces[] = {
  0x00000080, 0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
};

// Why the filter that this thread makes can't be made.
static _Thread_local int failed;

static void rule(scmp_filter_ctx context, uint32_t action, int number, unsigned count, struct scmp_arg_cmp *arguments) {
  int result = seccomp_rule_add_array(context, action, number, count, arguments);
  // A call that this processor does not have.
  if (result != 0 && result != -EDOM) failed = -result;
}

static void rule_if(scmp_filter_ctx context, uint32_t action, int number, struct scmp_arg_cmp argument) {
  rule(context, action, number, 1, &argument);
}

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

static void rules(scmp_filter_ctx context, uint32_t action, const int *numbers, size_t count) {
  for (size_t at = 0; at < count; at++) rule(context, action, numbers[at], 0, NULL);
}

static void refuse_sockets(scmp_filter_ctx context) {
  rule_if(context, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), SCMP_A0(SCMP_CMP_NE, AF_UNIX));
  rule_if(context, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socketpair), SCMP_A0(SCMP_CMP_NE, AF_UNIX));
  // Through a datagram socket sendmsg(2) reaches any address that its argument in memory names.
  for (scmp_datum_t type = 0; type < 16; type++) {
    if (type == SOCK_STREAM) continue;
    rule_if(context, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socket), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, type));
    rule_if(context, SCMP_ACT_ERRNO(EAFNOSUPPORT), SCMP_SYS(socketpair), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xf, type));
  }
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(sendto), SCMP_A4(SCMP_CMP_NE, 0));
}

// Files that run with rights of their owner or group.
static void refuse_set_id(scmp_filter_ctx context) {
  const scmp_datum_t bits[] = {S_ISUID, S_ISGID}, making[] = {O_CREAT, O_TMPFILE & ~O_DIRECTORY};
  for (size_t bit = 0; bit < COUNT(bits); bit++) {
    const scmp_datum_t set = bits[bit];
    rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(creat), SCMP_A1(SCMP_CMP_MASKED_EQ, set, set));
    rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mkdir), SCMP_A1(SCMP_CMP_MASKED_EQ, set, set));
    rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(mkdirat), SCMP_A2(SCMP_CMP_MASKED_EQ, set, set));
    for (size_t flag = 0; flag < COUNT(making); flag++) {
      struct scmp_arg_cmp by_path[] = {
        SCMP_A1(SCMP_CMP_MASKED_EQ, making[flag], making[flag]), SCMP_A2(SCMP_CMP_MASKED_EQ, set, set)};
      struct scmp_arg_cmp by_folder[] = {
        SCMP_A2(SCMP_CMP_MASKED_EQ, making[flag], making[flag]), SCMP_A3(SCMP_CMP_MASKED_EQ, set, set)};
      rule(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(open), 2, by_path);
      rule(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(openat), 2, by_folder);
    }
  }
}

static void refuse_others(scmp_filter_ctx context) {
  for (size_t at = 0; at < COUNT(own_process); at++) {
    rule_if(context, SCMP_ACT_ERRNO(EPERM), own_process[at], SCMP_A0(SCMP_CMP_NE, 0));
  }
  // The second argument names a process, where the first says so; else a group or an account, of which 0 is the own.
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(setpriority), SCMP_A1(SCMP_CMP_NE, 0));
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(setpriority), SCMP_A0(SCMP_CMP_NE, PRIO_PROCESS));
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioprio_set), SCMP_A1(SCMP_CMP_NE, 0));
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioprio_set), SCMP_A0(SCMP_CMP_NE, ioprio_who_process));
  // All processes of the account at once.
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(kill), SCMP_A0(SCMP_CMP_MASKED_EQ, 0xffffffff, 0xffffffff));
  for (size_t at = 0; at < COUNT(namespaces); at++) {
    const scmp_datum_t flag = namespaces[at];
    rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(clone), SCMP_A0(SCMP_CMP_MASKED_EQ, flag, flag));
  }
  // What goes into a terminal's input, as if it were typed there.
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, TIOCSTI));
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(ioctl), SCMP_A1(SCMP_CMP_MASKED_EQ, 0xffffffff, TIOCLINUX));
  // Larger ones would outlive the processes. PostgreSQL's is one page.
  rule_if(context, SCMP_ACT_ERRNO(EPERM), SCMP_SYS(shmget), SCMP_A1(SCMP_CMP_GT, 1 << 20));
}

// An abstract socket is open to every account of the machine: nobody makes one, or any other, once the server has its
// own. The keeper of a cell lets them pass before that (seccomp_unotify(2)); where it has let go, the kernel answers
// that there is no such call.
static void refuse_listening(scmp_filter_ctx context) {
  rule(context, SCMP_ACT_NOTIFY, SCMP_SYS(bind), 0, NULL);
  rule(context, SCMP_ACT_NOTIFY, SCMP_SYS(listen), 0, NULL);
}

static scmp_filter_ctx make(int abi, bool asks) {
  scmp_filter_ctx context = seccomp_init(SCMP_ACT_ALLOW);
  if (context == NULL) return NULL;
  // 32-bit calls, and those of x32.
  int result = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO(EPERM));
  // PR_SET_NO_NEW_PRIVS is set by who loads it; a search tree, since the list is long.
  if (result == 0) result = seccomp_attr_set(context, SCMP_FLTATR_CTL_OPTIMIZE, 2);
  failed = result == 0 ? 0 : -result;
  rules(context, SCMP_ACT_ERRNO(EPERM), refused, COUNT(refused));
  rules(context, SCMP_ACT_ERRNO(ENOSYS), unknown, COUNT(unknown));
  rules(context, SCMP_ACT_ERRNO(0), ignored, COUNT(ignored));
  for (int number = nr_first_unknown; number <= nr_last_unknown; number++) {
    rule(context, SCMP_ACT_ERRNO(ENOSYS), number, 0, NULL);
  }
  // Landlock below ABI 3 lets an account cut any of its files. PostgreSQL cuts a dropped table's file before it
  // removes it: the room comes back a little later.
  if (abi < 3) rule(context, SCMP_ACT_ERRNO(0), SCMP_SYS(truncate), 0, NULL);
  refuse_sockets(context);
  refuse_set_id(context);
  refuse_others(context);
  if (asks) refuse_listening(context);
  if (failed == 0) return context;
  seccomp_release(context);
  errno = failed;
  return NULL;
}

// The filter as the kernel takes it: a process of ours loads it behind fork(2), where nothing may be allocated.
static bool export(int abi, bool asks, struct sock_fprog *program) {
  struct stat about;
  scmp_filter_ctx context = make(abi, asks);
  if (context == NULL) return false;
  int file = memfd_create("pgbackupd-filter", MFD_CLOEXEC);
  int result = file < 0 ? -errno : seccomp_export_bpf(context, file);
  seccomp_release(context);
  bool is_done = false;
  if (result == 0 && fstat(file, &about) == 0) {
    const size_t size = (size_t)about.st_size;
    struct sock_filter *lines = malloc(size);
    is_done = lines != NULL && pread(file, lines, size, 0) == (ssize_t)size;
    if (is_done) {
      *program = (struct sock_fprog){.len = (unsigned short)(size / sizeof *lines), .filter = lines};
    } else {
      free(lines);
    }
  }
  int reason = result < 0 ? -result : errno;
  if (file >= 0) close(file);
  errno = reason;
  return is_done;
}

// From Linux 5.5 on a keeper can let a call pass (SECCOMP_USER_NOTIF_FLAG_CONTINUE).
bool cconfinement_can_ask(void) {
  struct utsname about;
  int major = 0, minor = 0;
  if (uname(&about) != 0 || sscanf(about.release, "%d.%d", &major, &minor) != 2) return false;
  uint32_t action = SECCOMP_RET_USER_NOTIF;
  return (major > 5 || (major == 5 && minor >= 5)) &&
         syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) == 0;
}

struct cconfinement_filter *cconfinement_filter_make(int abi) {
  struct cconfinement_filter *filter = calloc(1, sizeof *filter);
  if (filter == NULL) return NULL;
  if (export(abi, false, &filter->program) &&
      (!cconfinement_can_ask() || export(abi, true, &filter->asking))) {
    return filter;
  }
  int reason = errno;
  cconfinement_filter_free(filter);
  errno = reason;
  return NULL;
}

void cconfinement_filter_free(struct cconfinement_filter *filter) {
  if (filter == NULL) return;
  free(filter->program.filter);
  free(filter->asking.filter);
  free(filter);
}
