//! What is read off a running setup.

use std::fs;
use std::time::Duration;

use weave_router::host::lab::clock::pause;
use weave_router::host::lab::traffic;

use crate::rig::Rig;

/// One round's figures of one setup.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// TCP, one stream, Gbit/s of payload.
    pub tcp1: f64,
    /// TCP, four streams, Gbit/s of payload.
    pub tcp4: f64,
    /// 64-byte datagrams delivered per second.
    pub datagrams: f64,
    /// TCP ping-pong, median, microseconds.
    pub p50: f64,
    /// TCP ping-pong, 99th percentile, microseconds.
    pub p99: f64,
    /// CPU of all routers per byte of TCP payload, ns.
    pub router_ns: f64,
    /// CPU of the relay alone per byte of TCP payload, ns.
    pub relay_ns: f64,
    /// Busy time of the whole machine per byte of TCP payload, ns.
    pub machine_ns: f64,
}

/// What idle routers cost.
pub struct Idle {
    /// Share of one core, percent.
    pub cpu_percent: f64,
    /// Resident memory, MiB.
    pub rss_mib: f64,
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Takes every figure once.
pub fn sample(rig: &mut Rig, time: Duration, trips: usize) -> Outcome<Sample> {
    let before = Cpu::read(rig)?;
    let one = traffic::tcp_throughput(rig.ends(), time, 1)?;
    let after = Cpu::read(rig)?;
    let per_byte = |ns: f64| ns / one.bytes.max(1) as f64;
    let four = traffic::tcp_throughput(rig.ends(), time, 4)?;
    let rate = traffic::udp_rate(rig.ends(), 64, time / 2)?;
    // The datagrams left queues behind; a ping-pong through them would measure those.
    pause(Duration::from_millis(200));
    let pong = traffic::tcp_ping_pong(rig.ends(), trips)?;
    let micros = |percent| pong.percentile(percent).unwrap_or_default().as_secs_f64() * 1e6;
    Ok(Sample {
        tcp1: one.gbit_per_s(),
        tcp4: four.gbit_per_s(),
        datagrams: rate.per_second(),
        p50: micros(50),
        p99: micros(99),
        router_ns: per_byte(after.routers.iter().sum::<f64>() - before.routers.iter().sum::<f64>()),
        relay_ns: per_byte(after.routers.get(2).unwrap_or(&0.0) - before.routers.get(2).unwrap_or(&0.0)),
        machine_ns: per_byte(after.machine - before.machine),
    })
}

/// Watches the first router of a rig do nothing.
pub fn idle(rig: &mut Rig, time: Duration) -> Outcome<Idle> {
    pause(Duration::from_secs(2));
    let before = Cpu::read(rig)?;
    pause(time);
    let after = Cpu::read(rig)?;
    let spent = after.routers.first().unwrap_or(&0.0) - before.routers.first().unwrap_or(&0.0);
    let id = rig.routers.first().map_or(0, |router| router.id());
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(Idle { cpu_percent: spent / time.as_nanos() as f64 * 100.0, rss_mib: rss.unwrap_or(f64::NAN) / 1024.0 })
}

/// CPU time so far, in nanoseconds.
struct Cpu {
    /// Of each router, all threads.
    routers: Vec<f64>,
    /// Of the machine, everything but idle.
    machine: f64,
}

impl Cpu {
    fn read(rig: &Rig) -> Outcome<Cpu> {
        let routers = rig.routers.iter().map(|router| process_ns(router.id())).collect::<Outcome<_>>()?;
        Ok(Cpu { routers, machine: machine_ns()? })
    }
}

/// From the scheduler, since the ticks of `/proc/PID/stat` are too coarse for a short round.
fn process_ns(id: u32) -> Outcome<f64> {
    let mut total = 0.0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        total += text.split_whitespace().next().unwrap_or("0").parse::<f64>()?;
    }
    Ok(total)
}

fn machine_ns() -> Outcome<f64> {
    /// Nanoseconds of a clock tick of `/proc/stat` (USER_HZ is 100 on every Linux).
    const TICK: f64 = 1e7;
    let text = fs::read_to_string("/proc/stat")?;
    let fields: Vec<f64> =
        text.lines().next().unwrap_or("").split_whitespace().skip(1).take(8).filter_map(|field| field.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let busy: f64 = fields.iter().enumerate().filter(|(n, _)| !matches!(n, 3 | 4)).map(|(_, ticks)| ticks).sum();
    Ok(busy * TICK)
}
