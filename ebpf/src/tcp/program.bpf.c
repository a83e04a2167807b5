// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * How long connections take to be made, what is sent again to whom, and the round-trip time of every
 * connection there is at the moment of reading.
 */
#include "weft.bpf.h"

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define TCP_ESTABLISHED 1
#define TCP_SYN_SENT 2
#define TCP_CLOSE 7
#define TCP_LISTEN 10

struct connecting {
	u64 connected;
	u64 failed;
};

/* IPv4 in the first four bytes, the rest zero. */
struct peer {
	u64 cgroup;
	u64 family;
	u8 address[16];
};

struct repeats {
	u64 segments;
};

/* One connection, as iter/tcp reports it. */
struct connection {
	struct peer peer;
	u64 round_trip_us;
	u64 variation_us;
	u64 retransmitted;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct connecting);
} cgroups SEC(".maps");

/* From the first SYN until the connection was there. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1024);
	__type(key, u64);
	__type(value, struct histogram);
} histograms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 1024);
	__type(key, struct peer);
	__type(value, struct repeats);
} peers SEC(".maps");

/* When the socket at this address sent its first SYN. The oldest give way. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 8192);
	__type(key, u64);
	__type(value, u64);
} pending SEC(".maps");

static const struct connecting connecting_zero;
static struct histogram empty;
static const struct repeats repeats_zero;
static const u64 other = OTHER;
static const struct peer other_peer;

static __always_inline void name_peer(struct peer *peer, struct sock_common *common)
{
	peer->family = common->skc_family;
	if (common->skc_family == AF_INET6)
		bpf_core_read(peer->address, sizeof(peer->address), &common->skc_v6_daddr);
	else
		*(u32 *)peer->address = common->skc_daddr;
}

static __always_inline u64 cgroup_of_socket(struct sock *sk)
{
	struct cgroup *cgroup = BPF_CORE_READ(sk, sk_cgrp_data.cgroup);

	return cgroup ? BPF_CORE_READ(cgroup, kn, id) : OTHER;
}

SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(inet_sock_set_state, struct sock *sk, int before, int after)
{
	u64 address = (u64)sk;
	struct connecting *found;
	u64 now, *at, cgroup;

	if (sk->sk_protocol != IPPROTO_TCP)
		return 0;
	if (after == TCP_SYN_SENT) {
		now = bpf_ktime_get_ns();
		bpf_map_update_elem(&pending, &address, &now, BPF_ANY);
		return 0;
	}
	if (before != TCP_SYN_SENT)
		return 0;
	at = bpf_map_lookup_elem(&pending, &address);
	if (!at)
		return 0;
	cgroup = cgroup_of_socket(sk);
	found = row_and_key(&cgroups, &cgroup, &other, &connecting_zero);
	if (found && after == TCP_ESTABLISHED) {
		found->connected++;
		count(&histograms, &cgroup, &other, &empty, bpf_ktime_get_ns() - *at);
	} else if (found) {
		found->failed++;
	}
	bpf_map_delete_elem(&pending, &address);
	return 0;
}

static __always_inline void repeated(struct peer *peer, u64 segments)
{
	struct repeats *found = row(&peers, peer, &other_peer, &repeats_zero);

	/* This also runs in softirq, which may interrupt itself running for a process on the same CPU. */
	if (found)
		__sync_fetch_and_add(&found->segments, segments);
}

/* One packet that is queued may be sent as several segments, which TCP counts one by one. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit_skb, struct sock *sk, struct sk_buff *skb)
{
	struct tcp_skb_cb *cb = (void *)&skb->cb;
	struct peer peer = {};

	peer.cgroup = cgroup_of_socket(sk);
	name_peer(&peer, &sk->__sk_common);
	repeated(&peer, BPF_CORE_READ(cb, tcp_gso_segs));
	return 0;
}

/* As above, since Linux 6.16 also told about what TCP did not try to send (negative). What was lost below TCP on
 * its way out (positive) TCP counts too. */
SEC("tp_btf/tcp_retransmit_skb")
int BPF_PROG(tcp_retransmit_skb_error, struct sock *sk, struct sk_buff *skb, int error)
{
	struct tcp_skb_cb *cb = (void *)&skb->cb;
	struct peer peer = {};

	if (error < 0)
		return 0;
	peer.cgroup = cgroup_of_socket(sk);
	name_peer(&peer, &sk->__sk_common);
	repeated(&peer, BPF_CORE_READ(cb, tcp_gso_segs));
	return 0;
}

SEC("tp_btf/tcp_retransmit_synack")
int BPF_PROG(tcp_retransmit_synack, struct sock *sk, struct request_sock *req)
{
	struct peer peer = {};

	peer.cgroup = cgroup_of_socket(sk);
	name_peer(&peer, &req->__req_common);
	repeated(&peer, 1);
	return 0;
}

SEC("iter/tcp")
int connections(struct bpf_iter__tcp *ctx)
{
	struct sock_common *common = ctx->sk_common;
	struct connection connection = {};
	struct tcp_sock *tcp;

	if (!common || common->skc_state == TCP_LISTEN || common->skc_state == TCP_CLOSE)
		return 0;
	tcp = bpf_skc_to_tcp_sock(common);
	if (!tcp)
		return 0;
	connection.peer.cgroup = cgroup_of_socket((struct sock *)tcp);
	name_peer(&connection.peer, common);
	/* Both are kept with a fraction: in eighths and quarters of a microsecond (tcp_get_info). */
	connection.round_trip_us = tcp->srtt_us >> 3;
	connection.variation_us = tcp->mdev_us >> 2;
	connection.retransmitted = tcp->total_retrans;
	bpf_seq_write(ctx->meta->seq, &connection, sizeof(connection));
	return 0;
}
