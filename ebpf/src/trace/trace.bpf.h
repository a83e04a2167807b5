/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* What programs that run on demand share: whom they look at, and until when. */
#pragma once

#include "weft.bpf.h"

struct settings {
	/* By the clock of bpf_ktime_get_ns. Past it a program does nothing, whoever forgot to take it out. */
	u64 until_ns;
	/* Not only the cgroups in `targets`. */
	u64 everybody;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, u64);
	__type(value, u64);
} targets SEC(".maps");

static __always_inline bool wanted(u64 cgroup)
{
	u32 only = 0;
	struct settings *found = bpf_map_lookup_elem(&settings, &only);

	if (!found || bpf_ktime_get_ns() > found->until_ns)
		return false;
	return found->everybody || bpf_map_lookup_elem(&targets, &cgroup);
}
