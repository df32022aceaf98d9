/* A disk that falls ill on demand, for programs that run with this in LD_PRELOAD. Everything below the directory
 * $SICK_DIR behaves as the word in the file $SICK_CONTROL says:
 *
 *   well      as always
 *   full      what would take room fails with ENOSPC
 *   readonly  every change fails with EROFS, also through files that are open: so does a card that the kernel has
 *             given up, while `mount -o remount,ro` refuses as long as anybody has a file open for writing
 *   broken    writes and syncs fail with EIO
 *   stall     a sync takes two seconds
 *
 * Reading works throughout. Memory that is mapped is not covered.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name, type, ...) \
  static type (*real)(__VA_ARGS__); \
  if (!real) real = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

enum illness { WELL, FULL, READONLY, BROKEN, STALL };

static enum illness illness(void) {
  static int (*open_file)(const char *, int, ...);
  static ssize_t (*read_file)(int, void *, size_t);
  const char *control = getenv("SICK_CONTROL");
  char word[16] = {0};
  if (!control) return WELL;
  if (!open_file) open_file = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
  if (!read_file) read_file = (ssize_t(*)(int, void *, size_t))dlsym(RTLD_NEXT, "read");
  int saved = errno;
  int fd = open_file(control, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) {
    if (read_file(fd, word, sizeof word - 1) < 0) word[0] = 0;
    close(fd);
  }
  errno = saved;
  switch (word[0]) {
    case 'f': return FULL;
    case 'r': return READONLY;
    case 'b': return BROKEN;
    case 's': return STALL;
    default: return WELL;
  }
}

static int ours(const char *path) {
  const char *dir = getenv("SICK_DIR");
  size_t length = dir ? strlen(dir) : 0;
  return length && path && !strncmp(path, dir, length) && (path[length] == '/' || !path[length]);
}

static int ours_fd(int fd) {
  char link[64], path[PATH_MAX];
  int saved = errno;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  errno = saved;
  if (length <= 0) return 0;
  path[length] = 0;
  return ours(path);
}

/* The error that a change meets, 0 if none. `grows`: it may take room. */
static int ill(int grows) {
  switch (illness()) {
    case FULL: return grows ? ENOSPC : 0;
    case READONLY: return EROFS;
    case BROKEN: return EIO;
    default: return 0;
  }
}

static int fails_fd(int fd, int grows) {
  int error = ours_fd(fd) ? ill(grows) : 0;
  if (error) errno = error;
  return error;
}

static int fails_path(const char *path, int grows) {
  int error = ours(path) ? ill(grows) : 0;
  if (error) errno = error;
  return error;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  REAL("write", ssize_t, int, const void *, size_t);
  return fails_fd(fd, 1) ? -1 : real(fd, bytes, count);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL("writev", ssize_t, int, const struct iovec *, int);
  return fails_fd(fd, 1) ? -1 : real(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
  REAL("pwrite", ssize_t, int, const void *, size_t, off_t);
  return fails_fd(fd, 1) ? -1 : real(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
  REAL("pwrite64", ssize_t, int, const void *, size_t, off64_t);
  return fails_fd(fd, 1) ? -1 : real(fd, bytes, count, at);
}

int ftruncate(int fd, off_t length) {
  REAL("ftruncate", int, int, off_t);
  return fails_fd(fd, 0) ? -1 : real(fd, length);
}

int ftruncate64(int fd, off64_t length) {
  REAL("ftruncate64", int, int, off64_t);
  return fails_fd(fd, 0) ? -1 : real(fd, length);
}

static int sync_fails(int fd) {
  if (!ours_fd(fd)) return 0;
  enum illness now = illness();
  if (now == STALL) {
    struct timespec two = {2, 0};
    nanosleep(&two, NULL);
  }
  if (now == BROKEN) errno = EIO;
  return now == BROKEN;
}

int fsync(int fd) {
  REAL("fsync", int, int);
  return sync_fails(fd) ? -1 : real(fd);
}

int fdatasync(int fd) {
  REAL("fdatasync", int, int);
  return sync_fails(fd) ? -1 : real(fd);
}

static int open_fails(const char *path, int flags) {
  if ((flags & O_ACCMODE) == O_RDONLY && !(flags & (O_CREAT | O_TRUNC))) return 0;
  int error = ours(path) ? ill(0) : 0;
  /* A new name takes room, and a broken disk still opens what it has. */
  if (!error && ours(path) && illness() == FULL && (flags & O_CREAT) && access(path, F_OK) != 0) error = ENOSPC;
  if (error == EIO && access(path, F_OK) == 0) error = 0;
  if (error) errno = error;
  return error;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(#name, int, const char *, int, ...); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return open_fails(path, flags) ? -1 : real(path, flags, mode); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int at, const char *path, int flags, ...) { \
    REAL(#name, int, int, const char *, int, ...); \
    va_list rest; \
    va_start(rest, flags); \
    mode_t mode = (flags & (O_CREAT | O_TMPFILE)) ? va_arg(rest, mode_t) : 0; \
    va_end(rest); \
    return open_fails(path, flags) ? -1 : real(at, path, flags, mode); \
  }
OPENAT(openat)
OPENAT(openat64)

int rename(const char *from, const char *to) {
  REAL("rename", int, const char *, const char *);
  return fails_path(to, 0) ? -1 : real(from, to);
}

int unlink(const char *path) {
  REAL("unlink", int, const char *);
  return fails_path(path, 0) ? -1 : real(path);
}

int mkdir(const char *path, mode_t mode) {
  REAL("mkdir", int, const char *, mode_t);
  return access(path, F_OK) != 0 && fails_path(path, 1) ? -1 : real(path, mode);
}
