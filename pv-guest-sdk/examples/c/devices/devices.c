/*
 * A guest in C with a disk and a network interface: shows the first bytes of the disk, then answers ARP and pings (ICMP echo) for the
 * address in its boot arguments, `ip=10.0.0.2`. It goes on when a service is restarted, and does nothing for that.
 */
#include <portico.h>

#define SECOND_NS 1000000000ull
#define LONGEST 1514u

/* Offsets in an Ethernet frame with ARP (RFC 826), or with IPv4 (RFC 791) without options and ICMP (RFC 792). */
enum {
	DESTINATION = 0, SOURCE = 6, TYPE = 12,
	ARP_OPERATION = 20, ARP_SENDER = 22, ARP_SENDER_IP = 28, ARP_TARGET = 32, ARP_TARGET_IP = 38, ARP_END = 42,
	IP_VERSION = 14, IP_LENGTH = 16, IP_FRAGMENT = 20, IP_PROTOCOL = 23, IP_SOURCE = 26, IP_DESTINATION = 30,
	ICMP_TYPE = 34, ICMP_SUM = 36, ICMP_END = 42,
};

static uint8_t frame[LONGEST];
static uint8_t ip[4];
static struct portico_net *net;

static void copy(uint8_t *to, const uint8_t *from, size_t bytes)
{
	while (bytes-- > 0)
		*to++ = *from++;
}

static bool equal(const uint8_t *a, const uint8_t *b, size_t bytes)
{
	while (bytes-- > 0)
		if (*a++ != *b++)
			return false;
	return true;
}

static unsigned number(const uint8_t *at)
{
	return at[0] * 256u + at[1];
}

/* Reads `ip=a.b.c.d` among the boot arguments. */
static bool read_address(void)
{
	char text[128];
	unsigned part = 0, value = 0;

	portico_bootargs(text, sizeof text);
	for (const char *at = text; *at; at++) {
		if (at[0] != 'i' || at[1] != 'p' || at[2] != '=')
			continue;
		for (at += 3; part < 4; at++) {
			if (*at >= '0' && *at <= '9') {
				value = value * 10 + (unsigned)(*at - '0');
				continue;
			}
			ip[part++] = (uint8_t)value;
			value = 0;
			if (*at != '.')
				return part == 4;
		}
	}
	return false;
}

/* Makes a request for our hardware address the answer. */
static bool answer_arp(size_t bytes, const uint8_t *mac)
{
	static const uint8_t request[] = { 0, 1, 8, 0, 6, 4, 0, 1 };

	if (bytes < ARP_END || !equal(frame + TYPE + 2, request, sizeof request) || !equal(frame + ARP_TARGET_IP, ip, 4))
		return false;
	frame[ARP_OPERATION + 1] = 2;
	copy(frame + ARP_TARGET, frame + ARP_SENDER, 10);
	copy(frame + ARP_SENDER, mac, 6);
	copy(frame + ARP_SENDER_IP, ip, 4);
	return true;
}

/* Makes an echo request the reply. The sums are one's complement: that of the IP header does not see that the addresses change places, and
 * that of ICMP grows by what the type falls. */
static bool answer_ping(size_t bytes)
{
	uint8_t sender[4];
	unsigned sum;

	if (bytes < ICMP_END || frame[IP_VERSION] != 0x45 || number(frame + IP_LENGTH) < ICMP_END - IP_VERSION ||
	    number(frame + IP_LENGTH) > bytes - IP_VERSION || (number(frame + IP_FRAGMENT) & 0x3fff) != 0 ||
	    frame[IP_PROTOCOL] != 1 || !equal(frame + IP_DESTINATION, ip, 4) || frame[ICMP_TYPE] != 8)
		return false;
	copy(sender, frame + IP_SOURCE, 4);
	copy(frame + IP_SOURCE, ip, 4);
	copy(frame + IP_DESTINATION, sender, 4);
	frame[ICMP_TYPE] = 0;
	sum = number(frame + ICMP_SUM) + 0x800;
	sum = (sum & 0xffff) + (sum >> 16);
	frame[ICMP_SUM] = (uint8_t)(sum >> 8);
	frame[ICMP_SUM + 1] = (uint8_t)sum;
	return true;
}

static void show_disk(void)
{
	static uint8_t sector[PORTICO_BLOCK_SECTOR];
	struct portico_disk_info info;
	struct portico_disk *disk;

	if (portico_disk_open("disk0", 0, portico_deadline_ns(10 * SECOND_NS), &disk) != PORTICO_OK)
		portico_panic("the disk cannot be opened");
	if (portico_disk_read(disk, 0, sector, sizeof sector) != PORTICO_OK)
		portico_panic("the disk cannot be read");
	portico_disk_info(disk, &info);
	portico_print_unsigned(info.sectors);
	portico_print(" sectors, the first begins with ");
	portico_write(sector, 16);
	portico_print("\n");
}

uint64_t portico_main(void)
{
	struct portico_net_interface info;
	size_t bytes;
	int64_t status;

	show_disk();
	if (!read_address())
		portico_panic("no ip=a.b.c.d among the boot arguments");
	if (portico_net_open("net0", portico_deadline_ns(10 * SECOND_NS), &net) != PORTICO_OK)
		portico_panic("the interface cannot be opened");
	portico_print("answers pings\n");
	for (;;) {
		while ((status = portico_net_receive(net, frame, sizeof frame, &bytes)) == PORTICO_OK) {
			portico_net_info(net, &info);
			if (bytes > sizeof frame)
				continue;
			if (number(frame + TYPE) == 0x0806 ? !answer_arp(bytes, info.mac) :
			    number(frame + TYPE) != 0x0800 || !answer_ping(bytes))
				continue;
			copy(frame + DESTINATION, frame + SOURCE, 6);
			copy(frame + SOURCE, info.mac, 6);
			/* Without room the answer is lost: it is asked for again. */
			portico_net_send(net, frame, bytes);
		}
		if (status == PORTICO_AGAIN)
			status = portico_net_wait(net, PORTICO_DEADLINE_NEVER);
		if (status != PORTICO_OK)
			portico_panic("the interface failed");
	}
}
