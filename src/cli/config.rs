//! From options to a configuration that holds: a [`RunConfig`] exists only if it is good.

mod advertise;
mod dns;
mod ipam;
mod tcp;

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ArgMatches;
use clap::parser::ValueSource;
use zeroize::Zeroizing;

use super::options::{Cipher, CipherLibrary, GlobalOptions, RunOptions};
use crate::api::ApiAddress;
use crate::crypto::Classic;
use crate::forward::relay_limit::RelayLimit;
use crate::io::offload::OffloadPolicy;
use crate::mesh::command::Target;
use crate::mesh::fastdp;
use crate::wire::{Address, Subnet};
pub use dns::DnsConfig;

/// Most passwords a router tries, so that a network can change its password host by host.
pub const MAX_PASSWORDS: usize = 4;

/// Longest password, in bytes.
const MAX_PASSWORD: usize = 1024;

/// Longest name of a network or nickname, in bytes.
const MAX_NAME: usize = 64;

/// Longest name of a network interface, in bytes (IFNAMSIZ less its zero).
const MAX_INTERFACE: usize = 15;

/// Everything `run` needs to know.
#[derive(Clone, Debug)]
pub struct RunConfig {
    /// Hosts to link with, each once.
    pub peers: Vec<Target>,
    /// UDP port of the mesh.
    pub port: u16,
    /// Addresses to listen on; empty is all, IPv4 and IPv6.
    pub bind: Vec<IpAddr>,
    /// Addresses under which others reach this host although no interface has them, each once.
    pub advertise: Vec<Address>,
    /// TCP ports to listen on, with an address where not on all of those; empty is none.
    pub tcp_listen: Vec<(Option<IpAddr>, u16)>,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the TAP; differs from the bridge's.
    pub tap: String,
    /// MTU of the bridge in bytes; `None` is what fits the underlay.
    pub mtu: Option<u16>,
    /// Name of the network.
    pub network: String,
    /// Name of this router for people.
    pub nickname: String,
    /// State directory.
    pub state_dir: PathBuf,
    /// Address of the API.
    pub api: ApiAddress,
    /// Address of the read-only pages; `None` is off.
    pub status_addr: Option<SocketAddr>,
    /// Passwords, newest first, each once.
    pub passwords: Vec<Password>,
    /// Public keys of the routers that may join; empty is no restriction.
    pub allow: Vec<[u8; 32]>,
    /// Public keys of administrators.
    pub admins: Vec<[u8; 32]>,
    /// Whether handshakes without post-quantum keys will do.
    pub classic: Classic,
    /// Accept links from public addresses though nothing authenticates them.
    pub open: bool,
    /// The cipher asked for.
    pub cipher: Cipher,
    /// The library asked for.
    pub cipher_library: CipherLibrary,
    /// False under `--no-encryption`.
    pub encryption: bool,
    /// Networks in which unicast frames may go in clear.
    pub trusted: Vec<Subnet>,
    /// What `--fastdp` is given; `None` without it.
    pub fastdp: Option<FastdpConfig>,
    /// Most links.
    pub conn_limit: usize,
    /// False under `--allow-forwarding=no`: nothing is passed on for other routers.
    pub forwarding: bool,
    /// What one neighbour may have passed on.
    pub relay_limit: RelayLimit,
    /// False under `--no-discovery`.
    pub discovery: bool,
    /// Containers are held to their addresses.
    pub isolate: bool,
    /// What the address book is told; `None` where this router gives no addresses.
    pub ipam: Option<crate::ipam::Config>,
    /// Containers of other hosts are answered for.
    pub arp_proxy: bool,
    /// Multicast frames go only where members of their groups are.
    pub multicast_snooping: bool,
    /// Frames per second that a station may have flooded; 0 for no bound.
    pub flood_limit: u64,
    /// Of acknowledgements that wait together only the last goes on.
    pub ack_filter: bool,
    /// Somebody chose the ranges; false for the default.
    pub range_given: bool,
    /// Which offloads are tried.
    pub offload: OffloadPolicy,
    /// How many packet threads; `None` leaves it to the number of cores.
    pub threads: Option<u8>,
    /// How long packet threads look for events before they sleep; zero for never.
    pub busy_poll: Duration,
    /// The name server; `None` under `--no-dns`.
    pub dns: Option<DnsConfig>,
}

/// What the fast datapath is told.
#[derive(Clone, Debug)]
pub struct FastdpConfig {
    /// UDP port of the VXLAN device.
    pub port: u16,
    /// To whom frames may go in clear.
    pub policy: fastdp::Policy,
}

/// A password; never printed, wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// The bytes of the password.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// Why there is no configuration, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// What was typed is wrong: exit status 2.
    #[error("{0}")]
    Usage(String),
    /// What was named cannot be used: exit status 1.
    #[error("{0}")]
    Failure(String),
}

fn usage(sentence: impl Into<String>) -> ConfigError {
    ConfigError::Usage(sentence.into())
}

fn interfaces(bridge: &str, tap: &str) -> Result<(), ConfigError> {
    interface("--bridge", bridge)?;
    interface("--tap", tap)?;
    match bridge == tap {
        true => Err(usage(format!("--bridge and --tap are both '{tap}': give them different names"))),
        false => Ok(()),
    }
}

