// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Which files are opened, and what came of it. */
#include "../events.bpf.h"

/* Numbers of calls, and which registers hold their first and second argument. */
#if defined(WEFT_x86_64)
#define NR_OPEN 2
#define NR_OPENAT 257
#define FIRST(regs) ((regs)->di)
#define SECOND(regs) ((regs)->si)
#elif defined(WEFT_aarch64)
#define NR_OPENAT 56
#define SECOND(regs) (((struct user_pt_regs *)(regs))->regs[1])
#elif defined(WEFT_riscv64)
#define NR_OPENAT 56
#define SECOND(regs) ((regs)->a1)
#else
#error "it is not known how system calls are made here"
#endif
#define NR_OPENAT2 437

/* Where the name is of the file that a thread is opening. It may not be in memory before the call is over. */
struct opening {
	u64 path;
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct opening);
} threads SEC(".maps");

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long call)
{
	struct opening *opening;
	u64 path;

	if (call == NR_OPENAT || call == NR_OPENAT2)
		path = SECOND(regs);
#ifdef NR_OPEN
	else if (call == NR_OPEN)
		path = FIRST(regs);
#endif
	else
		return 0;
	if (!wanted(bpf_get_current_cgroup_id()))
		return 0;
	opening = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0,
				       BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (opening)
		opening->path = path;
	return 0;
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long result)
{
	struct opening *opening = bpf_task_storage_get(&threads, bpf_get_current_task_btf(), 0, 0);
	struct event *found;

	if (!opening || !opening->path)
		return 0;
	found = event(bpf_get_current_cgroup_id());
	if (found) {
		found->result = result;
		bpf_probe_read_user_str(found->path, sizeof(found->path), (void *)opening->path);
		bpf_ringbuf_submit(found, 0);
	}
	opening->path = 0;
	return 0;
}
