/* A QEMU plugin that counts the instructions which all processors execute, and writes the counts down at marks; and the most that one stay
 * in EL2 executes, whenever it is more than before.
 *
 * A mark is the hint instruction number 96 to 111, which means nothing to a processor and which no compiler makes. For each that is executed a line is
 * written to the file of the argument `out=`: the mark's number less 96, instructions so far, hypercalls (`hvc #0`) so far.
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

static FILE *out;
static uint64_t instructions, calls, stay, longest;

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
	fprintf(out, "%u %llu %llu\n", (unsigned)(uintptr_t)number, (unsigned long long)instructions,
		(unsigned long long)calls);
	fflush(out);
}

static void translated(plugin_id id, struct block *block)
{
	size_t total = qemu_plugin_tb_n_insns(block);

	(void)id;
	for (size_t i = 0; i < total; i++) {
		struct instruction *instruction = qemu_plugin_tb_get_insn(block, i);
		uint32_t word = 0;

		qemu_plugin_insn_data(instruction, &word, sizeof word);
		qemu_plugin_register_vcpu_insn_exec_cb(instruction, count, 0, &instructions);
		qemu_plugin_register_vcpu_insn_exec_cb(
			instruction, qemu_plugin_insn_vaddr(instruction) >> 32 == EL2 >> 32 ? in_el2 : elsewhere, 0, NULL);
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
	for (int i = 0; i < argc; i++)
		if (!strncmp(argv[i], "out=", 4))
			out = fopen(argv[i] + 4, "w");
	if (!out)
		return 1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
	return 0;
}
