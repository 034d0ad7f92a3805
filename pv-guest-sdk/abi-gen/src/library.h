/* ----- The library: link libportico.a with guest.ld ----- */

/*
 * The guest begins here, on vCPU 0, with MMU, caches, vectors, heap and console up and interrupts unmasked.
 * The result is the exit code of the domain.
 */
uint64_t portico_main(void);

/* Prints a string; writes bytes; prints a number. If the console makes no room for a second the rest is dropped. */
void portico_print(const char *text);
void portico_write(const void *bytes, size_t len);
void portico_print_unsigned(uint64_t value);
void portico_print_hex(uint64_t value);
/*
 * Formats as C's printf does, with conversions d, i, u, x, X, p, c, s and %, of lengths hh, h, l, ll and z, with a width, a precision of strings, and the
 * flags `-` and `0`; anything else is copied as it stands. portico_printf prints up to 255 bytes at once. portico_format writes what fits into `to`, with a NUL,
 * and returns the length of the whole.
 */
__attribute__((format(printf, 1, 2))) void portico_printf(const char *format, ...);
__attribute__((format(printf, 3, 0))) size_t portico_format(char *to, size_t len, const char *format, va_list arguments);
/*
 * Writes as many bytes as there is room for, without waiting; returns how many. If that is not all the port of portico_console_port announces room. For kernels,
 * whose tasks must not hold up each other.
 */
size_t portico_write_some(const void *bytes, size_t len);
/* Reads what was typed, without waiting; returns how many bytes. */
size_t portico_read(void *to, size_t len);
struct portico_port;
/* The console's port, for portico_on_notify: something was typed, or room came. false: there is no console but the hypervisor's log. */
bool portico_console_port(struct portico_port *out);
/* How many breaks of the terminal's line came while the guest had the keyboard. */
uint32_t portico_breaks(void);
/* Asks to be ended as crashed if portico_heartbeat is not called for that long, of 50 ms or more; 0 ends it. */
void portico_watchdog(uint32_t limit_ms);
void portico_heartbeat(void);
/*
 * Tells the manager what the guest does if it is asked for, a bit 1 << PORTICO_ASK_... for each; and what it asks for and did not before,
 * a PORTICO_ASK_... or -1. To be looked at now and then, or when the port of portico_control_port is notified, which the first call binds: for portico_on_notify.
 * PORTICO_NOT_FOUND, and the errors of binding.
 */
void portico_able(uint32_t asks);
int32_t portico_asked(void);
int64_t portico_control_port(struct portico_port *out);
/*
 * Tells the manager that the guest sleeps, and blocks until it asks for something else, which is returned: PORTICO_ASK_NOTHING to go on. To be called when
 * nothing is in flight, on the vCPU that bound the port of portico_control_port.
 */
int64_t portico_sleep(void);
/* The time of day in nanoseconds since 1970-01-01 00:00 UTC, 0 if the machine does not know. */
uint64_t portico_wall_ns(void);

/* Ends the domain: in order, with 0 for success; or as broken, with a reason on the console. */
_Noreturn void portico_exit(uint64_t code);
_Noreturn void portico_panic(const char *reason);

/* Copies the boot arguments or the domain's name, cut to `len` with a NUL; returns the length of the whole. */
size_t portico_bootargs(char *to, size_t len);
size_t portico_domain_name(char *to, size_t len);

/* A block aligned to 16, or a null pointer; and giving it back. */
void *portico_alloc(size_t len);
void portico_free(void *block);

/* The virtual counter; the same in nanoseconds; a deadline from now (PORTICO_DEADLINE_NEVER if too far away). */
uint64_t portico_now(void);
uint64_t portico_now_ns(void);
uint64_t portico_deadline_ns(uint64_t after_ns);
/* Ticks of the counter in a second, which may change when the domain is restored on another machine. */
uint32_t portico_counter_hz(void);
/* Sleeps; handlers run meanwhile. */
void portico_sleep_ns(uint64_t ns);
/* The timer of the calling vCPU: notifies PORTICO_BIT_TIMER at `deadline`, once. */
void portico_timer_arm(uint64_t deadline);
void portico_timer_disarm(void);

/* Masks and unmasks interrupts on the calling vCPU. */
void portico_irq_mask(void);
void portico_irq_unmask(void);

