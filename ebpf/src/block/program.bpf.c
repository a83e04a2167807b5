// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * From the moment that a request is made until the device has answered it. Kernels since 6.5 say when a request
 * is made (block_io_start); before that it is when it is put into a scheduler's queue, or given to the device
 * where there is none.
 */
#include "weft.bpf.h"

#define REQ_OP_MASK 0xff
#define REQ_OP_READ 0
#define REQ_OP_WRITE 1
#define PF_KTHREAD 0x00200000

/* src/block/metrics.rs knows them by number. */
enum { READ, WRITE, ANYTHING_ELSE };

struct key {
	u64 cgroup;
	u64 operation;
};

struct traffic {
	u64 bytes;
	u64 requests;
};

struct started {
	u64 at;
	struct key key;
};

/* By the request's address. A request that ends unseen is replaced when its place is used again. Not allocated as they
 * come: a request that there is no memory for would not be counted at all. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, u64);
	__type(value, struct started);
} requests SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct key);
	__type(value, struct traffic);
} cgroups SEC(".maps");

/* From the making of a request until its answer. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, struct key);
	__type(value, struct histogram);
} histograms SEC(".maps");

static const struct traffic zero;
static struct histogram empty;

/*
 * Who asked. What a thread of the kernel writes back for others is charged to the cgroup that the pages belong
 * to, if the io controller is in the same hierarchy as units are (0 is the number of cgroup v2's).
 */
static __always_inline u64 asker(struct request *rq)
{
	struct task_struct *task = bpf_get_current_task_btf();
	if ((task->flags & PF_KTHREAD) && bpf_core_field_exists(struct bio, bi_blkg)) {
		struct cgroup *cgroup = BPF_CORE_READ(rq, bio, bi_blkg, blkcg, css.cgroup);

		if (cgroup && BPF_CORE_READ(cgroup, root, hierarchy_id) == 0)
			return BPF_CORE_READ(cgroup, kn, id);
	}
	return cgroup_of(task);
}

static __always_inline int start(struct request *rq, u64 flags)
{
	u64 address = (u64)rq;
	struct started started = { .at = bpf_ktime_get_ns() };
	u32 operation = rq->cmd_flags & REQ_OP_MASK;

	started.key.cgroup = asker(rq);
	started.key.operation = operation == REQ_OP_READ ? READ
			      : operation == REQ_OP_WRITE ? WRITE
			      : ANYTHING_ELSE;
	bpf_map_update_elem(&requests, &address, &started, flags);
	return 0;
}

SEC("tp_btf/block_io_start")
int BPF_PROG(block_io_start, struct request *rq)
{
	return start(rq, BPF_ANY);
}

/* Before 6.5: the first of these two. */
SEC("tp_btf/block_rq_insert")
int BPF_PROG(block_rq_insert, struct request *rq)
{
	return start(rq, BPF_ANY);
}

SEC("tp_btf/block_rq_issue")
int BPF_PROG(block_rq_issue, struct request *rq)
{
	return start(rq, BPF_NOEXIST);
}

SEC("tp_btf/block_rq_complete")
int BPF_PROG(block_rq_complete, struct request *rq, blk_status_t error, unsigned int bytes)
{
	u64 address = (u64)rq;
	struct started *started = bpf_map_lookup_elem(&requests, &address);
	struct key key, other = {};
	struct traffic *traffic;
	u64 at;

	if (!started)
		return 0;
	key = started->key;
	at = started->at;
	other.operation = key.operation;
	traffic = row_and_key(&cgroups, &key, &other, &zero);
	if (traffic)
		traffic->bytes += bytes;
	/* A request may be answered in parts. */
	if (bytes < rq->__data_len)
		return 0;
	if (traffic) {
		traffic->requests++;
		count(&histograms, &key, &other, &empty, bpf_ktime_get_ns() - at);
	}
	bpf_map_delete_elem(&requests, &address);
	return 0;
}
