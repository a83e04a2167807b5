//! Interfaces, and what the network stack counts: of the agent's own network namespace.

use std::fmt::Write;

use super::{DEVICES_MAX, Depth, Sink, number};
use crate::observe::sink::Metric;
use crate::topology::Sysfs;

/// Columns of `/proc/net/dev`: metric, and whether it is read each second.
const COLUMNS: [(Metric, bool); 16] = [
    (
        statistic("node_network_receive_bytes_total", "Network device statistic receive_bytes."),
        true,
    ),
    (
        statistic(
            "node_network_receive_packets_total",
            "Network device statistic receive_packets.",
        ),
        true,
    ),
    (statistic("node_network_receive_errs_total", "Network device statistic receive_errs."), true),
    (statistic("node_network_receive_drop_total", "Network device statistic receive_drop."), true),
    (statistic("node_network_receive_fifo_total", "Network device statistic receive_fifo."), false),
    (
        statistic("node_network_receive_frame_total", "Network device statistic receive_frame."),
        false,
    ),
    (
        statistic(
            "node_network_receive_compressed_total",
            "Network device statistic receive_compressed.",
        ),
        false,
    ),
    (
        statistic(
            "node_network_receive_multicast_total",
            "Network device statistic receive_multicast.",
        ),
        false,
    ),
    (
        statistic("node_network_transmit_bytes_total", "Network device statistic transmit_bytes."),
        true,
    ),
    (
        statistic(
            "node_network_transmit_packets_total",
            "Network device statistic transmit_packets.",
        ),
        true,
    ),
    (
        statistic("node_network_transmit_errs_total", "Network device statistic transmit_errs."),
        true,
    ),
    (
        statistic("node_network_transmit_drop_total", "Network device statistic transmit_drop."),
        true,
    ),
    (
        statistic("node_network_transmit_fifo_total", "Network device statistic transmit_fifo."),
        false,
    ),
    (
        statistic("node_network_transmit_colls_total", "Network device statistic transmit_colls."),
        false,
    ),
    (
        statistic(
            "node_network_transmit_carrier_total",
            "Network device statistic transmit_carrier.",
        ),
        false,
    ),
    (
        statistic(
            "node_network_transmit_compressed_total",
            "Network device statistic transmit_compressed.",
        ),
        false,
    ),
];

const fn statistic(name: &'static str, help: &'static str) -> Metric<'static> {
    Metric::counter(name, help)
}

/// File of an interface's folder in `/sys/class/net`, factor, metric.
const PROPERTIES: [(&str, f64, Metric); 18] = [
    (
        "addr_assign_type",
        1.0,
        property(
            "node_network_address_assign_type",
            "Network device property: address_assign_type.",
        ),
    ),
    ("carrier", 1.0, property("node_network_carrier", "Network device property: carrier.")),
    (
        "carrier_changes",
        1.0,
        statistic(
            "node_network_carrier_changes_total",
            "Network device property: carrier_changes_total.",
        ),
    ),
    (
        "carrier_up_count",
        1.0,
        statistic(
            "node_network_carrier_up_changes_total",
            "Network device property: carrier_up_changes_total.",
        ),
    ),
    (
        "carrier_down_count",
        1.0,
        statistic(
            "node_network_carrier_down_changes_total",
            "Network device property: carrier_down_changes_total.",
        ),
    ),
    ("dev_id", 1.0, property("node_network_device_id", "Network device property: device_id.")),
    ("dormant", 1.0, property("node_network_dormant", "Network device property: dormant.")),
    ("flags", 1.0, property("node_network_flags", "Network device property: flags.")),
    ("ifindex", 1.0, property("node_network_iface_id", "Network device property: iface_id.")),
    ("iflink", 1.0, property("node_network_iface_link", "Network device property: iface_link.")),
    (
        "link_mode",
        1.0,
        property("node_network_iface_link_mode", "Network device property: iface_link_mode."),
    ),
    ("mtu", 1.0, property("node_network_mtu_bytes", "Network device property: mtu_bytes.")),
    (
        "name_assign_type",
        1.0,
        property("node_network_name_assign_type", "Network device property: name_assign_type."),
    ),
    (
        "netdev_group",
        1.0,
        property("node_network_net_dev_group", "Network device property: net_dev_group."),
    ),
    // Megabits.
    (
        "speed",
        1e6 / 8.0,
        property("node_network_speed_bytes", "Network device property: speed_bytes."),
    ),
    (
        "tx_queue_len",
        1.0,
        property(
            "node_network_transmit_queue_length",
            "Network device property: transmit_queue_length.",
        ),
    ),
    (
        "type",
        1.0,
        property("node_network_protocol_type", "Network device property: protocol_type."),
    ),
    (
        "statistics/rx_nohandler",
        1.0,
        statistic(
            "node_network_receive_nohandler_total",
            "Network device statistic receive_nohandler.",
        ),
    ),
];

