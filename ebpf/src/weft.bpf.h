/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What all programs share: the cgroup of a task, H2 histograms, and tables of counters by key. */
#pragma once

#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

/* Where counts go whose own row has no room, and where user space puts those of vanished cgroups. */
#define OTHER 0ULL

/*
 * H2 histogram (https://h2histogram.org): values below 16 each have a bucket, above that eight buckets for
 * every power of two. src/histogram.rs is the same in Rust.
 */
#define GROUPING_POWER 3
#define BUCKETS 496

static __always_inline u32 log2_of(u64 v)
{
	u32 r = 0;

	if (v >> 32) { v >>= 32; r += 32; }
	if (v >> 16) { v >>= 16; r += 16; }
	if (v >> 8) { v >>= 8; r += 8; }
	if (v >> 4) { v >>= 4; r += 4; }
	if (v >> 2) { v >>= 2; r += 2; }
	if (v >> 1) r += 1;
	return r;
}

static __always_inline u32 bucket_of(u64 v)
{
	if (v < (2 << GROUPING_POWER))
		return v;
	u32 shift = log2_of(v) - GROUPING_POWER;
	return (shift << GROUPING_POWER) + (u32)(v >> shift);
}

/* Arrays of counts have 512 places, so that a mask proves to the verifier what a comparison would not: clang
 * may compare one copy of the index and use another. Only BUCKETS of them are ever used. */
#define BUCKETS_MASK 511
#define BUCKETS_ROOM 512

struct histogram {
	u64 counts[BUCKETS_ROOM];
};

static __always_inline u64 cgroup_of(struct task_struct *task)
{
	return task->cgroups->dfl_cgrp->kn->id;
}

/*
 * Numbers are in small rows, whose room is there from the beginning: what a cgroup does is its own from its first event
 * on. Histograms are large, and in tables of their own with the same keys, called `histograms`, whose rows are allocated
 * when they are first used (BPF_F_NO_PREALLOC). The kernel has few of them at hand, and needs a moment to have more: a
 * histogram may lack the first events of its cgroup, which are then in the histogram of `other`.
 *
 * Per-CPU rows are only written by the CPU they belong to, and a program is not interrupted by itself.
 */

/* The row of a key, made of `zero` if there is none (not `const` where it is large: constants take room in the file);
 * NULL when there is no room for it. */
static __always_inline void *own_row(void *table, const void *key, const void *zero)
{
	void *found = bpf_map_lookup_elem(table, key);

	if (found)
		return found;
	bpf_map_update_elem(table, key, zero, BPF_NOEXIST);
	return bpf_map_lookup_elem(table, key);
}

/* As own_row, but the row `other` when there is no room. */
static __always_inline void *row(void *table, const void *key, const void *other, const void *zero)
{
	void *found = own_row(table, key, zero);

	return found ?: bpf_map_lookup_elem(table, other);
}

/* As row, and the key becomes that of the row, so that the histogram beside it is the same one's. */
#define row_and_key(table, key, other, zero)                    \
	({                                                      \
		void *_found = own_row(table, key, zero);       \
                                                                \
		if (!_found) {                                  \
			*(key) = *(other);                      \
			_found = bpf_map_lookup_elem(table, key); \
		}                                               \
		_found;                                         \
	})

/* Counts a value in a histogram, once it was counted in the row: a reader finds no histogram that has more than its row. */
static __always_inline void count(void *histograms, const void *key, const void *other, const void *zero, u64 value)
{
	struct histogram *found = row(histograms, key, other, zero);

	if (found)
		found->counts[bucket_of(value) & BUCKETS_MASK]++;
}

/* Helpers that are only for GPL programs are used. */
char _license[] SEC("license") = "Dual BSD/GPL";
