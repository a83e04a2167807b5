// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* How long system calls take, by call. */
#include "../trace.bpf.h"

struct entered {
	u64 at;
	u64 call;
};

struct calls {
	u64 calls;
	u64 errors;
	u64 total_ns;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct entered);
} threads SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 512);
	__type(key, u64);
	__type(value, struct calls);
} calls SEC(".maps");

/* How long each took. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 512);
	__type(key, u64);
	__type(value, struct histogram);
} histograms SEC(".maps");

static const struct calls zero;
static struct histogram empty;
/* Not the number of any call. */
static const u64 other = ~0ULL;

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long call)
{
	struct entered *entered;

	if (!wanted(bpf_get_current_cgroup_id()))
		return 0;
	entered = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0,
				       BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (entered) {
		entered->call = call;
		entered->at = bpf_ktime_get_ns();
	}
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct entered *entered = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	struct calls *found;
	u64 call, took;

	if (!entered || !entered->at)
		return 0;
	took = bpf_ktime_get_ns() - entered->at;
	call = entered->call;
	entered->at = 0;
	found = row_and_key(&calls, &call, &other, &zero);
	if (!found)
		return 0;
	found->calls++;
	found->errors += result < 0 && result >= -4095;
	found->total_ns += took;
	count(&histograms, &call, &other, &empty, took);
	return 0;
}
