// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Where threads go to sleep, and for how long. */
#include "../stacks.bpf.h"

struct asleep {
	u64 at;
	struct stack stack;
};

/* By the thread's number. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct asleep);
} threads SEC(".maps");

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	struct asleep now = { .at = bpf_ktime_get_ns() };
	struct asleep *then;
	u32 thread = prev->pid;

	if (thread && !preempt && prev_state && wanted(cgroup_of(prev))) {
		name_stack(ctx, &now.stack);
		bpf_map_update_elem(&threads, &thread, &now, BPF_ANY);
	}
	thread = next->pid;
	then = bpf_map_lookup_elem(&threads, &thread);
	if (then) {
		add(&then->stack, now.at - then->at);
		bpf_map_delete_elem(&threads, &thread);
	}
	return 0;
}
