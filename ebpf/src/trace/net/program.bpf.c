// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* Which TCP connections are made, how long that takes, and which are not. */
#include "../events.bpf.h"

#define AF_INET6 10
#define IPPROTO_TCP 6
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define ECONNABORTED 103

/* In place of a path. src/trace/events.rs reads it. */
struct whom {
	u16 family;
	u16 port;
	u8 address[16];
};

/* Who sent the first SYN and when. The end of it is seen in softirq, where nobody in particular runs. */
struct attempt {
	u64 at_ns;
	u64 cgroup;
	u32 process;
	u32 parent;
	char name[16];
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 4096);
	__type(key, u64);
	__type(value, struct attempt);
} attempts SEC(".maps");

static __always_inline void began(u64 address)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct attempt attempt = {};

	attempt.cgroup = bpf_get_current_cgroup_id();
	if (!wanted(attempt.cgroup))
		return;
	attempt.at_ns = bpf_ktime_get_ns();
	attempt.process = task->tgid;
	attempt.parent = task->real_parent->tgid;
	bpf_get_current_comm(attempt.name, sizeof(attempt.name));
	bpf_map_update_elem(&attempts, &address, &attempt, BPF_ANY);
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int before, int after)
{
	struct sock_common *common = &sk->__sk_common;
	struct attempt *attempt;
	u64 address = (u64)sk;
	struct event *found;
	struct whom *whom;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (after == TCP_SYN_SENT) {
		began(address);
		return 0;
	}
	if (before != TCP_SYN_SENT)
		return 0;
	attempt = bpf_map_lookup_elem(&attempts, &address);
	if (!attempt)
		return 0;
	found = event(attempt->cgroup);
	if (found) {
		found->process = attempt->process;
		found->parent = attempt->parent;
		__builtin_memcpy(found->name, attempt->name, sizeof(found->name));
		if (after == TCP_ESTABLISHED)
			found->result = found->at_ns - attempt->at_ns;
		else
			found->result = sk->sk_err ? -(s64)sk->sk_err : -ECONNABORTED;
		whom = (struct whom *)found->path;
		__builtin_memset(whom, 0, sizeof(*whom));
		whom->family = common->skc_family;
		whom->port = common->skc_dport;
		if (common->skc_family == AF_INET6)
			bpf_core_read(whom->address, sizeof(whom->address), &common->skc_v6_daddr);
		else
			*(u32 *)whom->address = common->skc_daddr;
		bpf_ringbuf_submit(found, 0);
	}
	bpf_map_delete_elem(&attempts, &address);
	return 0;
}
