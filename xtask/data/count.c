/* A QEMU plugin that counts the instructions which all processors execute, and writes the counts down at marks; and the most that one stay
 * in EL2 executes, whenever it is more than before.
 *
 * A mark is the hint instruction number 96 to 111, which means nothing to a processor and which no compiler makes. For each that is executed a line is
 * written to the file of the argument `out=`: the mark's number less 96, instructions so far, hypercalls (`hvc #0`) so far, and how many of the instructions were
 * EL2's, of a kernel in the upper half of the addresses, and of programs below 1 GiB, where no guest has memory.
 *
 * With the argument `first=WORD-WORD` (hexadecimal) the first instruction of a program that begins with these two is mark 0 too, the first time.
 *
 * EL2 is told by the addresses of its code: all of it, and nobody else's, lies in the 4 GiB from EL2 on. A stay ends with the next instruction
 * elsewhere; for each that is the longest so far a line `longest INSTRUCTIONS` is written. What comes before the first
 * hypercall is the boot. It is right with one processor.
 *
 * The interface is that of QEMU's qemu-plugin.h, version 4, declared by hand since distributions do not package that header.
 * Under -icount all processors run on one thread, so plain counters do.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef uint64_t plugin_id;
struct block;
struct instruction;

__attribute__((visibility("default"))) int qemu_plugin_version = 4;

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_vcpu_insn_exec_cb(struct instruction *, void (*)(unsigned, void *), int flags, void *);
size_t qemu_plugin_tb_n_insns(const struct block *);
struct instruction *qemu_plugin_tb_get_insn(const struct block *, size_t);
size_t qemu_plugin_insn_data(const struct instruction *, void *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct instruction *);

#define HINT 0xd503201fu
#define FIRST_MARK 96u
#define MARKS 16u
#define HVC 0xd4000002u
#define EL2 0x6000000000u
#define KERNEL 0xffff000000000000u
#define RAM 0x40000000u

enum owner { HYPERVISOR, UPPER_HALF, PROGRAM, OTHER, OWNERS };

static FILE *out;
static uint64_t instructions[OWNERS], calls, stay, longest;
static uint32_t first[2];
static int is_begun;

static enum owner owner_of(uint64_t address)
{
	if (address >> 32 == EL2 >> 32)
		return HYPERVISOR;
	if (address >= KERNEL)
		return UPPER_HALF;
	return address < RAM ? PROGRAM : OTHER;
}

static void count(unsigned cpu, void *counter)
{
	(void)cpu;
	++*(uint64_t *)counter;
}

static void in_el2(unsigned cpu, void *unused)
{
	(void)cpu;
	(void)unused;
	stay++;
}

static void elsewhere(unsigned cpu, void *unused)
{
	(void)cpu;
	(void)unused;
	if (calls && stay > longest) {
		longest = stay;
		fprintf(out, "longest %llu\n", (unsigned long long)longest);
		fflush(out);
	}
	stay = 0;
}

static void mark(unsigned cpu, void *number)
{
	(void)cpu;
	uint64_t all = 0;

	for (int i = 0; i < OWNERS; i++)
		all += instructions[i];
	fprintf(out, "%u %llu %llu %llu %llu %llu\n", (unsigned)(uintptr_t)number, (unsigned long long)all,
		(unsigned long long)calls, (unsigned long long)instructions[HYPERVISOR],
		(unsigned long long)instructions[UPPER_HALF], (unsigned long long)instructions[PROGRAM]);
	fflush(out);
}

static void begun(unsigned cpu, void *unused)
{
	(void)unused;
	if (!is_begun)
		mark(cpu, NULL);
	is_begun = 1;
}

static void translated(plugin_id id, struct block *block)
{
	size_t total = qemu_plugin_tb_n_insns(block);

	(void)id;
	if (first[0] && total > 1) {
		uint32_t words[2] = { 0, 0 };

		for (int i = 0; i < 2; i++)
			qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i), &words[i], sizeof words[i]);
		if (words[0] == first[0] && words[1] == first[1])
			qemu_plugin_register_vcpu_insn_exec_cb(qemu_plugin_tb_get_insn(block, 0), begun, 0, NULL);
	}
	for (size_t i = 0; i < total; i++) {
		struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
		uint32_t word = 0;

		qemu_plugin_insn_data(instruction, &word, sizeof word);
		enum owner owner = owner_of(qemu_plugin_insn_vaddr(instruction));

		qemu_plugin_register_vcpu_insn_exec_cb(instruction, count, 0, &instructions[owner]);
		qemu_plugin_register_vcpu_insn_exec_cb(instruction, owner == HYPERVISOR ? in_el2 : elsewhere, 0, NULL);
		if (word == HVC)
			qemu_plugin_register_vcpu_insn_exec_cb(instruction, count, 0, &calls);
		if ((word & ~(0x7fu << 5)) == HINT) {
			uint32_t number = (word >> 5 & 0x7f) - FIRST_MARK;

			if (number < MARKS)
				qemu_plugin_register_vcpu_insn_exec_cb(instruction, mark, 0,
								       (void *)(uintptr_t)number);
		}
	}
}

__attribute__((visibility("default"))) int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	(void)info;
	for (int i = 0; i < argc; i++) {
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
		if (!strncmp(argv[i], "first=", 6))
			sscanf(argv[i] + 6, "%x-%x", &first[0], &first[1]);
	}
	if (!out)
		return 1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
