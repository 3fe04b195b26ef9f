//! What is read off a running setup.

use std::fs;
use std::time::Duration;

use weave_router::host::lab::clock::pause;
use weave_router::host::lab::traffic::{self, Bulk, RoundTrips};
use weave_router::host::lab::{Received, WireEnd};

use crate::rig::{Calls, Outcome, Rig};
use crate::setups::{
    CALLS, Cable, DATAGRAMS, Figure, IDLE_CPU, IDLE_RSS, LOADED_P50, LOADED_P99, MACHINE_NS, P50, P99, POLLS, RELAY_NS, ROUTER_NS, Sample,
    TCP1, TCP1_NODELAY, TCP4,
};

/// How long a round takes for its figures.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Of a stream.
    pub time: Duration,
    /// Of the stream on the long cable, where it takes seconds to find its speed.
    pub far: Duration,
    /// Round trips of ping-pong.
    pub trips: usize,
}

/// The longest packet on a cable of 1500 bytes: its MTU and an Ethernet header.
const LONGEST: u64 = 1514;

/// Takes every figure that the cable is there for, once.
pub fn sample(rig: &mut Rig, cable: Cable, pace: Pace) -> Outcome<Sample> {
    let mut sample = Sample::new();
    match cable {
        Cable::Far => stream(rig, pace.far, &mut sample)?,
        Cable::FarShaped => stream(rig, pace.far / 2, &mut sample)?,
        Cable::Datagrams | Cable::DatagramsNoUdp | Cable::Lossy => {
            let end = rig.wire.clone().ok_or("no cable")?.b;
            let before = Received::at(&end)?;
            stream(rig, pace.time * 2, &mut sample)?;
            expect_datagrams(&end, before)?;
        }
        Cable::Veth | Cable::Relayed => {
            stream(rig, pace.time, &mut sample)?;
            everything_else(rig, pace, &mut sample)?;
        }
    }
    Ok(sample)
}

fn put(sample: &mut Sample, figure: Figure, value: f64) {
    sample.insert(figure.key.to_string(), value);
}

/// One stream of an ordinary sender, and what it costs.
fn stream(rig: &Rig, time: Duration, sample: &mut Sample) -> Outcome<()> {
    let before = Spent::before(rig)?;
    let one = traffic::tcp_throughput(rig.ends(), Bulk::ordinary(time))?;
    let after = Spent::after(rig)?;
    let bytes = one.bytes.max(1) as f64;
    put(sample, TCP1, one.gbit_per_s());
    put(sample, MACHINE_NS, (after.machine - before.machine) / bytes);
    let routers: Vec<f64> = after.routers.iter().zip(&before.routers).map(|(after, before)| (after - before) / bytes).collect();
    if !routers.is_empty() {
        put(sample, ROUTER_NS, routers.iter().sum());
        put(sample, CALLS, (after.calls.frames - before.calls.frames) / bytes * 1e6);
        put(sample, POLLS, (after.calls.polls - before.calls.polls) / bytes * 1e6);
    }
    if let Some(relay) = routers.get(2) {
        put(sample, RELAY_NS, *relay);
    }
    Ok(())
}

fn everything_else(rig: &Rig, pace: Pace, sample: &mut Sample) -> Outcome<()> {
    let ordinary = Bulk::ordinary(pace.time);
    let nodelay = traffic::tcp_throughput(rig.ends(), Bulk { nodelay: true, ..ordinary })?;
    put(sample, TCP1_NODELAY, nodelay.gbit_per_s());
    let four = traffic::tcp_throughput(rig.ends(), Bulk { streams: 4, ..ordinary })?;
    put(sample, TCP4, four.gbit_per_s());
    let rate = traffic::udp_rate(rig.ends(), 64, pace.time / 2)?;
    put(sample, DATAGRAMS, rate.per_second());
    // The datagrams left queues behind; a ping-pong through them would measure those.
    pause(Duration::from_millis(200));
    let idle = traffic::tcp_ping_pong(rig.ends(), pace.trips)?;
    put(sample, P50, micros(&idle, 50)?);
    put(sample, P99, micros(&idle, 99)?);
    let (_, loaded) = traffic::tcp_ping_pong_beside(rig.ends(), ordinary)?;
    put(sample, LOADED_P50, micros(&loaded, 50)?);
    put(sample, LOADED_P99, micros(&loaded, 99)?);
    Ok(())
}

fn micros(trips: &RoundTrips, percent: usize) -> Outcome<f64> {
    let time = trips.percentile(percent).ok_or("no ball of a ping-pong came back in time")?;
    Ok(time.as_secs_f64() * 1e6)
}

/// A cable that passed super frames would make figures of something else.
fn expect_datagrams(end: &WireEnd, before: Received) -> Outcome<()> {
    let after = Received::at(end)?;
    let mean = (after.bytes - before.bytes) / (after.packets - before.packets).max(1);
    if mean <= LONGEST {
        Ok(())
    } else {
        Err(format!("packets of {mean} bytes cross a cable that was to carry no more than {LONGEST}").into())
    }
}

/// Watches the first router of a rig do nothing.
pub fn idle(rig: &Rig, time: Duration) -> Outcome<Sample> {
    pause(Duration::from_secs(2));
    let id = rig.routers.first().map_or(0, |router| router.id());
    let before = process_ns(id)?;
    pause(time);
    let spent = process_ns(id)? - before;
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    let mut sample = Sample::new();
    put(&mut sample, IDLE_CPU, spent / time.as_nanos() as f64 * 100.0);
    put(&mut sample, IDLE_RSS, rss.ok_or("no resident memory in /proc")? / 1024.0);
    Ok(sample)
}

/// What was spent so far: CPU time in nanoseconds, and system calls.
struct Spent {
    /// Of each router, all threads.
    routers: Vec<f64>,
    /// Of the machine, everything but idle.
    machine: f64,
    /// System calls of the routers at both ends.
    calls: Calls,
}

impl Spent {
    fn before(rig: &Rig) -> Outcome<Spent> {
        // Asking costs CPU time, which must not count.
        let calls = rig.calls()?;
        Ok(Spent { calls, ..Spent::cpu(rig)? })
    }

    fn after(rig: &Rig) -> Outcome<Spent> {
        let cpu = Spent::cpu(rig)?;
        Ok(Spent { calls: rig.calls()?, ..cpu })
    }

    fn cpu(rig: &Rig) -> Outcome<Spent> {
        let routers = rig.routers.iter().map(|router| process_ns(router.id())).collect::<Outcome<_>>()?;
        Ok(Spent { routers, machine: machine_ns()?, calls: Calls::default() })
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
