/* The smallest guest in C: says hello, counts its timer's ticks for three seconds, and ends. */
#include <portico.h>

static volatile unsigned ticks;

static void on_timer(uint16_t bit, uintptr_t period_ns)
{
	(void)bit;
	ticks++;
	portico_timer_arm(portico_deadline_ns(period_ns));
}

uint64_t portico_main(void)
{
	char name[17];
	const uint64_t period_ns = 250000000;

	portico_domain_name(name, sizeof name);
	portico_print("Hello from C, in \"");
	portico_print(name);
	portico_print("\"\n");

	portico_on_notify(PORTICO_BIT_TIMER, on_timer, period_ns);
	portico_timer_arm(portico_deadline_ns(period_ns));
	for (unsigned second = 1; second <= 3; second++) {
		portico_sleep_ns(1000000000);
		portico_print_unsigned(second);
		portico_print(" s, ");
		portico_print_unsigned(ticks);
		portico_print(" ticks\n");
	}
	portico_timer_disarm();
	return 0;
}
