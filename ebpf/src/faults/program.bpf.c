// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Page faults by who was running. x86 and RISC-V have tracepoints for them; elsewhere the kernel's own software
 * event is sampled, each time.
 */
#include "weft.bpf.h"

struct faults {
	u64 faults;
};

struct bpf_perf_event_data;

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct faults);
} cgroups SEC(".maps");

static const struct faults zero;
static const u64 other = OTHER;

static __always_inline int fault(void)
{
	u64 cgroup = bpf_get_current_cgroup_id();
	struct faults *found = row(&cgroups, &cgroup, &other, &zero);

	if (found)
		found->faults++;
	return 0;
}

SEC("tp_btf/page_fault_user")
int BPF_PROG(page_fault_user)
{
	return fault();
}

SEC("tp_btf/page_fault_kernel")
int BPF_PROG(page_fault_kernel)
{
	return fault();
}

SEC("perf_event")
int sampled(struct bpf_perf_event_data *ctx)
{
	return fault();
}
