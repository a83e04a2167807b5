//! Recorded machines, as in `topology/fixtures`; lists of samples as they are to be.

use super::*;
use crate::topology::recorded;

/// Samples as lines: `name{label="value"} 1`.
#[derive(Default)]
struct Lines(Vec<String>);

impl Sink for Lines {
    fn sample(&mut self, metric: Metric<'_>, labels: &[(&str, &str)], value: f64) {
        assert!(metric.help.ends_with(['.', ')']), "{}: {}", metric.name, metric.help);
        let suffix = match metric.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            _ => "",
        };
        assert!(metric.name.ends_with(suffix), "{}", metric.name);
        let pairs: Vec<String> =
            labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        let pairs =
            if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        self.0.push(format!("{}{pairs} {value}", metric.name));
    }
}

impl Lines {
    fn of(sysfs: &Sysfs, depth: Depth) -> Self {
        let mut lines = Lines::default();
        quick(sysfs, depth, 1_000.5, &mut lines);
        lines
    }

    /// Everything, each series once.
    fn all(sysfs: &Sysfs) -> Self {
        let mut lines = Lines::default();
        for depth in [Depth::Second, Depth::Quarter, Depth::Minute] {
            quick(sysfs, depth, 1_000.5, &mut lines);
        }
        Asked::new(sysfs.clone()).ask(BootTime::now(), &mut lines);
        let series = lines.0.iter().map(|line| line.rsplit_once(' ').unwrap().0);
        let unique: std::collections::BTreeSet<_> = series.clone().collect();
        assert_eq!(unique.len(), series.count(), "no series has two depths");
        lines
    }

    fn beginning(&self, start: &str) -> Vec<&str> {
        self.0.iter().map(String::as_str).filter(|line| line.starts_with(start)).collect()
    }

    #[track_caller]
    fn have(&self, wanted: &[&str]) {
        for line in wanted {
            let name = line.split(['{', ' ']).next().unwrap();
            assert!(
                self.0.iter().any(|have| have == line),
                "{line}\nis not in\n{}",
                self.beginning(name).join("\n")
            );
        }
    }
}

fn server() -> (tempfile::TempDir, Sysfs) {
    recorded(include_str!("fixtures/server.txt"))
}

#[test]
fn processors_are_counted_by_mode_and_the_rest_of_stat_by_name() {
    let (_folder, sysfs) = server();
    let lines = Lines::all(&sysfs);
    lines.have(&[
        "node_cpu_seconds_total{cpu=\"0\",mode=\"user\"} 573.01",
        "node_cpu_seconds_total{cpu=\"1\",mode=\"steal\"} 0.71",
        "node_cpu_guest_seconds_total{cpu=\"1\",mode=\"user\"} 3",
        "node_cpu_guest_seconds_total{cpu=\"0\",mode=\"nice\"} 0",
        "node_context_switches_total 1198911",
        "node_forks_total 37540",
        "node_intr_total 1148152",
        "node_boot_time_seconds 1795685307",
        "node_procs_running 3",
        "node_procs_blocked 1",
        "node_load1 1.46",
        "node_load5 1.15",
        "node_load15 0.82",
        "node_pressure_cpu_waiting_seconds_total 148.731929",
        "node_pressure_io_waiting_seconds_total 8.86374",
        "node_pressure_io_stalled_seconds_total 6.397573",
        "node_cpu_scaling_frequency_hertz{cpu=\"0\"} 1800000000",
        "node_cpu_frequency_max_hertz{cpu=\"0\"} 4200000000",
    ]);
    assert_eq!(lines.beginning("node_cpu_seconds_total").len(), 2 * 8, "no sum over CPUs");
    assert_eq!(
        lines.beginning("node_pressure_memory"),
        Vec::<&str>::new(),
        "there is no such file there: a file that is missing is not zero"
    );
    assert_eq!(
        lines.beginning("node_cpu_core_throttles"),
        ["node_cpu_core_throttles_total{core=\"0\",package=\"0\"} 7"],
        "threads of a core tell it once"
    );
    lines.have(&["node_cpu_package_throttles_total{package=\"0\"} 9"]);
}

