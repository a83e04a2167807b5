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

static __always_inline int exited(struct task_struct *task)
{
	struct lives *lives = row_of(task);

	if (lives)
		lives->exits++;
	return 0;
}

/* Since 6.16 the kernel says which thread of a process is the last. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit_last, struct task_struct *task, bool last)
{
	return last ? exited(task) : 0;
}

/* Before, two threads that end at once both look like the last one: the first one's end is taken for all. */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	return task->pid == task->tgid ? exited(task) : 0;
}
