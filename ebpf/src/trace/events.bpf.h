/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Single events, one after the other. */
#pragma once

#include "trace.bpf.h"

#define PATH_MAX_KEPT 256

/* src/trace/events.rs reads it. */
struct event {
	u64 at_ns;
	u64 cgroup;
	u32 process;
	u32 parent;
	s64 result;
	char name[16];
	char path[PATH_MAX_KEPT];
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} lost SEC(".maps");

/* Room for an event about whoever is running; NULL, and counted, if there is none. */
static __always_inline struct event *event(u64 cgroup)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	struct task_struct *task = bpf_get_current_task_btf();
	u32 only = 0;
	u64 *count;

	if (!event) {
		count = bpf_map_lookup_elem(&lost, &only);
		if (count)
			__sync_fetch_and_add(count, 1);
		return NULL;
	}
	event->at_ns = bpf_ktime_get_ns();
	event->cgroup = cgroup;
	event->process = task->tgid;
	event->parent = task->real_parent->tgid;
	event->result = 0;
	event->path[0] = 0;
	bpf_get_current_comm(event->name, sizeof(event->name));
	return event;
}
