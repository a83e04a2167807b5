// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Processes that the kernel killed for memory, by the cgroup of the victim. Since 6.8 the kernel names the
 * victim when it is chosen; before, it is seen by its mark when its first thread exits.
 */
#include "weft.bpf.h"

struct kills {
	u64 kills;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct kills);
} cgroups SEC(".maps");

/*
 * The folders of a victim's cgroup, the innermost first: it may be gone before anybody looks for its name. One that
 * is nested deeper than that belongs to something that ends above it.
 */
#define LEVELS 8
#define NAME_BYTES 120

struct level {
	u64 id;
	char name[NAME_BYTES];
};

struct folders {
	struct level levels[LEVELS];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u64);
	__type(value, struct folders);
} names SEC(".maps");

/* Not constant: those take room in the file. */
static struct folders nameless;

static const struct kills zero;
static const u64 other = OTHER;

static __always_inline void name(struct task_struct *victim, u64 id)
{
	struct cgroup *cgroup = victim->cgroups->dfl_cgrp;
	struct folders *folders;

	bpf_map_update_elem(&names, &id, &nameless, BPF_NOEXIST);
	folders = bpf_map_lookup_elem(&names, &id);
	if (!folders)
		return;
	for (int at = 0; at < LEVELS; at++) {
		struct level *level = &folders->levels[at];
		struct cgroup_subsys_state *above = cgroup->self.parent;

		level->id = cgroup->kn->id;
		bpf_probe_read_kernel_str(level->name, sizeof(level->name), cgroup->kn->name);
		if (!above)
			return;
		cgroup = above->cgroup;
	}
}

static __always_inline int killed(struct task_struct *victim)
{
	u64 cgroup = cgroup_of(victim);
	struct kills *found = row(&cgroups, &cgroup, &other, &zero);

	if (found)
		found->kills++;
	name(victim, cgroup);
	return 0;
}

SEC("tp_btf/mark_victim")
int BPF_PROG(mark_victim, struct task_struct *victim)
{
	return killed(victim);
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *task)
{
	if (task->pid != task->tgid || !task->signal->oom_mm)
		return 0;
	return killed(task);
}