/*
 * For a kernel with vectors of its own (VBAR_EL1). From its IRQ entry, with interrupts masked, it calls portico_upcall, which acknowledges the upcall at whatever
 * interrupt controller there is and runs the handlers of all that is pending; what portico_upcall may change the kernel saves: x0 to x18, x30. What it does not
 * handle itself it sends to the same entry of the library's table, with SP_EL1 and all registers as they were: the library reports it and ends the domain.
 * TPIDR_EL1 is the library's. The library uses no FP and SIMD registers, nor must handlers.
 */
void portico_upcall(void);
extern const char portico_vectors[];

/* A port that is bound to a bit of a vCPU. */
struct portico_port {
	uint32_t handle;
	uint32_t vcpu;
	uint16_t bit;
	uint16_t _reserved[3];
};

/* Called with interrupts masked when its bit is notified. */
typedef void (*portico_handler)(uint16_t bit, uintptr_t argument);

/* Binds a port to a free bit of the calling vCPU. */
int64_t portico_bind(uint32_t handle, struct portico_port *out);
/* Whether it was notified since the last time. */
bool portico_take(const struct portico_port *port);
/* Blocks until it is notified (0) or the deadline (PORTICO_TIMED_OUT). */
int64_t portico_wait(const struct portico_port *port, uint64_t deadline);
/* Masks it; unmasks it: true if it has no handler and was notified meanwhile. */
void portico_mask(const struct portico_port *port);
bool portico_unmask(const struct portico_port *port);
/* Sets the function for a bit. */
void portico_on_notify(uint16_t bit, portico_handler handler, uintptr_t argument);

/* Index of the calling vCPU; number of vCPUs; starts another, which runs `function` and then turns itself off. */
uint32_t portico_vcpu_index(void);
uint32_t portico_vcpu_count(void);
int64_t portico_vcpu_start(uint32_t index, void (*function)(uintptr_t), uintptr_t argument);

/* A channel with a ring of messages in each direction. */
#define PORTICO_MESSAGE_BYTES 64
struct portico_channel;
/* Opens and connects it. PORTICO_NOT_FOUND, PORTICO_TIMED_OUT, PORTICO_PEER_GONE. */
int64_t portico_channel_open(const char *name, uint64_t deadline, struct portico_channel **out);
/* PORTICO_PEER_GONE: close, and open again. PORTICO_BAD_STATE: the peer broke the protocol. */
int64_t portico_channel_send(struct portico_channel *channel, const uint8_t message[PORTICO_MESSAGE_BYTES], uint64_t deadline);
int64_t portico_channel_receive(struct portico_channel *channel, uint8_t message[PORTICO_MESSAGE_BYTES], uint64_t deadline);
void portico_channel_close(struct portico_channel *channel);
/*
 * The same without waiting, for a kernel whose tasks wait in their own way: PORTICO_AGAIN means that its port will be notified when it is worth another try. Each
 * notification may mean any of them, or nothing.
 *
 * try_open begins it: PORTICO_NOT_FOUND, or PORTICO_PEER_GONE if nobody is there now, which nothing announces: try again some time later. It is to be connected
 * before anything is sent or received. PORTICO_PEER_GONE and PORTICO_BAD_STATE: as above.
 */
int64_t portico_channel_try_open(const char *name, struct portico_channel **out);
void portico_channel_port(const struct portico_channel *channel, struct portico_port *out);
int64_t portico_channel_try_connect(struct portico_channel *channel);
int64_t portico_channel_try_send(struct portico_channel *channel, const uint8_t message[PORTICO_MESSAGE_BYTES]);
int64_t portico_channel_try_receive(struct portico_channel *channel, uint8_t message[PORTICO_MESSAGE_BYTES]);

/*
 * Disks and network interfaces. Each is for one vCPU at a time, and lives as long as the guest. They outlive their services: when one goes and
 * comes back the link is made again by the next function that is called, and functions that wait just take longer.
 *
 * Besides what is said below, every function that returns a status may return PORTICO_BAD_STATE (the service refuses us) or PORTICO_NOT_SUPPORTED
 * (it is no service of this kind or version); a later life of the service may be another. c/device is the source, in C, to read and to take.
 */

/* What the device tree says of a device. */
struct portico_device {
	uintptr_t window;
	size_t window_bytes;
	/* Of the port, in each life of the service. */
	uint64_t cookie;
	uint32_t side;
};
/* Finds it: `compatible` is PORTICO_DT_BLOCK or PORTICO_DT_NET, `queue` that of a disk. PORTICO_NOT_FOUND. */
int64_t portico_device_find(const char *compatible, const char *name, uint32_t queue, struct portico_device *out);

