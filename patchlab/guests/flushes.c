// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Preloaded into QEMU: tells the lab of every fsync(2) and fdatasync(2) before it is done.
 *
 * A flush of virtio-pmem is an fsync(2) of the file behind the device, and nothing else of it
 * can be seen from outside. The lab gets the number of the file, takes note of what is in it,
 * and answers; until then the guest's flush is not done. When nobody listens any more, or at
 * all, the calls are what they were.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static int lab = -1;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const char *path = getenv("LAB_FLUSHES");
	int made;

	if (!path || strlen(path) >= sizeof(address.sun_path))
		return;
	strcpy(address.sun_path, path);
	made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (made >= 0 && connect(made, (struct sockaddr *)&address, sizeof(address)) == 0)
		lab = made;
	else if (made >= 0)
		close(made);
}

static int asked(uint64_t file)
{
	char done;
	ssize_t got;

	if (send(lab, &file, sizeof(file), MSG_NOSIGNAL) != (ssize_t)sizeof(file))
		return 0;
	do
		got = recv(lab, &done, 1, 0);
	while (got < 0 && errno == EINTR);
	return got == 1;
}

static void tell(int fd)
{
	int before = errno;
	struct stat file;

	pthread_mutex_lock(&turn);
	if (lab >= 0 && fstat(fd, &file) == 0 && !asked(file.st_ino)) {
		close(lab);
		lab = -1;
	}
	pthread_mutex_unlock(&turn);
	errno = before;
}

int fsync(int fd)
{
	tell(fd);
	return syscall(SYS_fsync, fd);
}

int fdatasync(int fd)
{
	tell(fd);
	return syscall(SYS_fdatasync, fd);
}