#[test]
fn memory_has_the_kernels_names() {
    let (_folder, sysfs) = server();
    let lines = Lines::all(&sysfs);
    lines.have(&[
        "node_memory_MemTotal_bytes 25276510208",
        "node_memory_Active_anon_bytes 1048576",
        "node_memory_HugePages_Total 4",
        "node_memory_SomethingNew_bytes 1024",
        "node_vmstat_oom_kill 2",
        "node_vmstat_pgmajfault 812",
        "node_vmstat_pgpgin 3959513",
        "node_vmstat_pswpout 0",
    ]);
    assert!(lines.beginning("node_vmstat_nr_free_pages").is_empty());
    let second = Lines::of(&sysfs, Depth::Second);
    second.have(&["node_memory_MemTotal_bytes 25276510208", "node_vmstat_oom_kill 2"]);
    assert!(second.beginning("node_memory_HugePages").is_empty());
}

#[test]
fn disks_have_bytes_and_seconds() {
    let (_folder, sysfs) = server();
    let lines = Lines::all(&sysfs);
    lines.have(&[
        "node_disk_reads_completed_total{device=\"nvme0n1\"} 45589",
        "node_disk_read_bytes_total{device=\"nvme0n1\"} 4054541312",
        "node_disk_read_time_seconds_total{device=\"nvme0n1\"} 31.842000000000002",
        "node_disk_written_bytes_total{device=\"nvme0n1\"} 13373603840",
        "node_disk_io_now{device=\"nvme0n1\"} 2",
        "node_disk_io_time_seconds_total{device=\"nvme0n1\"} 16.016000000000002",
        "node_disk_discarded_sectors_total{device=\"nvme0n1\"} 4205048",
        "node_disk_flush_requests_total{device=\"nvme0n1\"} 8980",
        "node_disk_flush_requests_time_seconds_total{device=\"nvme0n1\"} 0.178",
        "node_disk_info{device=\"nvme0n1\",major=\"259\",minor=\"0\",path=\"pci-0000:01:00.0-nvme-1\",wwn=\"eui.0025\",model=\"Fast 1TB\",serial=\"S1\",revision=\"\"} 1",
        // An older kernel's line is shorter.
        "node_disk_io_time_weighted_seconds_total{device=\"sda\"} 0.5",
    ]);
    assert!(lines.beginning("node_disk_flush_requests_total{device=\"sda\"").is_empty());
    assert!(lines.beginning("node_disk_reads_completed_total{device=\"nvme0n1p1\"").is_empty());
    assert!(lines.beginning("node_disk_reads_completed_total{device=\"loop0\"").is_empty());
    let second = Lines::of(&sysfs, Depth::Second);
    second.have(&["node_disk_read_bytes_total{device=\"nvme0n1\"} 4054541312"]);
    assert!(second.beginning("node_disk_info").is_empty());
}

#[test]
fn file_systems_are_measured_where_they_are_mounted() {
    let (folder, sysfs) = server();
    let stat = statvfs_of(folder.path());
    let lines = Lines::all(&sysfs);
    let labels = "{device=\"/dev/nvme0n1p2\",fstype=\"ext4\",mountpoint=\"/\"}";
    lines.have(&[
        &format!("node_filesystem_size_bytes{labels} {stat}"),
        &format!("node_filesystem_readonly{labels} 0"),
        &format!("node_filesystem_device_error{labels} 0"),
        "node_filesystem_readonly{device=\"/dev/sda1\",fstype=\"vfat\",mountpoint=\"/srv/a b\"} 1",
        "node_filesystem_device_error{device=\"/dev/sdb1\",fstype=\"xfs\",mountpoint=\"/gone\"} 1",
    ]);
    assert_eq!(
        lines.beginning("node_filesystem_size_bytes").len(),
        2,
        "neither tmpfs in /dev nor nfs, each once"
    );
}

fn statvfs_of(path: &std::path::Path) -> f64 {
    let stat = nix::sys::statvfs::statvfs(path).unwrap();
    stat.blocks() as f64 * stat.fragment_size() as f64
}

