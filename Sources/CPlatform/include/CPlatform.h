#pragma once
// What Glibc's Swift module hides because it is declared only under _GNU_SOURCE, in thin wrappers.
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/// pipe2(2) with O_CLOEXEC and the kernel buffer grown to `bytes` where the system allows it (fcntl F_SETPIPE_SZ).
/// Returns 0, or -1 with errno set. A refused size is not an error: the default buffer works, only slower.
int cplatform_pipe(int descriptors[2], size_t bytes);

/// A sealed-by-name anonymous file (memfd_create(2)), mode 0600, close-on-exec. Returns the descriptor, or -1 with errno.
int cplatform_memory_file(const char *name);

/// renameat(2) between two open folders that fails with EEXIST where the target exists (renameat2 RENAME_NOREPLACE),
/// falling back to linkat(2) + unlinkat(2) on file systems without it. Returns 0, or -1 with errno set.
int cplatform_rename_exclusive(int from_folder, const char *from, int to_folder, const char *to);

/// Gives unused heap pages back to the kernel (malloc_trim(3)).
void cplatform_trim_heap(void);

/// Caps the allocator's arenas and keeps large blocks in their own mappings (mallopt(3)), so that a finished run's
/// buffers really leave the process. Call once, before the first thread.
void cplatform_tune_heap(void);

/// Starts writing a range of a file to the disk without waiting (sync_file_range(2), SYNC_FILE_RANGE_WRITE). A hint.
void cplatform_begin_writeback(int file, int64_t offset, int64_t count);

/// What a file is, and how large (stat(2)). Here, since the module that Swift takes `struct stat` from depends on what a build
/// compiles together.
struct cplatform_file {
  uint64_t device, number;
  int64_t size;
};

/// Of an open file, and of the one that a path names. Both return 0, or -1 with errno.
int cplatform_file_of_descriptor(int descriptor, struct cplatform_file *file);
int cplatform_file_of_path(const char *path, struct cplatform_file *file);

/// Begins a program in a session of its own, with no signal blocked or ignored (posix_spawn(3)). It has `descriptors` as 0, 1, 2 and so on, and
/// no other one; there are three or more. Returns 0, or an error's number where the program could not be begun.
int cplatform_spawn(
  const char *path, char *const arguments[], char *const environment[], const int *descriptors, int count, pid_t *child);