struct portico_disk;
/* What a disk is, as the service said when it was last met. */
struct portico_disk_info {
	uint64_t sectors;
	/* PORTICO_BLOCK_FEATURE_* */
	uint64_t features;
	/* Bytes that the device writes at once. */
	uint32_t block_bytes;
	/* PORTICO_BLOCK_FLAG_* */
	uint32_t flags;
	/* Most sectors of a request: of a read or write, of a discard, of a write-zeroes. */
	uint32_t max_sectors;
	uint32_t max_discard;
	uint32_t max_zeroes;
	/* Most requests in flight. */
	uint32_t depth;
};
/* A request that has ended: what portico_disk_submit was told, and PORTICO_BLOCK_STATUS_*. */
struct portico_disk_done {
	uintptr_t token;
	uint32_t status;
};
/*
 * Opens a queue of a disk and waits for its service. PORTICO_NOT_FOUND, PORTICO_INVALID, PORTICO_NO_BUDGET: `*out` is a null pointer. Else the disk is open, also
 * with PORTICO_TIMED_OUT: then portico_disk_connect waits again.
 */
int64_t portico_disk_open(const char *name, uint32_t queue, uint64_t deadline, struct portico_disk **out);
int64_t portico_disk_connect(struct portico_disk *disk, uint64_t deadline);
void portico_disk_info(const struct portico_disk *disk, struct portico_disk_info *out);
/* How often the service was lost. */
uint64_t portico_disk_lost(const struct portico_disk *disk);
/*
 * Make requests, wait for them, and return PORTICO_OK, PORTICO_BLOCK_STATUS_* (positive), or a negative status. `bytes` are whole sectors; there is no other limit to
 * them. PORTICO_BAD_STATE: requests of portico_disk_submit are in flight.
 */
int64_t portico_disk_read(struct portico_disk *disk, uint64_t sector, void *to, size_t bytes);
int64_t portico_disk_write(struct portico_disk *disk, uint64_t sector, const void *from, size_t bytes);
int64_t portico_disk_flush(struct portico_disk *disk);
int64_t portico_disk_discard(struct portico_disk *disk, uint64_t sector, uint32_t sectors);
int64_t portico_disk_write_zeroes(struct portico_disk *disk, uint64_t sector, uint32_t sectors);
/*
 * Begins a request, `op` being PORTICO_BLOCK_OP_*, without waiting; the service hears of it with portico_disk_publish. The data of a write is copied now, that
 * of a read when it is reaped: until then `data` must stay. No two in flight may touch the same sectors if one of them writes.
 * PORTICO_LIMIT: reap first. PORTICO_INVALID: more than the disk takes at once, or not offered.
 */
int64_t portico_disk_submit(struct portico_disk *disk, uint8_t op, uint64_t sector, uint32_t sectors, void *data, uintptr_t token);
void portico_disk_publish(struct portico_disk *disk);
/* Takes a request that has ended. PORTICO_AGAIN: none has. */
int64_t portico_disk_reap(struct portico_disk *disk, struct portico_disk_done *done);
/* Publishes, and waits for one. PORTICO_TIMED_OUT. */
int64_t portico_disk_wait(struct portico_disk *disk, struct portico_disk_done *done, uint64_t deadline);

struct portico_net;
/* As portico_disk_open. */
int64_t portico_net_open(const char *name, uint64_t deadline, struct portico_net **out);
int64_t portico_net_connect(struct portico_net *net, uint64_t deadline);
/* What it is, as the service said when it was last met: to be asked again when it was lost. */
void portico_net_info(const struct portico_net *net, struct portico_net_interface *out);
uint64_t portico_net_lost(const struct portico_net *net);
/*
 * Puts an Ethernet frame, without checksum (FCS), into the ring; the service hears of it with portico_net_publish, or when the guest waits. PORTICO_AGAIN: there is no room
 * now. PORTICO_INVALID: too short or too long.
 */
int64_t portico_net_send(struct portico_net *net, const void *frame, size_t bytes);
void portico_net_publish(struct portico_net *net);
/* Takes the next frame: as much of it as there is room for; `*bytes` is its length. PORTICO_AGAIN: there is none. */
int64_t portico_net_receive(struct portico_net *net, void *to, size_t room, size_t *bytes);
/* Publish, and wait until there may be a frame, or room for one of so many bytes. PORTICO_TIMED_OUT. */
int64_t portico_net_wait(struct portico_net *net, uint64_t deadline);
int64_t portico_net_wait_for_room(struct portico_net *net, size_t bytes, uint64_t deadline);
