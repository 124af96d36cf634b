/* A library to preload: calls on files below FAULTS_BELOW fail as FAULTS says.

   FAULTS is a list such as "flock=37 mmap=19": the name of a call and the errno that it sets.
   "fsync-directory" is fsync on directories alone. FAULTS_PERCENT is the share of the calls that
   fail; all of them by default. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int fault_of(const char *call) {
    const char *faults = getenv("FAULTS");
    const char *percent = getenv("FAULTS_PERCENT");
    size_t length = strlen(call);
    for (const char *at = faults; at && (at = strstr(at, call)); at += length) {
        if ((at == faults || at[-1] == ' ') && at[length] == '=') {
            struct timespec now;
            clock_gettime(CLOCK_MONOTONIC, &now);
            unsigned chance = (unsigned)(now.tv_nsec / 7 % 10000);
            return percent && chance >= 100 * (unsigned)atoi(percent) ? 0 : atoi(at + length + 1);
        }
    }
    return 0;
}

static int is_below(const char *path) {
    const char *below = getenv("FAULTS_BELOW");
    return below && *below && !strncmp(path, below, strlen(below));
}

/* Set errno and return 1 if a call on a path is to fail. */
static int path_fails(const char *call, const char *path) {
    int error = is_below(path) ? fault_of(call) : 0;
    if (error) errno = error;
    return error != 0;
}

static int file_fails(const char *call, int descriptor) {
    int before = errno;
    char link[64], path[PATH_MAX];
    if (descriptor < 0 || !fault_of(call)) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    return path_fails(call, path);
}

int flock(int fd, int operation) {
    return file_fails("flock", fd) ? -1 : REAL(flock)(fd, operation);
}

int fsync(int fd) {
    struct stat found;
    int directory = !fstat(fd, &found) && S_ISDIR(found.st_mode);
    if (file_fails("fsync", fd) || (directory && file_fails("fsync-directory", fd))) return -1;
    return REAL(fsync)(fd);
}

ssize_t read(int fd, void *to, size_t size) {
    return file_fails("read", fd) ? -1 : REAL(read)(fd, to, size);
}

ssize_t pread(int fd, void *to, size_t size, off_t at) {
    return file_fails("read", fd) ? -1 : REAL(pread)(fd, to, size, at);
}

ssize_t pread64(int fd, void *to, size_t size, off64_t at) {
    return file_fails("read", fd) ? -1 : REAL(pread64)(fd, to, size, at);
}

void *mmap(void *to, size_t size, int protection, int flags, int fd, off_t at) {
    if (file_fails("mmap", fd)) return MAP_FAILED;
    return REAL(mmap)(to, size, protection, flags, fd, at);
}

void *mmap64(void *to, size_t size, int protection, int flags, int fd, off64_t at) {
    if (file_fails("mmap", fd)) return MAP_FAILED;
    return REAL(mmap64)(to, size, protection, flags, fd, at);
}

int rename(const char *from, const char *to) {
    return path_fails("rename", from) ? -1 : REAL(rename)(from, to);
}

int link(const char *from, const char *to) {
    return path_fails("link", from) ? -1 : REAL(link)(from, to);
}
