/* Notes, for each file, how many of its bytes a sync has brought to the disk: what is beyond is lost in a power cut.
   Preloaded into the engine. The size is taken before the sync, so that a note never says too much. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static int note(int fd, const char *name) {
  int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
  const char *folder = getenv("SYNCED_NOTES");
  struct stat file;
  int known = folder && fstat(fd, &file) == 0 && S_ISREG(file.st_mode), done = sync(fd);
  if (known && done == 0) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%llu", folder, (unsigned long long)file.st_ino);
    long long size = file.st_size;
    int out = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (out < 0 || pwrite(out, &size, sizeof size, 0) != sizeof size) abort();
    close(out);
  }
  return done;
}

int fsync(int fd) { return note(fd, "fsync"); }
int fdatasync(int fd) { return note(fd, "fdatasync"); }
