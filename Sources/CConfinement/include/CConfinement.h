#pragma once
// A process that runs code of strangers, and all its descendants: what the kernel refuses them, and how they end.
// Landlock (landlock(7)) guards files, signals and memory of others; a system call filter (seccomp(2)) guards the rest.
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// What a confined process may do below a path.
enum cconfinement_right {
  /// Read files and list folders.
  CCONFINEMENT_READ = 1,
  /// Run programs. Includes reading.
  CCONFINEMENT_EXECUTE = 2,
  /// Write to a file that is there. Includes reading.
  CCONFINEMENT_WRITE = 4,
  /// Read, write, make and remove files, folders, sockets and pipes: no devices, no symbolic links, no programs.
  CCONFINEMENT_OWN = 8,
};

/// The highest Landlock ABI that this kernel has and lets us use; 0 where it has none (no Landlock, or a filter hides
/// it).
int cconfinement_landlock_abi(void);

/// A new set of rules that refuses everything which Landlock of `abi` can refuse. Returns a descriptor, or -1 with
/// errno set.
int cconfinement_rules(int abi);

/// Allows `rights` below `path`; symbolic links are followed. Returns 1, 0 where there is no such path, or -1 with
/// errno set.
int cconfinement_allow(int rules, int abi, const char *path, int rights);

/// The same for an open file or folder.
int cconfinement_allow_file(int rules, int abi, int file, int rights);

/// Runs `work` on a thread of its own that obeys these rules, and waits for it: programs that it begins obey them too,
/// this process does not. Returns 0, or errno where the rules can't be applied; `work` was not run then.
int cconfinement_on_confined_thread(int rules, void (*work)(void *), void *context);

/// The system call filter that goes with Landlock of `abi`, made by libseccomp(3); null with errno set where it can't
/// be made.
struct cconfinement_filter *cconfinement_filter_make(int abi);
/// Whether this kernel can ask a process of ours about a call: who listens is refused by that.
bool cconfinement_can_ask(void);
void cconfinement_filter_free(struct cconfinement_filter *filter);

/// A program and its limits. All pointers and descriptors are the caller's, and are used during `cconfinement_begin`
/// alone.
struct cconfinement_program {
  const char *path;
  char *const *arguments;
  char *const *environment;
  /// Standard error. Standard input and output are /dev/null.
  int errors;
  /// The working directory. Its file system keeps `reserve` bytes free: where less is left, all processes end.
  int folder;
  uint64_t reserve;
  /// From `cconfinement_rules`, or -1.
  int rules;
  const struct cconfinement_filter *filter;
  /// The account to become; the caller's own where `changes_account` is 0.
  int changes_account;
  uid_t user;
  gid_t group;
  /// Bytes of private memory of each process (RLIMIT_DATA), and of each file that one writes (RLIMIT_FSIZE).
  uint64_t memory;
  uint64_t file_size;
};

/// Processes that run. `keeper` is a process of ours that is the parent of all orphans among them
/// (PR_SET_CHILD_SUBREAPER); it ends them all when `control` is closed, so also when this process dies.
struct cconfinement_cell {
  pid_t keeper;
  int control;
};

/// Runs a program without the caller's descriptors, waits for its end, and gives its status as waitpid(2) has it.
/// What it has left running goes on. Blocks. Returns 0, or -1 with errno where the program could not be begun, or not
/// so confined: then it has not run, and there is no cell.
int cconfinement_begin(const struct cconfinement_program *program, struct cconfinement_cell *cell, int *status);

/// How a cell ended.
enum cconfinement_end_reason {
  CCONFINEMENT_ENDED = 0,
  /// Some process could not be ended within half a minute.
  CCONFINEMENT_STAYS = 1,
  /// The file system was nearly full, so all were ended before this call.
  CCONFINEMENT_FULL = 2,
  /// The keeper was ended from outside.
  CCONFINEMENT_LOST = 3,
};

/// Ends all processes of a cell: SIGQUIT, which is an immediate shutdown of PostgreSQL; five seconds later SIGKILL.
/// Returns when none is left. Blocks.
enum cconfinement_end_reason cconfinement_end(struct cconfinement_cell *cell);

/// Ends a PostgreSQL server that is no child of ours: SIGQUIT, and SIGKILL where it lives ten seconds later. Blocks.
void cconfinement_end_server(pid_t server);

/// Keeps this process's memory from others of its account and from core dumps (PR_SET_DUMPABLE, RLIMIT_CORE). Returns
/// 0, or -1 with errno.
int cconfinement_keep_memory_private(void);
