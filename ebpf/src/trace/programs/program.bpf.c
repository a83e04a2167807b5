// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Which programs are started. */
#include "../events.bpf.h"

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *task, int before, struct linux_binprm *bprm)
{
	u64 cgroup = bpf_get_current_cgroup_id();
	struct event *found;

	if (!wanted(cgroup))
		return 0;
	found = event(cgroup);
	if (!found)
		return 0;
	bpf_probe_read_kernel_str(found->path, sizeof(found->path), bprm->filename);
	bpf_ringbuf_submit(found, 0);
	return 0;
}
