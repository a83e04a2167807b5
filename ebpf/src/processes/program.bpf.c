// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Processes and threads that start, processes that become another program, processes that end. */
#include "weft.bpf.h"

struct lives {
	u64 processes;
	u64 threads;
	u64 programs;
	u64 exits;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct lives);
} cgroups SEC(".maps");

static const struct lives zero;
static const u64 other = OTHER;

static __always_inline struct lives *row_of(struct task_struct *task)
{
	u64 cgroup = cgroup_of(task);

	return row(&cgroups, &cgroup, &other, &zero);
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct lives *lives = row_of(child);

	if (lives && child->pid == child->tgid)
		lives->processes++;
	else if (lives)
		lives->threads++;
	return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task)
{
	struct lives *lives = row_of(task);

	if (lives)
		lives->programs++;
	return 0;
}

/* A process ends with its last thread, which need not be its first. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	struct lives *lives;

	if (task->signal->live.counter > 0)
		return 0;
	lives = row_of(task);
	if (lives)
		lives->exits++;
	return 0;
}
