/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A TCG plugin of QEMU: how often was each instruction executed between two marks?
 *
 * The marks are instructions that do nothing and that no compiler writes; guest/tracing.py has
 * the same bytes. Counting is one inlined addition an instruction, so the guest executes what
 * it would execute without the plugin, and its clock, which counts instructions, does not move.
 * An instruction that faults is counted when it faults and again when it is executed.
 *
 * A window in the file is its number of entries and then the entries, address and count, all
 * 64-bit little-endian. No entries at all but the number 2^64-1: there are more distinct
 * instructions than counters.
 *
 * The prototypes are those of https://www.qemu.org/docs/master/devel/tcg-plugins.html .
 * API is 1 (QEMU 4.2 to 8) or 4 (9.2 and later).
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef API
#define API 1
#endif
#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translated)(qemu_plugin_id_t id, struct qemu_plugin_tb *block);
typedef void (*executed)(unsigned int cpu, void *data);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translated call);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *block);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *block, size_t at);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, executed call,
					    int registers, void *data);
enum { ADD = 0, NO_REGISTERS = 0 };

#if API >= 4
struct qemu_plugin_scoreboard;
struct place {
	struct qemu_plugin_scoreboard *board;
	size_t offset;
};
struct qemu_plugin_scoreboard *qemu_plugin_scoreboard_new(size_t size);
void *qemu_plugin_scoreboard_find(struct qemu_plugin_scoreboard *board, unsigned int cpu);
void qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(struct qemu_plugin_insn *insn, int what,
							 struct place where, uint64_t by);
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);
#else
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *insn, int what,
						void *where, uint64_t by);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#endif

EXPORT int qemu_plugin_version = API;

static const uint8_t START[] = { 0x0f, 0x1f, 0x80, 0x50, 0x4c, 0x01, 0x4d };
static const uint8_t STOP[] = { 0x0f, 0x1f, 0x80, 0x50, 0x4c, 0x02, 0x4d };
#define MARK sizeof(START)

#define COUNTERS ((size_t)1 << 22)
#define SLOTS (COUNTERS * 2)

static uint64_t *addresses; /* of the counters */
static uint32_t *slots; /* hash of an address -> number of its counter, plus one */
static size_t used;
static bool overflown;
static FILE *windows;

#if API >= 4
static struct qemu_plugin_scoreboard *board;

static uint64_t *counters(void)
{
	return qemu_plugin_scoreboard_find(board, 0);
}

static bool make_counters(void)
{
	board = qemu_plugin_scoreboard_new(COUNTERS * sizeof(uint64_t));
	return board != NULL;
}

static void count(struct qemu_plugin_insn *insn, size_t number)
{
	struct place where = { board, number * sizeof(uint64_t) };

	qemu_plugin_register_vcpu_insn_exec_inline_per_vcpu(insn, ADD, where, 1);
}

static void bytes_of(const struct qemu_plugin_insn *insn, uint8_t *to)
{
	qemu_plugin_insn_data(insn, to, MARK);
}
#else
static uint64_t *board;

static uint64_t *counters(void)
{
	return board;
}

static bool make_counters(void)
{
	board = calloc(COUNTERS, sizeof(*board));
	return board != NULL;
}

static void count(struct qemu_plugin_insn *insn, size_t number)
{
	qemu_plugin_register_vcpu_insn_exec_inline(insn, ADD, &board[number], 1);
}

static void bytes_of(const struct qemu_plugin_insn *insn, uint8_t *to)
{
	memcpy(to, qemu_plugin_insn_data(insn), MARK);
}
#endif

/* The number of the counter of an address; COUNTERS when there is none left. */
static size_t counter_of(uint64_t address)
{
	size_t slot = (address * 0x9e3779b97f4a7c15ULL) >> 41 & (SLOTS - 1);

	while (slots[slot] && addresses[slots[slot] - 1] != address)
		slot = (slot + 1) & (SLOTS - 1);
	if (!slots[slot]) {
		if (used == COUNTERS)
			return COUNTERS;
		addresses[used] = address;
		slots[slot] = ++used;
	}
	return slots[slot] - 1;
}

static void on_start(unsigned int cpu, void *data)
{
	(void)cpu;
	(void)data;
	memset(counters(), 0, used * sizeof(uint64_t));
}

static void on_stop(unsigned int cpu, void *data)
{
	uint64_t *counts = counters(), entries = 0;

	(void)cpu;
	(void)data;
	for (size_t i = 0; i < used; i++)
		entries += counts[i] != 0;
	if (overflown)
		entries = UINT64_MAX;
	fwrite(&entries, sizeof(entries), 1, windows);
	for (size_t i = 0; i < used && !overflown; i++) {
		uint64_t entry[] = { addresses[i], counts[i] };

		if (counts[i])
			fwrite(entry, sizeof(entry), 1, windows);
	}
	fflush(windows);
}

static void on_block(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
	size_t length = qemu_plugin_tb_n_insns(block);

	(void)id;
	for (size_t i = 0; i < length; i++) {
		struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(block, i);
		size_t number = counter_of(qemu_plugin_insn_vaddr(insn));
		uint8_t bytes[MARK];

		if (number == COUNTERS) {
			overflown = true;
			continue;
		}
		count(insn, number);
		if (qemu_plugin_insn_size(insn) != MARK)
			continue;
		bytes_of(insn, bytes);
		if (!memcmp(bytes, START, MARK))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_start, NO_REGISTERS, NULL);
		else if (!memcmp(bytes, STOP, MARK))
			qemu_plugin_register_vcpu_insn_exec_cb(insn, on_stop, NO_REGISTERS, NULL);
	}
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
	const char *name = "out=";

	(void)info;
	if (argc != 1 || strncmp(argv[0], name, strlen(name)))
		return -1;
	addresses = calloc(COUNTERS, sizeof(*addresses));
	slots = calloc(SLOTS, sizeof(*slots));
	windows = fopen(argv[0] + strlen(name), "wb");
	if (!addresses || !slots || !windows || !make_counters())
		return -1;
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_block);
	return 0;
}