impl RunConfig {
    /// Checks options. `matches` says which of them came from the environment, where lists are one text; `hostname` is the default nickname.
    pub fn new(
        options: RunOptions,
        positional: Vec<String>,
        global: &GlobalOptions,
        matches: &ArgMatches,
        hostname: &str,
    ) -> Result<RunConfig, ConfigError> {
        let listed = |id: &str| matches.value_source(id) == Some(ValueSource::EnvVariable);
        let peer_texts = split(options.peer, listed("peer")).into_iter().chain(positional);
        let peers: Vec<Target> = peer_texts.map(|t| t.parse().map_err(|e| usage(format!("{e}")))).collect::<Result<_, _>>()?;
        let bind: Vec<IpAddr> = split(options.bind, listed("bind")).iter().map(|t| bind_address(t)).collect::<Result<_, _>>()?;
        let allow: Vec<[u8; 32]> =
            split(options.allow, listed("allow")).iter().map(|t| key("--allow", "show-key", t)).collect::<Result<_, _>>()?;
        let admins = split(options.admin, listed("admin")).iter().map(|t| key("--admin", "admin-key FILE", t)).collect::<Result<_, _>>()?;
        interfaces(&options.bridge, &options.tap)?;
        let files = match listed("password_file") {
            true => options.password_file.iter().flat_map(|p| words(&p.to_string_lossy())).map(PathBuf::from).collect(),
            false => options.password_file,
        };
        let trusted = trusted_subnets(&split(options.trusted_subnets, listed("trusted_subnets")))?;
        let fastdp = fast_datapath(options.fastdp, options.fastdp_port, &trusted, options.no_encryption, options.port)?;
        let peers = unique(peers);
        let ranges = split(options.ipalloc_range, listed("ipalloc_range"));
        let subnets = split(options.ipalloc_default_subnet, listed("ipalloc_default_subnet"));
        let ipam = ipam::config(&options.network, &ranges, &subnets, &options.ipalloc_init, tcp::routers(&peers))?;
        Ok(RunConfig {
            fastdp,
            trusted,
            ipam,
            range_given: matches.value_source("ipalloc_range").is_some_and(|source| source != ValueSource::DefaultValue),
            peers,
            port: options.port,
            bind: unique(bind),
            advertise: advertise::addresses(&split(options.advertise, listed("advertise")), options.port)?,
            tcp_listen: tcp::listen(&split(options.tcp_listen, listed("tcp_listen")))?,
            bridge: options.bridge,
            tap: options.tap,
            mtu: options.mtu,
            network: name("--network", options.network)?,
            nickname: nickname(options.nickname, hostname)?,
            state_dir: options.state_dir,
            api: global.api.clone(),
            status_addr: status_address(&options.status_addr)?,
            passwords: passwords(options.password, &files)?,
            allow: unique(allow),
            admins: unique(admins),
            classic: classic(options.classic_only, options.classic_ok),
            open: options.open,
            cipher: options.cipher,
            cipher_library: options.cipher_library,
            encryption: !options.no_encryption,
            conn_limit: usize::from(options.conn_limit),
            forwarding: options.allow_forwarding,
            relay_limit: options.relay_limit,
            discovery: !options.no_discovery,
            isolate: options.isolate,
            arp_proxy: options.arp_proxy,
            multicast_snooping: options.multicast_snooping,
            flood_limit: options.flood_limit,
            ack_filter: options.ack_filter,
            offload: options.offload,
            threads: options.threads,
            busy_poll: options.busy_poll,
            dns: dns::config(options.dns, listed("dns_listen"))?,
        })
    }

    /// True where something decides who may join.
    pub fn authenticated(&self) -> bool {
        !self.passwords.is_empty() || !self.allow.is_empty()
    }
}

fn trusted_subnets(texts: &[String]) -> Result<Vec<Subnet>, ConfigError> {
    let subnets = texts.iter().map(|t| t.trim().parse().map_err(|e| usage(format!("--trusted-subnets: {e}"))));
    Ok(unique(subnets.collect::<Result<_, _>>()?))
}

fn fast_datapath(on: bool, port: u16, trusted: &[Subnet], no_encryption: bool, mesh: u16) -> Result<Option<FastdpConfig>, ConfigError> {
    match (on, no_encryption || !trusted.is_empty()) {
        (false, _) => Ok(None),
        (true, false) => {
            Err(usage("--fastdp sends frames in clear: say where that is acceptable, by --trusted-subnets CIDR,... or --no-encryption"))
        }
        (true, true) if port == mesh => Err(usage(format!("--fastdp-port and --port are both {port}: give them different ports"))),
        (true, true) => Ok(Some(FastdpConfig { port, policy: fastdp::Policy { trusted: trusted.to_vec() } })),
    }
}

fn classic(only: bool, accepted: bool) -> Classic {
    match (only, accepted) {
        (true, _) => Classic::Only,
        (false, true) => Classic::Accepted,
        (false, false) => Classic::Refused,
    }
}

