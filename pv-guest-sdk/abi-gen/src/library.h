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
/* Reads what was typed, without waiting; returns how many bytes. */
size_t portico_read(void *to, size_t len);
/* How many breaks of the terminal's line came while the guest had the keyboard. */
uint32_t portico_breaks(void);
/* Asks for a restart if portico_heartbeat is not called for that long; 0 ends it. */
void portico_watchdog(uint32_t limit_ms);
void portico_heartbeat(void);

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
/* Sleeps; handlers run meanwhile. */
void portico_sleep_ns(uint64_t ns);
/* The timer of the calling vCPU: notifies PORTICO_BIT_TIMER at `deadline`, once. */
void portico_timer_arm(uint64_t deadline);
void portico_timer_disarm(void);

/* Masks and unmasks interrupts on the calling vCPU. */
void portico_irq_mask(void);
void portico_irq_unmask(void);

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