const fn property(name: &'static str, help: &'static str) -> Metric<'static> {
    Metric::gauge(name, help)
}

const UP: Metric =
    Metric::gauge("node_network_up", "Value is 1 if operstate is 'up', 0 otherwise.");
const INFO: Metric = Metric::info(
    "node_network_info",
    "Non-numeric data from /sys/class/net/<iface>, value is always 1.",
);

const CONNTRACK: [(&str, Metric); 2] = [
    (
        "count",
        Metric::gauge(
            "node_nf_conntrack_entries",
            "Number of currently allocated flow entries for connection tracking.",
        ),
    ),
    (
        "max",
        Metric::gauge(
            "node_nf_conntrack_entries_limit",
            "Maximum size of connection tracking table.",
        ),
    ),
];

/// Columns of `/proc/net/softnet_stat`, and the column that tells the CPU on newer kernels.
const SOFTNET: [Metric; 3] = [
    Metric::counter("node_softnet_processed_total", "Number of processed packets."),
    Metric::counter("node_softnet_dropped_total", "Number of dropped packets."),
    Metric::counter(
        "node_softnet_times_squeezed_total",
        "Number of times processing packets ran out of quota.",
    ),
];
const SOFTNET_CPU_COLUMN: usize = 12;

pub(super) fn collect(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    if depth != Depth::Quarter {
        interfaces(sysfs, depth, sink);
    }
    if depth != Depth::Second {
        stack(sysfs, depth, sink);
    }
    if depth == Depth::Quarter {
        sockets(sysfs, sink);
        for (file, metric) in CONNTRACK {
            if let Some(value) =
                number(sysfs, &format!("proc/sys/net/netfilter/nf_conntrack_{file}"))
            {
                sink.sample(metric, &[], value);
            }
        }
    }
    if depth == Depth::Minute {
        properties(sysfs, sink);
        softnet(sysfs, sink);
    }
}

/// The loopback interface is left out, as node_exporter of Debian does: what it carries went nowhere.
fn interfaces(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    let text = sysfs.text("proc/self/net/dev").unwrap_or_default();
    let interfaces = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    let interfaces = interfaces.map(|(name, columns)| (name.trim(), columns));
    for (name, columns) in interfaces.filter(|(name, _)| *name != "lo").take(DEVICES_MAX) {
        let columns = columns.split_ascii_whitespace().map_while(|word| word.parse::<u64>().ok());
        // One that never carried anything is not worth a series.
        if columns.clone().all(|value| value == 0) {
            continue;
        }
        for ((metric, each_second), value) in COLUMNS.into_iter().zip(columns) {
            if each_second == (depth == Depth::Second) {
                sink.sample(metric, &[("device", name)], value as f64);
            }
        }
    }
}

fn properties(sysfs: &Sysfs, sink: &mut dyn Sink) {
    for name in sysfs.names("sys/class/net").into_iter().take(DEVICES_MAX) {
        let file = |file: &str| sysfs.line(&format!("sys/class/net/{name}/{file}"));
        // bonding_masters is a file beside the interfaces.
        if file("ifindex").is_none() {
            continue;
        }
        let device = ("device", &*name);
        for (path, factor, metric) in PROPERTIES {
            if path.starts_with("statistics") && name == "lo" {
                continue;
            }
            // An interface that is down refuses to say some of them.
            let value = file(path).and_then(|text| match text.strip_prefix("0x") {
                Some(digits) => u32::from_str_radix(digits, 16).ok().map(f64::from),
                None => text.parse::<i64>().ok().map(|value| value as f64),
            });
            if let Some(value) = value {
                sink.sample(metric, &[device], value * factor);
            }
        }
        let text = |path: &str| file(path).unwrap_or_default();
        let (address, broadcast) = (text("address"), text("broadcast"));
        let (duplex, alias, state) = (text("duplex"), text("ifalias"), text("operstate"));
        sink.sample(UP, &[device], f64::from(u8::from(state == "up")));
        let labels = [
            ("address", &*address),
            ("broadcast", &*broadcast),
            device,
            ("duplex", &*duplex),
            ("ifalias", &*alias),
            ("operstate", &*state),
        ];
        sink.sample(INFO, &labels, 1.0);
    }
}

