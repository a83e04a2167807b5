/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Counts by stack: of the kernel, and of the program. */
#pragma once

#include "trace.bpf.h"

#define BPF_F_USER_STACK (1ULL << 8)
#define STACKS 2048
#define DEPTH 127

struct stack {
	u64 process;
	s64 kernel;
	s64 user;
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_STACK_TRACE);
	__uint(max_entries, STACKS);
	__uint(key_size, sizeof(u32));
	__uint(value_size, DEPTH * sizeof(u64));
} stacks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, STACKS * 2);
	__type(key, struct stack);
	__type(value, u64);
} counts SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

/* Of whoever is running. A stack that there is no room for has a negative number. */
static __always_inline void name_stack(void *ctx, struct stack *stack)
{
	stack->process = bpf_get_current_pid_tgid() >> 32;
	stack->kernel = bpf_get_stackid(ctx, &stacks, 0);
	stack->user = bpf_get_stackid(ctx, &stacks, BPF_F_USER_STACK);
	bpf_get_current_comm(stack->name, sizeof(stack->name));
}

static __always_inline void add(struct stack *stack, u64 amount)
{
	u64 *found = bpf_map_lookup_elem(&counts, stack);
	u64 none = 0;
	u32 only = 0;

	if (!found) {
		bpf_map_update_elem(&counts, stack, &none, BPF_NOEXIST);
		found = bpf_map_lookup_elem(&counts, stack);
	}
	if (!found)
		found = bpf_map_lookup_elem(&lost, &only);
	if (found)
		__sync_fetch_and_add(found, amount);
}
