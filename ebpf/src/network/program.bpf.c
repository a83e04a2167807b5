// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/* What every cgroup's sockets send and receive, counted at the root of the hierarchy, from the IP header on. */
#include "weft.bpf.h"

struct traffic {
	u64 received_bytes;
	u64 received_packets;
	u64 sent_bytes;
	u64 sent_packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct traffic);
} cgroups SEC(".maps");

static const struct traffic zero;
static const u64 other = OTHER;

static __always_inline struct traffic *row_of(struct __sk_buff *skb)
{
	u64 cgroup = bpf_skb_cgroup_id(skb);

	return row(&cgroups, &cgroup, &other, &zero);
}

/* Large packets are cut by the network card, and joined by it: those on the wire count. */
static __always_inline u64 packets(struct __sk_buff *skb)
{
	return skb->gso_segs ?: 1;
}

/* Always 1: let it pass. Packets are sent by processes that softirq, receiving, may interrupt: atomic. */
SEC("cgroup_skb/ingress")
int received(struct __sk_buff *skb)
{
	struct traffic *traffic = row_of(skb);

	if (traffic) {
		__sync_fetch_and_add(&traffic->received_bytes, skb->len);
		__sync_fetch_and_add(&traffic->received_packets, packets(skb));
	}
	return 1;
}

SEC("cgroup_skb/egress")
int sent(struct __sk_buff *skb)
{
	struct traffic *traffic = row_of(skb);

	if (traffic) {
		__sync_fetch_and_add(&traffic->sent_bytes, skb->len);
		__sync_fetch_and_add(&traffic->sent_packets, packets(skb));
	}
	return 1;
}