/// A list from the environment is one text; on the command line every value stands for itself.
fn split(values: Vec<String>, from_environment: bool) -> Vec<String> {
    if from_environment { values.iter().flat_map(|v| words(v)).collect() } else { values }
}

fn words(text: &str) -> Vec<String> {
    text.split(|c: char| c == ',' || c.is_whitespace()).filter(|w| !w.is_empty()).map(ToString::to_string).collect()
}

/// Each value once, in the order of their first appearance.
fn unique<T: Ord + Clone>(values: Vec<T>) -> Vec<T> {
    let mut seen = BTreeSet::new();
    values.into_iter().filter(|v| seen.insert(v.clone())).collect()
}

fn bind_address(text: &str) -> Result<IpAddr, ConfigError> {
    let bare = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(ip) if ip.is_multicast() => Err(usage(format!("--bind {text}: that is a multicast address; name an address of this host"))),
        Ok(IpAddr::V4(ip)) if ip.is_broadcast() => {
            Err(usage(format!("--bind {text}: that is the broadcast address; name an address of this host")))
        }
        Ok(ip) => Ok(ip),
        Err(_) => Err(usage(format!("--bind {text}: that is not an IP address; the port is set by --port"))),
    }
}

fn status_address(text: &str) -> Result<Option<SocketAddr>, ConfigError> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    match text.trim().parse::<SocketAddr>() {
        Ok(addr) if addr.port() != 0 => Ok(Some(addr)),
        _ => Err(usage(format!("--status-addr {text}: write IP:PORT, [IPV6]:PORT, or nothing to switch it off"))),
    }
}

fn key(option: &str, verb: &str, text: &str) -> Result<[u8; 32], ConfigError> {
    let bad = || {
        usage(format!("{option} {text}: that is not a public key; it takes the 64 hexadecimal digits that `weave-router {verb}` prints"))
    };
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(bad());
    }
    let mut key = [0; 32];
    for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
    }
    Ok(key)
}

/// What the kernel takes as a name, less what would be a pattern (`%`) or something every host has already.
fn interface(option: &str, name: &str) -> Result<(), ConfigError> {
    let legal = |b: u8| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%');
    let why = match name {
        "" => "a name is needed",
        _ if name.len() > MAX_INTERFACE => "a network interface's name takes at most 15 bytes",
        _ if !name.bytes().all(legal) => "a network interface's name takes printable ASCII without space, '/', ':' and '%'",
        "." | ".." | "all" | "default" | "lo" => "that name is taken by the system",
        _ => return Ok(()),
    };
    Err(usage(format!("{option} '{}': {why}", name.escape_debug())))
}

fn name(option: &str, name: String) -> Result<String, ConfigError> {
    let why = match () {
        () if name.trim().is_empty() => "a name is needed",
        () if name.len() > MAX_NAME => "it takes at most 64 bytes",
        () if name.chars().any(char::is_control) => "it takes printable characters",
        () => return Ok(name),
    };
    Err(usage(format!("{option} '{}': {why}", name.escape_debug())))
}

/// What was given, else the host name where it can be one.
fn nickname(given: Option<String>, hostname: &str) -> Result<String, ConfigError> {
    match given {
        Some(given) => name("--nickname", given),
        None => Ok(name("--nickname", hostname.to_string()).unwrap_or_else(|_| "unnamed".to_string())),
    }
}

fn passwords(given: Option<String>, files: &[PathBuf]) -> Result<Vec<Password>, ConfigError> {
    let mut passwords = Vec::new();
    if let Some(given) = given {
        let given = Zeroizing::new(given.into_bytes());
        let from = "--password (or WEAVE_PASSWORD)";
        passwords.push(password(given, from).map_err(ConfigError::Usage)?);
    }
    for file in files {
        let from = format!("the password file {}", file.display());
        let bytes = read_limited(file).map_err(|e| ConfigError::Failure(format!("cannot read {from}: {e}")))?;
        passwords.push(password(bytes, &from).map_err(ConfigError::Failure)?);
    }
    let mut each_once: Vec<Password> = Vec::new();
    for password in passwords {
        if !each_once.contains(&password) {
            each_once.push(password);
        }
    }
    match each_once.len() {
        0..=MAX_PASSWORDS => Ok(each_once),
        n => Err(usage(format!("{n} passwords are given, a router tries at most {MAX_PASSWORDS}: drop the oldest"))),
    }
}

fn read_limited(file: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let limit = MAX_PASSWORD + 3;
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    File::open(file)?.take(limit as u64).read_to_end(&mut bytes)?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    Ok(bytes)
}

fn password(bytes: Zeroizing<Vec<u8>>, from: &str) -> Result<Password, String> {
    match bytes.len() {
        0 => Err(format!("{from} is empty: give a password, or leave it out")),
        1..=MAX_PASSWORD if bytes.contains(&b'\n') => Err(format!("{from} holds more than one line: a file holds one password")),
        1..=MAX_PASSWORD => Ok(Password(bytes)),
        _ => Err(format!("{from} is longer than {MAX_PASSWORD} bytes: give a shorter password")),
    }
}