/// `snmp` and `netstat`: a line of names, and a line of values; `snmp6`: a name and a value a line.
fn stack(sysfs: &Sysfs, depth: Depth, sink: &mut dyn Sink) {
    let mut name = String::new();
    let mut help = String::new();
    let mut tell = |protocol: &str, field: &str, value: &str| {
        let wanted = is_of_interest(protocol, field);
        let Some(value) = value.parse::<i64>().ok().filter(|_| wanted) else { return };
        if (depth == Depth::Quarter) != is_trouble(field) {
            return;
        }
        name.clear();
        help.clear();
        // Writing to a String cannot fail.
        let _ = write!(name, "node_netstat_{protocol}_{field}");
        let _ = write!(help, "Statistic {protocol}{field}.");
        sink.sample(Metric::unknown(&name, &help), &[], value as f64);
    };
    for file in ["proc/self/net/snmp", "proc/self/net/netstat"] {
        let text = sysfs.text(file).unwrap_or_default();
        let mut lines = text.lines().filter_map(|line| line.split_once(": "));
        while let (Some((protocol, names)), Some((again, values))) = (lines.next(), lines.next()) {
            if protocol != again {
                break;
            }
            for (field, value) in names.split(' ').zip(values.split(' ')) {
                tell(protocol, field, value);
            }
        }
    }
    let text = sysfs.text("proc/self/net/snmp6").unwrap_or_default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        if let (Some(word), Some(value)) = (words.next(), words.next())
            && let Some(six) = word.find('6')
        {
            tell(&word[..=six], &word[six + 1..], value);
        }
    }
}

/// The fields that node_exporter has unless it is told otherwise.
fn is_of_interest(protocol: &str, field: &str) -> bool {
    if matches!(field, "InErrors" | "InErrs") {
        return true;
    }
    match protocol {
        "Ip" => field == "Forwarding",
        "Ip6" | "IpExt" => matches!(field, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(field, "InMsgs" | "OutMsgs"),
        "Tcp" => matches!(
            field,
            "ActiveOpens"
                | "InSegs"
                | "OutSegs"
                | "OutRsts"
                | "PassiveOpens"
                | "RetransSegs"
                | "CurrEstab"
        ),
        "TcpExt" => {
            matches!(field, "TCPSynRetrans" | "TCPTimeouts")
                || field.starts_with("Listen")
                || field.starts_with("Syncookies")
        }
        "Udp" | "Udp6" => matches!(
            field,
            "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors"
        ),
        _ => false,
    }
}

fn is_trouble(field: &str) -> bool {
    field.ends_with("Errors")
        || field.starts_with("Listen")
        || matches!(
            field,
            "InErrs" | "RetransSegs" | "OutSegs" | "CurrEstab" | "TCPTimeouts" | "OutRsts"
        )
}

/// `TCP: inuse 4 orphan 0 tw 2 alloc 4 mem 139`
fn sockets(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let mut name = String::new();
    let mut help = String::new();
    for file in ["proc/self/net/sockstat", "proc/self/net/sockstat6"] {
        let text = sysfs.text(file).unwrap_or_default();
        for (protocol, rest) in text.lines().filter_map(|line| line.split_once(':')) {
            let mut words = rest.split_ascii_whitespace();
            while let (Some(field), Some(value)) = (words.next(), words.next()) {
                let Ok(value) = value.parse::<i64>() else { continue };
                let mut tell = |unit: &str, value: f64| {
                    name.clear();
                    help.clear();
                    let _ = write!(name, "node_sockstat_{protocol}_{field}{unit}");
                    let _ = match protocol {
                        "sockets" => write!(help, "Number of IPv4 sockets in use."),
                        _ => write!(help, "Number of {protocol} sockets in state {field}{unit}."),
                    };
                    sink.sample(Metric::gauge(&name, &help), &[], value);
                };
                tell("", value as f64);
                // Pages.
                if field == "mem" {
                    tell("_bytes", value as f64 * page_bytes());
                }
            }
        }
    }
}

fn page_bytes() -> f64 {
    let answer = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    answer.ok().flatten().unwrap_or(4096) as f64
}

fn softnet(sysfs: &Sysfs, sink: &mut dyn Sink) {
    let text = sysfs.text("proc/self/net/softnet_stat").unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        let mut columns = line.split(' ').map_while(|word| u64::from_str_radix(word, 16).ok());
        let cpu = columns.clone().nth(SOFTNET_CPU_COLUMN).unwrap_or(index as u64).to_string();
        for metric in SOFTNET {
            let Some(value) = columns.next() else { break };
            sink.sample(metric, &[("cpu", &cpu)], value as f64);
        }
    }
}
