// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What runs, looked at many times a second. */
#include "../stacks.bpf.h"

struct bpf_perf_event_data;

SEC("perf_event")
int sampled(struct bpf_perf_event_data *ctx)
{
	struct stack stack = {};

	if (!(u32)bpf_get_current_pid_tgid() || !wanted(bpf_get_current_cgroup_id()))
		return 0;
	name_stack(ctx, &stack);
	add(&stack, 1);
	return 0;
}