#[test]
fn interfaces_have_counters_and_properties() {
    let (_folder, sysfs) = server();
    let lines = Lines::all(&sysfs);
    lines.have(&[
        "node_network_receive_bytes_total{device=\"eth0\"} 276723788",
        "node_network_receive_multicast_total{device=\"eth0\"} 8",
        "node_network_transmit_bytes_total{device=\"eth0\"} 546274",
        "node_network_transmit_compressed_total{device=\"eth0\"} 16",
        "node_network_receive_nohandler_total{device=\"eth0\"} 5",
        "node_network_speed_bytes{device=\"eth0\"} 125000000",
        "node_network_flags{device=\"eth0\"} 4099",
        "node_network_up{device=\"eth0\"} 1",
        "node_network_mtu_bytes{device=\"eth0\"} 1400",
        "node_network_carrier_changes_total{device=\"eth0\"} 2",
        "node_network_info{address=\"02:fc:00:00:00:01\",broadcast=\"ff:ff:ff:ff:ff:ff\",device=\"eth0\",duplex=\"full\",ifalias=\"\",operstate=\"up\"} 1",
        "node_netstat_Tcp_RetransSegs 17",
        "node_netstat_TcpExt_ListenDrops 3",
        "node_netstat_IpExt_OutOctets 20",
        "node_netstat_Ip6_InOctets 33",
        "node_netstat_Tcp_CurrEstab 4",
        "node_sockstat_TCP_inuse 1",
        "node_sockstat_sockets_used 17",
        "node_sockstat_FRAG6_memory 0",
        "node_softnet_processed_total{cpu=\"0\"} 4660",
        "node_softnet_times_squeezed_total{cpu=\"3\"} 2",
        "node_nf_conntrack_entries 12",
        "node_nf_conntrack_entries_limit 262144",
    ]);
    lines.have(&[&format!("node_sockstat_TCP_mem_bytes {}", 127.0 * 4096.0)]);
    assert!(lines.beginning("node_netstat_Tcp_MaxConn").is_empty());
    assert!(lines.beginning("node_network_receive_bytes_total{device=\"lo\"").is_empty());
    let second = Lines::of(&sysfs, Depth::Second);
    assert_eq!(
        second.beginning("node_network_receive_bytes_total"),
        ["node_network_receive_bytes_total{device=\"eth0\"} 276723788"],
        "ifb0 never carried anything"
    );
}

#[test]
fn sensors_have_node_exporters_chips_and_units() {
    let (_folder, sysfs) = server();
    let lines = Lines::all(&sysfs);
    let chip = "chip=\"platform_coretemp_0\"";
    lines.have(&[
        &format!("node_hwmon_chip_names{{{chip},chip_name=\"coretemp\"}} 1"),
        &format!("node_hwmon_sensor_label{{{chip},label=\"package_id_0\",sensor=\"temp1\"}} 1"),
        &format!("node_hwmon_temp_celsius{{{chip},sensor=\"temp1\"}} 43.5"),
        &format!("node_hwmon_temp_crit_celsius{{{chip},sensor=\"temp1\"}} 100"),
        &format!("node_hwmon_temp_crit_alarm_celsius{{{chip},sensor=\"temp1\"}} 0"),
        "node_hwmon_fan_rpm{chip=\"board\",sensor=\"fan1\"} 1200",
        "node_hwmon_fan_alarm{chip=\"board\",sensor=\"fan1\"} 1",
        "node_hwmon_in_volts{chip=\"board\",sensor=\"in0\"} 1.2",
        "node_hwmon_curr_amps{chip=\"board\",sensor=\"curr1\"} 2.5",
        "node_hwmon_power_average_watt{chip=\"board\",sensor=\"power1\"} 65",
        "node_hwmon_energy_joule_total{chip=\"board\",sensor=\"energy1\"} 3",
        "node_hwmon_pwm{chip=\"board\",sensor=\"pwm1\"} 128",
        "node_hwmon_pwm_enable{chip=\"board\",sensor=\"pwm1\"} 2",
        "node_hwmon_update_interval_seconds{chip=\"board\",sensor=\"update_interval\"} 2",
        "node_hwmon_beep_enabled{chip=\"board\",sensor=\"beep_enable\"} 1",
        "node_thermal_zone_temp{type=\"x86_pkg_temp\",zone=\"0\"} 44",
        "node_cooling_device_cur_state{name=\"1\",type=\"Processor\"} 2",
        "node_cooling_device_max_state{name=\"1\",type=\"Processor\"} 10",
        "node_edac_correctable_errors_total{controller=\"0\"} 3",
        "node_edac_uncorrectable_errors_total{controller=\"0\"} 0",
        "node_edac_csrow_correctable_errors_total{controller=\"0\",csrow=\"unknown\"} 1",
        "node_edac_csrow_correctable_errors_total{controller=\"0\",csrow=\"1\"} 2",
        "node_rapl_package_joules_total{index=\"0\",path=\"/sys/class/powercap/intel-rapl:0\"} 12.5",
        "node_rapl_core_joules_total{index=\"0\",path=\"/sys/class/powercap/intel-rapl:0:0\"} 1",
        "node_rapl_core_joules_total{index=\"1\",path=\"/sys/class/powercap/intel-rapl:1:0\"} 2",
    ]);
    assert!(
        lines.beginning("node_hwmon_temp_celsius{chip=\"board\"").is_empty(),
        "the sensor gives no number"
    );
}

