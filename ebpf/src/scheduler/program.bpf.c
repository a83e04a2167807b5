// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Every moment of a thread's life is one of three: it waits for a CPU, has one, or is off (asleep). A thread
 * carries the three times with it until it leaves its CPU, so that only one row is looked up at a switch and none
 * at a wake-up. Nothing is allocated under the run-queue lock: a thread gets its timestamps when it is forked, or
 * from `adopt` when it was there before us.
 */
#include "weft.bpf.h"

/* What a thread is doing and since when, and what it has waited and slept since it was last counted. */
struct since {
	u64 at;
	u64 waited_ns;
	u64 off_ns;
	u32 state;
	u32 has_waited;
};

enum { UNKNOWN, WAITING, ON, OFF };

struct scheduling {
	u64 wait_ns;
	u64 on_ns;
	u64 off_ns;
	u64 voluntary;
	u64 involuntary;
	u64 wait[BUCKETS_ROOM];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct since);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct scheduling);
} cgroups SEC(".maps");

static struct scheduling zero;
static const u64 other = OTHER;

static __always_inline struct scheduling *row_of(u64 cgroup)
{
	return row(&cgroups, &cgroup, &other, &zero);
}

/* Up to now, of a thread that has a CPU. */
static __always_inline void settle_up(struct since *since, struct scheduling *row, u64 now)
{
	if (since->state == ON)
		row->on_ns += now - since->at;
	if (since->has_waited) {
		row->wait_ns += since->waited_ns;
		count(row->wait, since->waited_ns);
		since->has_waited = 0;
	}
	row->off_ns += since->off_ns;
	since->off_ns = 0;
}

static __always_inline void woken(struct task_struct *task)
{
	struct since *since = bpf_task_storage_get(&threads, task, 0, 0);
	u64 now;

	/* One that was still on its CPU stays there; one that waits already waits since then. */
	if (!since || since->state == ON || since->state == WAITING)
		return;
	now = bpf_ktime_get_ns();
	if (since->state == OFF)
		since->off_ns += now - since->at;
	since->at = now;
	since->state = WAITING;
}

SEC("tp_btf/sched_wakeup")
int BPF_PROG(sched_wakeup, struct task_struct *task)
{
	woken(task);
	return 0;
}

SEC("tp_btf/sched_wakeup_new")
int BPF_PROG(sched_wakeup_new, struct task_struct *task)
{
	woken(task);
	return 0;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	u64 now = bpf_ktime_get_ns();
	struct scheduling *row;
	struct since *since;

	if (prev->pid) {
		bool runnable = preempt || !prev_state;

		row = row_of(cgroup_of(prev));
		since = bpf_task_storage_get(&threads, prev, 0, 0);
		if (row) {
			if (runnable)
				row->involuntary++;
			else
				row->voluntary++;
			if (since)
				settle_up(since, row, now);
		}
		if (since) {
			since->at = now;
			since->state = runnable ? WAITING : OFF;
		}
	}
	if (next->pid) {
		since = bpf_task_storage_get(&threads, next, 0, 0);
		if (since) {
			if (since->state == WAITING) {
				since->waited_ns = now - since->at;
				since->has_waited = 1;
			}
			since->at = now;
			since->state = ON;
		}
	}
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	bpf_task_storage_get(&threads, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/* Run once after the hooks are in place: threads older than they are. */
SEC("iter/task")
int adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;

	if (task)
		bpf_task_storage_get(&threads, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/*
 * Run on every CPU before a reading: what the thread that is on it has used until now. Without this a thread
 * that has a core to itself and never leaves it would seem to use none.
 */
SEC("raw_tp")
int settle(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct since *since;
	struct scheduling *row;
	u64 now;

	if (!task->pid)
		return 0;
	since = bpf_task_storage_get(&threads, task, 0, 0);
	if (!since)
		return 0;
	now = bpf_ktime_get_ns();
	row = row_of(cgroup_of(task));
	if (row)
		settle_up(since, row, now);
	since->at = now;
	since->state = ON;
	return 0;
}
