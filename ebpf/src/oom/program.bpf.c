// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Processes that the kernel killed for memory, by the cgroup of the victim. Since 6.8 the kernel names the
 * victim when it is chosen; before, it is seen by its mark when its first thread exits.
 */
#include "weft.bpf.h"

struct kills {
	u64 kills;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct kills);
} cgroups SEC(".maps");

static const struct kills zero;
static const u64 other = OTHER;

static __always_inline int killed(struct task_struct *victim)
{
	u64 cgroup = cgroup_of(victim);
	struct kills *found = row(&cgroups, &cgroup, &other, &zero);

	if (found)
		found->kills++;
	return 0;
}

SEC("tp_btf/mark_victim")
int BPF_PROG(mark_victim, struct task_struct *victim)
{
	return killed(victim);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	if (task->pid != task->tgid || !task->signal->oom_mm)
		return 0;
	return killed(task);
}
