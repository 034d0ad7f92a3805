/* SPDX-License-Identifier: Apache-2.0 OR MIT */
/*
 * Formatted text: what portico.h says of portico_format, and no more. There are no floating-point conversions, since the library stays out of
 * those registers.
 */
#include <portico.h>

/* Longest text that portico_printf prints at once, in bytes. */
#define LONGEST 256
/* Most digits of a number, in bytes: those of 64 bits in base 8 would be 22. */
#define DIGITS 24

/* Where the text goes: what does not fit is counted only. */
struct sink {
	char *to;
	size_t room, len;
};

/* What is left of the arguments: passed on by its address, so that what one function takes is gone for the next. */
struct arguments {
	va_list list;
};

/* One conversion, as it stands behind the `%`. */
struct conversion {
	bool is_left, is_zero, has_precision;
	size_t width, precision;
	/* Bytes of the argument; 0 if not told: those of an int. */
	size_t bytes;
	char letter;
};

static void put(struct sink *sink, char letter)
{
	if (sink->len + 1 < sink->room)
		sink->to[sink->len] = letter;
	sink->len++;
}

static void put_times(struct sink *sink, char letter, size_t times)
{
	while (times-- > 0)
		put(sink, letter);
}

/* Puts text, filled up to the width. */
static void put_text(struct sink *sink, const struct conversion *how, const char *text, size_t len)
{
	size_t fill = how->width > len ? how->width - len : 0;

	if (!how->is_left)
		put_times(sink, ' ', fill);
	for (size_t at = 0; at < len; at++)
		put(sink, text[at]);
	if (how->is_left)
		put_times(sink, ' ', fill);
}

static void put_number(struct sink *sink, const struct conversion *how, uint64_t value, bool is_negative)
{
	unsigned base = how->letter == 'x' || how->letter == 'X' || how->letter == 'p' ? 16 : 10;
	const char *digits = how->letter == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
	const char *sign = is_negative ? "-" : how->letter == 'p' ? "0x" : "";
	char text[DIGITS];
	size_t at = sizeof text, len, before = 0;

	do {
		text[--at] = digits[value % base];
		value /= base;
	} while (value > 0);
	while (sign[before])
		before++;
	len = sizeof text - at + before;
	/* The sign stands before zeros that fill, and behind spaces. */
	if (!how->is_left && !how->is_zero)
		put_times(sink, ' ', how->width > len ? how->width - len : 0);
	for (size_t index = 0; index < before; index++)
		put(sink, sign[index]);
	if (!how->is_left && how->is_zero)
		put_times(sink, '0', how->width > len ? how->width - len : 0);
	while (at < sizeof text)
		put(sink, text[at++]);
	if (how->is_left)
		put_times(sink, ' ', how->width > len ? how->width - len : 0);
}

/* Reads a number of the format; one that is too large is of no use, and its excess digits are passed over. */
static size_t read_number(const char **at)
{
	size_t number = 0;

	for (; **at >= '0' && **at <= '9'; ++*at)
		if (number < LONGEST)
			number = number * 10 + (size_t)(**at - '0');
	return number;
}

/* Reads a conversion; `*at` is behind its letter afterwards. */
static struct conversion read_conversion(const char **at)
{
	struct conversion how = { 0 };

	for (;; ++*at) {
		if (**at == '-')
			how.is_left = true;
		else if (**at == '0')
			how.is_zero = true;
		else
			break;
	}
	how.width = read_number(at);
	if (**at == '.') {
		++*at;
		how.has_precision = true;
		how.precision = read_number(at);
	}
	if (**at == 'l' || **at == 'z') {
		how.bytes = sizeof(long);
	} else if (**at == 'h') {
		how.bytes = (*at)[1] == 'h' ? sizeof(char) : sizeof(short);
	}
	while (**at == 'l' || **at == 'h' || **at == 'z')
		++*at;
	how.letter = **at;
	if (how.letter)
		++*at;
	return how;
}

static int64_t signed_argument(const struct conversion *how, struct arguments *arguments)
{
	if (how->bytes == sizeof(long))
		return va_arg(arguments->list, long);
	int value = va_arg(arguments->list, int);

	return how->bytes == sizeof(char) ? (signed char)value : how->bytes == sizeof(short) ? (short)value : value;
}

static uint64_t unsigned_argument(const struct conversion *how, struct arguments *arguments)
{
	if (how->bytes == sizeof(long))
		return va_arg(arguments->list, unsigned long);
	unsigned value = va_arg(arguments->list, unsigned);

	return how->bytes == sizeof(char) ? (unsigned char)value : how->bytes == sizeof(short) ? (unsigned short)value : value;
}

size_t portico_format(char *to, size_t room, const char *format, va_list given)
{
	struct sink sink = { to, room, 0 };
	struct arguments copy, *arguments = &copy;

	va_copy(arguments->list, given);
	while (*format) {
		const char *begin = format;
		struct conversion how;

		if (*format++ != '%') {
			put(&sink, *begin);
			continue;
		}
		how = read_conversion(&format);
		switch (how.letter) {
		case 'd':
		case 'i': {
			int64_t value = signed_argument(&how, arguments);

			put_number(&sink, &how, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, value < 0);
			break;
		}
		case 'u':
		case 'x':
		case 'X':
			put_number(&sink, &how, unsigned_argument(&how, arguments), false);
			break;
		case 'p':
			put_number(&sink, &how, (uintptr_t)va_arg(arguments->list, void *), false);
			break;
		case 'c': {
			char letter = (char)va_arg(arguments->list, int);

			put_text(&sink, &how, &letter, 1);
			break;
		}
		case 's': {
			const char *text = va_arg(arguments->list, const char *);
			size_t len = 0;

			if (!text)
				text = "(null)";
			while ((!how.has_precision || len < how.precision) && text[len])
				len++;
			put_text(&sink, &how, text, len);
			break;
		}
		case '%':
			put(&sink, '%');
			break;
		default:
			while (begin < format)
				put(&sink, *begin++);
		}
	}
	va_end(arguments->list);
	if (room > 0)
		to[sink.len < room ? sink.len : room - 1] = 0;
	return sink.len;
}

void portico_printf(const char *format, ...)
{
	char text[LONGEST];
	va_list arguments;
	size_t len;

	va_start(arguments, format);
	len = portico_format(text, sizeof text, format, arguments);
	va_end(arguments);
	portico_write(text, len < sizeof text ? len : sizeof text - 1);
}
