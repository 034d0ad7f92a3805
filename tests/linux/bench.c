/* What I/O costs a Linux guest: the first program of the RAM disk of `cargo xtask bench`.
 *
 * It repeats an operation, marks where that begins and ends by instructions that mean nothing to a processor (xtask/data/count.c counts what is
 * executed between them), and tells on the console what it was and how often: `COUNT name operations`. What it does the kernel's arguments
 * say: `bench=boot`, `bench=disk`, `bench=console`, `bench=net` (two guests, of which the one with `peer=ADDRESS` measures; without `peer=` and with
 * `bench=loopback` one does both). `bench=messages` counts nothing.
 *
 * Each measured loop comes after some rounds that are not, so that caches of the kernel are warm and all pages are there.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define BEGIN() asm volatile("hint #96" ::: "memory")
#define END() asm volatile("hint #97" ::: "memory")

enum { UDP_PORT = 7, TCP_PORT = 9, WARM = 32, BLOCK = 4096, LARGE = 131072, SPAN = 32 << 20, DEEP = 8 };

static char arguments[4096];

/* Ends the guest: what it said so far is all that there is. */
static void fail(const char *what)
{
	printf("BENCH failed: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	reboot(RB_POWER_OFF);
	_exit(1);
}

static void check(int good, const char *what)
{
	if (!good)
		fail(what);
}

static void count(const char *name, int operations)
{
	printf("COUNT %s %d\n", name, operations);
	fflush(stdout);
	/* Until the line is out: it is nobody's cost. */
	tcdrain(1);
	usleep(50000);
}

/* The value of an argument of the kernel, or a null pointer. */
static const char *argument(const char *name)
{
	static char value[64];
	const char *at = arguments;
	size_t length = strlen(name);

	while ((at = strstr(at, name)) && !((at == arguments || at[-1] == ' ') && at[length] == '='))
		at += length;
	if (!at)
		return NULL;
	snprintf(value, sizeof(value), "%.*s", (int)strcspn(at + length + 1, " \n"), at + length + 1);
	return value;
}

/* Random offsets, the same in every run. */
static uint64_t next_offset(uint64_t bytes)
{
	static uint64_t state = 88172645463325252;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % (SPAN / bytes) * bytes;
}

static void one_by_one(const char *name, int disk, char *buffer, size_t bytes, int is_write, int times)
{
	for (int i = -WARM; i < times; i++) {
		uint64_t offset = next_offset(bytes);

		if (!i)
			BEGIN();
		ssize_t done = is_write ? pwrite(disk, buffer, bytes, offset) : pread(disk, buffer, bytes, offset);

		check(done == (ssize_t)bytes, name);
	}
	END();
	count(name, times);
}

/* DEEP requests are always in flight. */
static void many_at_once(const char *name, int disk, char *buffer, int times)
{
	struct iocb requests[DEEP], *given[DEEP];
	struct io_event events[DEEP];
	int idle[DEEP], idles = DEEP, begun = 0, done = 0;
	aio_context_t context = 0;

	check(!syscall(SYS_io_setup, DEEP, &context), "io_setup");
	for (int i = 0; i < DEEP; i++)
		idle[i] = i;
	BEGIN();
	while (done < times) {
		int count = 0;

		while (idles && begun < times) {
			int which = idle[--idles];

			requests[which] = (struct iocb){
				.aio_fildes = disk, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_nbytes = BLOCK, .aio_data = which,
				.aio_buf = (uintptr_t)(buffer + which * BLOCK), .aio_offset = next_offset(BLOCK),
			};
			given[count++] = &requests[which];
			begun++;
		}
		check(!count || syscall(SYS_io_submit, context, count, given) == count, "io_submit");
		count = syscall(SYS_io_getevents, context, 1, DEEP, events, NULL);
		check(count >= 1, "io_getevents");
		for (int i = 0; i < count; i++) {
			check(events[i].res == BLOCK, name);
			idle[idles++] = events[i].data;
		}
		done += count;
	}
	END();
	syscall(SYS_io_destroy, context);
	count(name, times);
}

static void disk(void)
{
	const char *path = argument("disk");
	int fd = open(path ? path : "", O_RDWR | O_DIRECT);
	char *buffer = NULL;

	check(fd >= 0, "the disk");
	check(!posix_memalign((void **)&buffer, BLOCK, LARGE), "memory");
	memset(buffer, 0x5a, LARGE);
	one_by_one("linux_blk_read4k_qd1", fd, buffer, BLOCK, 0, 400);
	one_by_one("linux_blk_write4k_qd1", fd, buffer, BLOCK, 1, 400);
	one_by_one("linux_blk_read128k_qd1", fd, buffer, LARGE, 0, 100);
	many_at_once("linux_blk_read4k_qd8", fd, buffer, 800);
}

/* One line of 64 bytes, written and drained. */
static void console(void)
{
	char line[64];
	int times = 200;

	memset(line, 'x', sizeof(line));
	memcpy(line + 62, "\r\n", 2);
	for (int i = -WARM; i < times; i++) {
		if (!i)
			BEGIN();
		check(write(1, line, sizeof(line)) == sizeof(line), "the console");
		tcdrain(1);
	}
	/* The console service takes the lines of one who writes often together, perhaps later: that is their cost too. */
	usleep(20000);
	END();
	count("linux_console_line", times);
}

static struct sockaddr_in address_of(const char *ip, int port)
{
	return (struct sockaddr_in){
		.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = ip ? inet_addr(ip) : INADDR_ANY,
	};
}

static void raise_loopback(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int any = socket(AF_INET, SOCK_DGRAM, 0);

	check(any >= 0 && !ioctl(any, SIOCSIFFLAGS, &request), "the loopback interface");
	close(any);
}

/* Sends each datagram back; takes a stream, and says at its end how long it was. */
static void serve(void)
{
	static char buffer[65536];
	struct sockaddr_in udp = address_of(NULL, UDP_PORT), tcp = address_of(NULL, TCP_PORT), from;
	int echo = socket(AF_INET, SOCK_DGRAM, 0), sink = socket(AF_INET, SOCK_STREAM, 0);

	check(!bind(echo, (void *)&udp, sizeof(udp)) && !bind(sink, (void *)&tcp, sizeof(tcp)) && !listen(sink, 1), "bind");
	if (fork())
		for (;;) {
			socklen_t length = sizeof(from);
			ssize_t bytes = recvfrom(echo, buffer, sizeof(buffer), 0, (void *)&from, &length);

			if (bytes > 0)
				sendto(echo, buffer, bytes, 0, (void *)&from, length);
		}
	for (;;) {
		int stream = accept(sink, NULL, NULL);
		uint64_t all = 0;
		ssize_t bytes;

		while ((bytes = read(stream, buffer, sizeof(buffer))) > 0)
			all += bytes;
		check(write(stream, &all, sizeof(all)) == sizeof(all), "the stream's end");
		close(stream);
	}
}

static void round_trips(const char *peer)
{
	struct sockaddr_in to = address_of(peer, UDP_PORT);
	struct timeval patience = { .tv_usec = 200000 };
	int echo = socket(AF_INET, SOCK_DGRAM, 0), times = 400, tries = 0;
	char datagram[64] = "Portico";

	check(!connect(echo, (void *)&to, sizeof(to)), "connect");
	setsockopt(echo, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	/* The other one may not be up yet. */
	while (send(echo, datagram, sizeof(datagram), 0) < 0 || recv(echo, datagram, sizeof(datagram), 0) < 0) {
		check(++tries < 300, "nobody answers");
		usleep(100000);
	}
	usleep(300000);
	while (recv(echo, datagram, sizeof(datagram), MSG_DONTWAIT) > 0)
		;
	for (int i = -WARM; i < times; i++) {
		if (!i)
			BEGIN();
		check(send(echo, datagram, sizeof(datagram), 0) == sizeof(datagram), "send");
		check(recv(echo, datagram, sizeof(datagram), 0) == sizeof(datagram), "a datagram is lost");
	}
	END();
	count("linux_udp_rtt", times);
}

static void stream(const char *peer)
{
	static char buffer[65536];
	struct sockaddr_in to = address_of(peer, TCP_PORT);
	int sink = socket(AF_INET, SOCK_STREAM, 0), times = 128, tries = 0;
	uint64_t all = 0;

	while (connect(sink, (void *)&to, sizeof(to))) {
		usleep(100000);
		check(++tries < 100, "connect");
	}
	for (int i = -WARM; i < times; i++) {
		if (!i)
			BEGIN();
		for (size_t done = 0; done < sizeof(buffer);) {
			ssize_t bytes = write(sink, buffer + done, sizeof(buffer) - done);

			check(bytes > 0, "the stream");
			done += bytes;
		}
	}
	shutdown(sink, SHUT_WR);
	check(read(sink, &all, sizeof(all)) == sizeof(all), "the stream's end");
	END();
	check(all == (uint64_t)(WARM + times) * sizeof(buffer), "bytes of the stream are lost");
	count("linux_tcp_64k", times);
}

static long milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Messages of the kernel without end, each with how long the slowest has taken. It counts nothing: it is there for a console that misbehaves. */
static void messages(void)
{
	int file = open("/dev/kmsg", O_WRONLY);
	char line[96];
	long slowest = 0;

	check(file >= 0, "the kernel's messages");
	for (int number = 1;; number++) {
		long before = milliseconds();
		int length = snprintf(line, sizeof(line), "line %d, slowest %ld ms ", number, slowest);

		memset(line + length, '.', sizeof(line) - length);
		check(write(file, line, sizeof(line)) == sizeof(line), "a message");
		if (milliseconds() - before > slowest)
			slowest = milliseconds() - before;
		usleep(2000);
	}
}

int main(void)
{
	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);

	int file = open("/proc/cmdline", O_RDONLY);

	check(file >= 0 && read(file, arguments, sizeof(arguments) - 1) > 0, "the arguments");

	const char *what = argument("bench");
	char peer[64] = "127.0.0.1";

	check(!!what, "no bench= in the arguments");
	if (!strcmp(what, "boot")) {
		/* It began with the kernel's first instruction, which the plugin knows. */
		END();
		count("linux_boot", 1);
	} else if (!strcmp(what, "messages")) {
		messages();
	} else if (!strcmp(what, "disk")) {
		disk();
		console();
	} else if (!strcmp(what, "loopback")) {
		raise_loopback();
		if (!fork())
			serve();
	} else if (argument("peer")) {
		strcpy(peer, argument("peer"));
	} else {
		printf("BENCH serves\n");
		fflush(stdout);
		serve();
	}
	what = argument("bench");
	if (!strcmp(what, "loopback") || !strcmp(what, "net")) {
		round_trips(peer);
		stream(peer);
	}
	printf("BENCH end\n");
	fflush(stdout);
	tcdrain(1);
	for (;;)
		pause();
}