#[test]
fn the_system_tells_its_name_its_clocks_and_its_files() {
    let (_folder, sysfs) = server();
    let lines = Lines::all(&sysfs);
    lines.have(&[
        "node_filefd_allocated 355",
        "node_filefd_maximum 2466177",
        "node_entropy_available_bits 256",
        "node_time_seconds 1000.5",
        "node_time_clocksource_current_info{clocksource=\"tsc\",device=\"0\"} 1",
        "node_time_clocksource_available_info{clocksource=\"hpet\",device=\"0\"} 1",
        "node_uname_info{domainname=\"(none)\",machine=\"x86_64\",nodename=\"vm\",release=\"6.1.0\",sysname=\"Linux\",version=\"#1 SMP\"} 1",
        "node_nvme_info{device=\"nvme0\",firmware_revision=\"7.0\",model=\"Fast 1TB\",serial=\"S1\",state=\"live\"} 1",
    ]);
}

#[test]
fn a_machine_with_nothing_tells_nothing_but_the_time() {
    let machine = tempfile::tempdir().unwrap();
    let sysfs = Sysfs::at(machine.path());
    let lines = Lines::all(&sysfs);
    assert!(
        lines.0.iter().all(
            |line| line.starts_with("node_time_seconds") || line.starts_with("node_uname_info")
        )
    );
}

#[test]
fn torn_and_foreign_files_are_no_samples() {
    let machine = tempfile::tempdir().unwrap();
    let noise: Vec<u8> = (0..=255).cycle().take(4096).collect();
    for path in [
        "proc/stat",
        "proc/meminfo",
        "proc/vmstat",
        "proc/diskstats",
        "proc/loadavg",
        "proc/1/mounts",
        "proc/self/net/dev",
        "proc/self/net/snmp",
        "proc/self/net/netstat",
        "proc/self/net/snmp6",
        "proc/self/net/sockstat",
        "proc/self/net/softnet_stat",
        "proc/pressure/cpu",
        "proc/sys/fs/file-nr",
        "sys/class/hwmon/hwmon0/temp1_input",
        "sys/class/thermal/thermal_zone0/type",
        "sys/class/net/eth0/ifindex",
        "sys/class/powercap/zone/name",
    ] {
        let path = machine.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &noise).unwrap();
    }
    let sysfs = Sysfs::at(machine.path());
    let lines = Lines::all(&sysfs);
    let left: Vec<_> = lines.0.iter().filter(|line| !line.contains("_info")).collect();
    assert!(left.len() <= 4, "{left:?}");
}

#[test]
fn this_machine_tells_what_every_linux_does_and_the_store_takes_few_of_it() {
    let sysfs = Sysfs::default();
    let everything = Lines::all(&sysfs);
    for name in [
        "node_cpu_seconds_total",
        "node_memory_MemAvailable_bytes",
        "node_load1",
        "node_uname_info",
    ] {
        assert!(!everything.beginning(name).is_empty(), "{name}");
    }
    let second = Lines::of(&sysfs, Depth::Second);
    let cpus = second.beginning("node_cpu_seconds_total").len();
    let devices = second.0.iter().filter(|line| line.contains("device=")).count();
    assert!(second.0.len() - cpus - devices <= 40, "{}", second.0.join("\n"));
}
