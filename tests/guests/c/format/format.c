/* Test guest in C: what portico_format makes of every conversion, and of texts that do not fit. */
#include <portico.h>

static unsigned points;

static bool equal(const char *a, const char *b)
{
	while (*a && *a == *b) {
		a++;
		b++;
	}
	return *a == *b;
}

/* Formats into `room` bytes with others behind them, and compares text, length, and what must stay as it was. */
__attribute__((format(printf, 4, 5))) static void check(const char *wanted, size_t len, size_t room, const char *format, ...)
{
	char text[80];
	va_list arguments;
	size_t told;
	bool is_ok;

	for (size_t at = 0; at < sizeof text; at++)
		text[at] = '#';
	va_start(arguments, format);
	told = portico_format(text, room, format, arguments);
	va_end(arguments);
	is_ok = told == len && text[room] == '#' && (room == 0 || equal(text, wanted));
	portico_print(is_ok ? "ok " : "not ok ");
	portico_print_unsigned(++points);
	portico_print(" ");
	portico_print(format);
	portico_print("\n");
	if (!is_ok) {
		text[sizeof text - 1] = 0;
		portico_print("# ");
		portico_print(text);
		portico_print("\n");
	}
}

uint64_t portico_main(void)
{
	/* The compiler is not to know. */
	const char *volatile nothing = NULL;

	check("plain", 5, 79, "plain");
	check("100%", 4, 79, "100%%");
	check("-7 7 0", 6, 79, "%d %i %u", -7, 7, 0u);
	check("-2147483648", 11, 79, "%d", -2147483647 - 1);
	check("-9223372036854775808", 20, 79, "%ld", -9223372036854775807l - 1);
	check("18446744073709551615", 20, 79, "%lu", ~0ul);
	check("18446744073709551615 5", 22, 79, "%llu %u", ~0ull, 5u);
	check("123456789 -1", 12, 79, "%zu %d", (size_t)123456789, -1);
	check("-1 255 -1 65535", 15, 79, "%hhd %hhu %hd %hu", -1, 255u, -1, 65535u);
	check("beef BEEF 0x1000", 16, 79, "%x %X %p", 0xbeefu, 0xbeefu, (void *)0x1000);
	check("ffffffffffffffff", 16, 79, "%lx", ~0ul);
	check("[   42] [42   ] [00042]", 23, 79, "[%5d] [%-5d] [%05d]", 42, 42, 42);
	check("[  -42] [-0042]", 15, 79, "[%5d] [%05d]", -42, -42);
	check("[  ab] [ab  ] [a]", 17, 79, "[%4s] [%-4s] [%.1s]", "ab", "ab", "ab");
	check("c (null)", 8, 79, "%c %s", 'c', nothing);
	/* Eight arguments are in registers: the rest is on the stack. */
	check("1 2 3 4 5 6 7 8 9 10", 20, 79, "%d %d %d %d %d %d %d %d %d %d", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10);
	check("123", 6, 4, "%d", 123456);
	check("abc", 3, 4, "%s", "abc");
	check("", 3, 1, "%s", "abc");
	check("", 3, 0, "%s", "abc");
	portico_print("1..");
	portico_print_unsigned(points);
	portico_print("\n");
	portico_printf("%s\n", "printed");
	return 0;
}
