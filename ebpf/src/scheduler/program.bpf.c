// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The kernel keeps books about every thread: how long it had a CPU, how long it waited for one, how often it left
 * one. When a thread leaves its CPU, what the books have grown by is added to its cgroup's row, and what passed beside
 * is the time it was off. So an event that is missed (a program is not run while it runs already, and some kernels do
 * not trace all threads) loses nothing: the next one counts it. One row and one thread are looked up at a switch, one
 * histogram where the thread had waited, and nothing at a wake-up.
 *
 * No thread's room is allocated under the run-queue lock: it gets it when it is forked, or from `adopt`.
 */
#include "weft.bpf.h"

/* The books of a thread as they were last counted, and when it left its CPU. */
struct counted {
	u64 on_ns;
	u64 wait_ns;
	u64 voluntary;
	u64 involuntary;
	/* When it last left a CPU, 0 if it was not asleep then; and the sum of the first two at that time. */
	u64 asleep_since;
	u64 busy_ns;
};

struct scheduling {
	u64 wait_ns;
	u64 on_ns;
	u64 off_ns;
	u64 voluntary;
	u64 involuntary;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct counted);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct scheduling);
} cgroups SEC(".maps");

/* Single waits for a CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct histogram);
} histograms SEC(".maps");

/* Threads that were seen without room of their own. Read, and answered with `adopt`, by user space. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} strangers SEC(".maps");

static const struct scheduling zero;
static struct histogram empty;
static const u64 other = OTHER;
/* When `adopt` first ran: threads that are older have a past that is not ours to count. */
static u64 begun;

static __always_inline struct counted *counted_of(struct task_struct *task)
{
	struct counted *counted = bpf_task_storage_get(&threads, task, 0, 0);

	if (!counted) {
		u32 first = 0;
		u64 *seen = bpf_map_lookup_elem(&strangers, &first);

		if (seen)
			++*seen;
	}
	return counted;
}

/* Adds what the books of a thread that has a CPU have grown by to its cgroup's row, which is given back. */
static __always_inline struct scheduling *settle_up(struct task_struct *task, struct counted *counted)
{
	u64 cgroup = cgroup_of(task);
	struct scheduling *row = row_and_key(&cgroups, &cgroup, &other, &zero);
	u64 on_ns = task->se.sum_exec_runtime, wait_ns = task->sched_info.run_delay;
	u64 voluntary = task->nvcsw, involuntary = task->nivcsw;

	if (!row)
		return row;
	row->on_ns += on_ns - counted->on_ns;
	row->voluntary += voluntary - counted->voluntary;
	row->involuntary += involuntary - counted->involuntary;
	/* The wait ended when the thread got its CPU. */
	if (wait_ns != counted->wait_ns) {
		u64 waited = wait_ns - counted->wait_ns;

		row->wait_ns += waited;
		count(&histograms, &cgroup, &other, &empty, waited);
	}
	counted->on_ns = on_ns;
	counted->wait_ns = wait_ns;
	counted->voluntary = voluntary;
	counted->involuntary = involuntary;
	return row;
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next,
	     unsigned int prev_state)
{
	struct counted *counted;
	struct scheduling *row;
	u64 now, busy_ns;

	if (!prev->pid)
		return 0;
	counted = counted_of(prev);
	if (!counted)
		return 0;
	row = settle_up(prev, counted);
	if (!row)
		return 0;
	now = bpf_ktime_get_ns();
	busy_ns = counted->on_ns + counted->wait_ns;
	if (counted->asleep_since) {
		u64 passed = now - counted->asleep_since, busy = busy_ns - counted->busy_ns;

		if (passed > busy)
			row->off_ns += passed - busy;
	}
	counted->asleep_since = preempt || !prev_state ? 0 : now;
	counted->busy_ns = busy_ns;
	return 0;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	/* The books of a new thread are empty, and so is what is counted of them. */
	bpf_task_storage_get(&threads, child, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/* Run once before the hook of switches is in place, and whenever there are strangers. */
SEC("iter/task")
int adopt(struct bpf_iter__task *ctx)
{
	struct task_struct *task = ctx->task;
	struct counted counted = {};

	if (!task)
		return 0;
	if (!begun)
		begun = bpf_ktime_get_ns();
	if (task->start_time < begun) {
		counted.on_ns = task->se.sum_exec_runtime;
		counted.wait_ns = task->sched_info.run_delay;
		counted.voluntary = task->nvcsw;
		counted.involuntary = task->nivcsw;
	}
	bpf_task_storage_get(&threads, task, &counted, BPF_LOCAL_STORAGE_GET_F_CREATE);
	return 0;
}

/*
 * Run on every CPU before a reading: what the thread that is on it has used until now, by the last tick. Without this a
 * thread that has a core to itself and never leaves it would seem to use none.
 */
SEC("raw_tp")
int settle(void *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct counted *counted;

	if (!task->pid)
		return 0;
	counted = counted_of(task);
	if (counted)
		settle_up(task, counted);
	return 0;
}
