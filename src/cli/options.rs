//! The options as clap sees them. Texts become values that hold in [`super::config`].

pub mod containers;
pub mod dns;
pub mod revoke;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::ApiAddress;
use crate::forward::flood_limit::DEFAULT_FLOOD_LIMIT;
use crate::forward::relay_limit::RelayLimit;
use crate::host::fastdp::device;
use crate::io::busy_poll;
use crate::io::offload::OffloadPolicy;
use containers::{AttachArgs, BridgeArgs, DetachArgs, ExposeArgs, HideArgs, PsArgs};
use dns::DnsOptions;
use revoke::{AdminKeyArgs, RevokeArgs};

/// Where the API is unless told otherwise.
pub const DEFAULT_API: &str = "unix:/run/weave-router/api.sock";

/// Where the state is unless told otherwise.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/weave-router";

const ABOUT: &str = "Plugs containers on many hosts into one encrypted Ethernet switch, in userspace";

const AFTER: &str = "Without a command the router runs in the foreground (`run`). Every option can also be set by its environment variable; \
a list in a variable is separated by commas or spaces. What the command line says replaces what the variable says.";

/// The command line with a verb.
#[derive(Debug, Parser)]
#[command(name = "weave-router", version, about = ABOUT, propagate_version = true)]
pub struct WithVerb {
    /// Options that may stand before or after the verb.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// The verb.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The command line without a verb: it runs the router.
#[derive(Debug, Parser)]
#[command(name = "weave-router", version, about = ABOUT, after_help = AFTER, propagate_version = true)]
pub struct WithoutVerb {
    /// Options that may stand before or after a verb.
    #[command(flatten)]
    pub global: GlobalOptions,
    /// Options of the router.
    #[command(flatten)]
    pub run: RunOptions,
    /// Never given; stands here so that the help lists the verbs.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// Options of every verb.
#[derive(Clone, Debug, Args)]
pub struct GlobalOptions {
    /// Address of the API: a unix socket, or a port on loopback
    #[arg(long, env = "WEAVE_API", global = true, value_name = "unix:PATH|127.0.0.1:PORT", default_value = DEFAULT_API)]
    pub api: ApiAddress,
    /// Least severe messages to log on stderr
    #[arg(long, env = "WEAVE_LOG_LEVEL", global = true, value_enum, default_value = "info", hide_possible_values = false)]
    pub log_level: LogLevel,
    /// Form of the log
    #[arg(long, env = "WEAVE_LOG_FORMAT", global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
}

/// What the program is to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run the router in the foreground (the default)
    #[command(visible_alias = "launch", after_help = AFTER)]
    Run(Box<RunArgs>),
    /// Show the state of the running router
    Status(StatusArgs),
    /// Make the running router link with hosts, and remember them
    Connect(HostArgs),
    /// Make the running router stop trying to link with hosts; live links stay
    Forget(HostArgs),
    /// Have a name stand for addresses, on all routers and over restarts
    DnsAdd(NameArgs),
    /// Have a name no longer stand for addresses
    DnsRemove(NameArgs),
    /// Print the addresses of a name in the mesh, or the names of an address
    DnsLookup(LookupArgs),
    /// Give a running container an interface on the network, and print its addresses
    Attach(AttachArgs),
    /// Take addresses from a container, and its interface with the last
    Detach(DetachArgs),
    /// List attached containers: id, MAC, addresses
    Ps(PsArgs),
    /// Put this host on the network, and print its addresses
    Expose(ExposeArgs),
    /// Take this host off the network
    Hide(HideArgs),
    /// Join another Linux bridge of this host to the network
    AttachBridge(BridgeArgs),
    /// Print the routers that frames to another router pass, with the round trip to each
    Trace(TraceArgs),
    /// Print the whole state of the running router as JSON
    Report,
    /// Wait until the routers have agreed on who gives which addresses
    Prime,
    /// Take over the addresses of a router that is gone for good
    Rmpeer(RmpeerArgs),
    /// Take all containers and this host off the network, and hand the addresses to another router, before this one is taken out of service
    Reset(ForceArgs),
    /// Make a key pair that may revoke members, or print its public key, for --admin on all hosts
    AdminKey(AdminKeyArgs),
    /// Put members out of the mesh for good, with an admin key; without one, off this router
    Revoke(RevokeArgs),
    /// Print this router's public key, for --allow on other hosts
    ShowKey(KeyArgs),
    /// Print the version of this program and of the running router
    Version,
    /// Print a systemd unit for the router
    SystemdUnit,
    /// Build a mesh of routers and containers in network namespaces of this host, and try it out (needs root)
    Demo(DemoArgs),
}

/// `run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Hosts to link with, as by --peer
    #[arg(value_name = "PEER")]
    pub peers: Vec<String>,
    /// Options of the router.
    #[command(flatten)]
    pub options: RunOptions,
}

/// The options of the router, unchecked.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Host to link with; IPv6 addresses in brackets where a port follows; names are resolved again on every attempt; with tcp:// before it
    /// the host is called by TCP, for networks that let no UDP through: after UDP where it is named both ways, and until UDP works; repeatable
    /// [default: none, waits to be called]
    #[arg(long, env = "WEAVE_PEER", value_name = "[tcp://]HOST[:PORT]")]
    pub peer: Vec<String>,
    /// UDP port of the mesh, the same for listening and for peers named without a port
    #[arg(long, env = "WEAVE_PORT", value_name = "UDP PORT", default_value_t = 6783, value_parser = clap::value_parser!(u16).range(1..))]
    pub port: u16,
    /// Local IP address to listen on; repeatable [default: all addresses, IPv4 and IPv6]
    #[arg(long, env = "WEAVE_BIND", value_name = "ADDR")]
    pub bind: Vec<String>,
    /// Address under which other routers reach this host although none of its interfaces has it (a forwarded port, the public address of a
    /// translator), told to all with its own ones; without a port that of --port; repeatable [default: none]
    #[arg(long, env = "WEAVE_ADVERTISE", value_name = "ADDRESS[:PORT]")]
    pub advertise: Vec<String>,
    /// TCP port to listen on for routers that UDP does not reach, on the addresses of --bind unless one is given; repeatable
    /// [default: none]
    #[arg(long, env = "WEAVE_TCP_LISTEN", value_name = "[ADDR:]PORT")]
    pub tcp_listen: Vec<String>,
    /// Bridge the containers are on; made if missing, adopted if present
    #[arg(long, env = "WEAVE_BRIDGE", value_name = "NAME", default_value = "weave")]
    pub bridge: String,
    /// Name of the router's port on the bridge
    #[arg(long, env = "WEAVE_TAP", value_name = "NAME", default_value = "weave-tap")]
    pub tap: String,
    /// MTU of the bridge in bytes, 576 to 65521; containers that use IPv6 need 1280; on an adopted bridge it is set only where given, and
    /// taken back at the end [default: what fits the underlay; an adopted bridge keeps its own]
    #[arg(long, env = "WEAVE_MTU", value_name = "BYTES", value_parser = clap::value_parser!(u16).range(576..=65521))]
    pub mtu: Option<u16>,
    /// Name of the network; routers of different networks never mix
    #[arg(long, env = "WEAVE_NETWORK", value_name = "NAME", default_value = "weave")]
    pub network: String,
    /// Name of this router for people [default: the host name]
    #[arg(long, env = "WEAVE_NICKNAME", value_name = "NAME")]
    pub nickname: Option<String>,
    /// Directory of this router's identity and of the peers added at runtime
    #[arg(long, env = "WEAVE_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
    /// TCP address of the read-only pages /status and /metrics; empty is off
    #[arg(long, env = "WEAVE_STATUS_ADDR", value_name = "IP:PORT", default_value = "127.0.0.1:6782")]
    pub status_addr: String,
    /// File that holds a password of the network; repeatable, newest first, at most four passwords in all [default: none]
    #[arg(long, env = "WEAVE_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Vec<PathBuf>,
    /// Password of the network, newer than those in files; others on this host can see the command line, so prefer --password-file
    /// [default: none]
    #[arg(long, env = "WEAVE_PASSWORD", value_name = "PASSWORD", hide_env_values = true)]
    pub password: Option<String>,
    /// Public key of a router that may join, as printed by show-key; repeatable [default: whoever has the password]
    #[arg(long, env = "WEAVE_ALLOW", value_name = "KEY")]
    pub allow: Vec<String>,
    /// Public key of an administrator, as printed by admin-key, who may revoke members; the same on all routers; repeatable [default: none]
    #[arg(long, env = "WEAVE_ADMIN", value_name = "KEY")]
    pub admin: Vec<String>,
    /// Without password and --allow, also accept links from public addresses [default: private and link-local addresses only]
    #[arg(long, env = "WEAVE_OPEN", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub open: bool,
    /// Also link with routers that agree on keys by X25519 alone, as older versions do [default: keys are post-quantum as well, by ML-KEM-768]
    #[arg(long, env = "WEAVE_CLASSIC_OK", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub classic_ok: bool,
    /// Behave as such a router, for tests [default: as this version does]
    #[arg(long, env = "WEAVE_CLASSIC_ONLY", value_parser = switch, action = clap::ArgAction::SetTrue, hide = true, conflicts_with = "classic_ok")]
    pub classic_only: bool,
    /// Cipher; auto takes the one that both ends measure as the faster
    #[arg(long, env = "WEAVE_CIPHER", value_enum, default_value = "auto")]
    pub cipher: Cipher,
    /// Library that computes the cipher on this host, which is no concern of the other end; auto takes the one measured as faster
    #[arg(long, env = "WEAVE_CIPHER_LIBRARY", value_enum, default_value = "auto")]
    pub cipher_library: CipherLibrary,
    /// Send frames in clear; the other end must say so too [default: everything is encrypted]
    #[arg(long, env = "WEAVE_NO_ENCRYPTION", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub no_encryption: bool,
    /// Let the kernel carry unicast frames by VXLAN to peers that say so too, in clear: with --no-encryption, or to --trusted-subnets
    /// [default: the router carries all frames]
    #[arg(long, env = "WEAVE_FASTDP", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub fastdp: bool,
    /// UDP port of --fastdp
    #[arg(long, env = "WEAVE_FASTDP_PORT", value_name = "UDP PORT", default_value_t = device::PORT, value_parser = clap::value_parser!(u16).range(1..))]
    pub fastdp_port: u16,
    /// Underlay networks, as ADDRESS/BITS, within which unicast frames go in clear, by the kernel with --fastdp, else by the router; both ends
    /// must trust the other's address; repeatable [default: none]
    #[arg(long, env = "WEAVE_TRUSTED_SUBNETS", value_name = "CIDR,...", value_delimiter = ',')]
    pub trusted_subnets: Vec<String>,
    /// Most links that this router keeps, in links, 1 to 4096; configured peers are always tried
    #[arg(long, env = "WEAVE_CONN_LIMIT", value_name = "LINKS", default_value_t = crate::mesh::config::CONN_LIMIT, value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub conn_limit: u16,
    /// Whether frames between other routers may pass through this one; where not, the others are told, and go around
    #[arg(long, env = "WEAVE_ALLOW_FORWARDING", value_name = "yes|no", value_parser = allowed, action = clap::ArgAction::Set, default_value = "yes")]
    pub allow_forwarding: bool,
    /// Most that one neighbour may have this router pass on for others per second, in bits with a unit, as 100mbit, 1gbit or 500kbit; what exceeds
    /// that is dropped and counted; with several packet threads each has its part of it
    #[arg(long, env = "WEAVE_RELAY_LIMIT", value_name = "RATE", value_parser = RelayLimit::from_str, default_value = "off")]
    pub relay_limit: RelayLimit,
    /// Link with configured peers only [default: also with the routers they know]
    #[arg(long, env = "WEAVE_NO_DISCOVERY", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub no_discovery: bool,
    /// Hold every attached container to its MAC, addresses and subnets, in the bridge itself; nothing but IP and ARP passes to and from them
    /// [default: subnets are kept apart where packets are routed]
    #[arg(long, env = "WEAVE_ISOLATE", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub isolate: bool,
    /// Addresses that the routers of the mesh give to containers, the same on all of them; once for IPv4 and once for IPv6; empty gives none.
    /// A host with a route into the default one does not start before somebody chooses
    #[arg(long, env = "WEAVE_IPALLOC_RANGE", value_name = "CIDR", default_value = "10.32.0.0/12")]
    pub ipalloc_range: Vec<String>,
    /// Subnet of a container that asks for none; once for each family, and it gets an address of each [default: the range]
    #[arg(long, env = "WEAVE_IPALLOC_DEFAULT_SUBNET", value_name = "CIDR")]
    pub ipalloc_default_subnet: Vec<String>,
    /// How the addresses are divided first: by more than half of so many routers (consensus; without a number, of the peers given and this one),
    /// among named routers (seed, the same list everywhere), or by others (observer)
    #[arg(long, env = "WEAVE_IPALLOC_INIT", value_name = "consensus[=ROUTERS]|seed=NAME,...|observer", default_value = "consensus")]
    pub ipalloc_init: String,
    /// Answer ARP and neighbour solicitations for containers of other hosts, where it is certain who has the address, in place of flooding them
    /// through the mesh
    #[arg(long, env = "WEAVE_ARP_PROXY", value_name = "yes|no", value_parser = switch, action = clap::ArgAction::Set, default_value = "yes")]
    pub arp_proxy: bool,
    /// Send multicast frames only to hosts with members of their group, as containers tell by IGMP and MLD; off floods them to all
    #[arg(long, env = "WEAVE_MULTICAST_SNOOPING", value_name = "on|off", value_parser = switch, action = clap::ArgAction::Set, default_value = "on")]
    pub multicast_snooping: bool,
    /// Most frames of one station on the bridge that each packet thread floods, in frames per second (broadcast, multicast, to unknown MACs);
    /// of all stations together it is four times as many, of MACs that were not heard before as many as of one; what exceeds that is dropped;
    /// 0 is no limit
    #[arg(long, env = "WEAVE_FLOOD_LIMIT", value_name = "FRAMES", default_value_t = DEFAULT_FLOOD_LIMIT)]
    pub flood_limit: u64,
    /// Of TCP acknowledgements of one flow that came together pass on the last alone, which says what the others do
    #[arg(long, env = "WEAVE_ACK_FILTER", value_name = "on|off", value_parser = switch, action = clap::ArgAction::Set, default_value = "on")]
    pub ack_filter: bool,
    /// Segmentation and checksum offloads: auto tries each and gives up what fails, off uses none, a comma list switches single ones
    /// off: of the TAP no-csum, no-tso, no-ecn, no-uso, of UDP no-gso, no-gro
    #[arg(long, env = "WEAVE_OFFLOAD", value_name = "auto|off|LIST", value_parser = OffloadPolicy::from_str, default_value = "auto")]
    pub offload: OffloadPolicy,
    /// Threads that move frames, 1 to 15; each has a queue of the TAP, a socket and keys of its own [default: one up to two cores, then half
    /// the cores, at most 8]
    #[arg(long, env = "WEAVE_THREADS", value_name = "THREADS", value_parser = clap::value_parser!(u8).range(1..=15))]
    pub threads: Option<u8>,
    /// How long to look for the next frame before sleeping, while frames come thick and fast: auto (100), off or microseconds up to 1000
    #[arg(long, env = "WEAVE_BUSY_POLL", value_name = "TIME", value_parser = busy_polling, default_value = "auto")]
    pub busy_poll: Duration,
    /// Options of the name server.
    #[command(flatten)]
    pub dns: DnsOptions,
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// What to show [default: an overview]
    pub what: Option<What>,
    /// Print JSON [default: text]
    #[arg(long, env = "WEAVE_JSON", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub json: bool,
}

/// `trace`.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// Name or nickname of the router
    #[arg(value_name = "PEER")]
    pub peer: String,
    /// Print JSON [default: text]
    #[arg(long, env = "WEAVE_JSON", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub json: bool,
}

/// What `status` can show besides the overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// Links, and attempts at links
    Connections,
    /// Routers of the mesh
    Peers,
    /// Hosts this router was told to link with
    Targets,
    /// The MAC table
    Macs,
    /// How each peer is reached, and why so
    Routes,
    /// Direct or relayed, since when, and which addresses were tried in vain
    Paths,
    /// The name server, and the names of all routers
    Dns,
    /// Attached containers, and the exposed host; also as attachments
    #[value(alias = "attachments")]
    Containers,
    /// Addresses and names of the exposed host, and whether the outside sees them
    Expose,
    /// Who gives which addresses
    Ipam,
}

/// `dns-add` and `dns-remove`.
#[derive(Debug, Args)]
pub struct NameArgs {
    /// Addresses, and the container that holds the name, in any order; without a container the name belongs to none; to remove, none are all
    #[arg(value_name = "ADDRESS|CONTAINER")]
    pub what: Vec<String>,
    /// The name, also as -h; one without dots is in the domain [default: to remove, all of them]
    #[arg(long, env = "WEAVE_HOSTNAME", value_name = "NAME")]
    pub hostname: Option<String>,
}

/// `dns-lookup`.
#[derive(Debug, Args)]
pub struct LookupArgs {
    /// Name or address; a name without dots is in the domain
    #[arg(value_name = "NAME|ADDRESS")]
    pub what: String,
}

/// `connect` and `forget`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Hosts, as by --peer
    #[arg(required = true, value_name = "[tcp://]HOST[:PORT]")]
    pub hosts: Vec<String>,
}

/// `rmpeer`.
#[derive(Debug, Args)]
pub struct RmpeerArgs {
    /// Names or nicknames of routers that are gone for good
    #[arg(required = true, value_name = "NAME")]
    pub peers: Vec<String>,
    /// How.
    #[command(flatten)]
    pub force: ForceArgs,
}

/// `--force` of `rmpeer` and `reset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct ForceArgs {
    /// Ask no other router: its addresses may then be given twice if you are wrong; a router that is reset so begins as a new one when it is started
    /// again [default: more than half of the owners agree]
    #[arg(long, env = "WEAVE_FORCE", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub force: bool,
}

/// `show-key`.
#[derive(Debug, Args)]
pub struct KeyArgs {
    /// Directory to take the key from where no router is running
    #[arg(long, env = "WEAVE_STATE_DIR", value_name = "DIR", default_value = DEFAULT_STATE_DIR)]
    pub state_dir: PathBuf,
}

/// `demo`.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Number of hosts, 2 to 16
    #[arg(long, env = "WEAVE_DEMO_HOSTS", value_name = "HOSTS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub hosts: u8,
    /// How the hosts are wired
    #[arg(long, env = "WEAVE_DEMO_TOPOLOGY", value_enum, default_value = "line")]
    pub topology: Topology,
    /// Seconds to stay up once everything works [default: until Ctrl-C]
    #[arg(long, env = "WEAVE_DEMO_SECONDS", value_name = "SECONDS")]
    pub seconds: Option<u32>,
}

/// How the hosts of the demo are wired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Topology {
    /// Each with the next
    Line,
    /// Each with the next, the last with the first
    Ring,
    /// The first with all others
    Star,
    /// Each with each
    Full,
}

/// The cipher that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cipher {
    /// The faster of both ends' measurements
    Auto,
    /// AES-256-GCM
    #[value(name = "aes256gcm")]
    Aes256Gcm,
    /// ChaCha20-Poly1305
    #[value(name = "chacha20poly1305")]
    ChaCha20Poly1305,
}

/// The library that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CipherLibrary {
    /// The faster as measured at start
    Auto,
    /// aws-lc
    AwsLc,
    /// ring
    Ring,
}

/// Least severe messages that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// Nothing
    Off,
    /// What ends the router
    Error,
    /// What an operator should look at
    Warn,
    /// What changes: links, peers
    Info,
    /// What was decided, and why
    Debug,
    /// Everything
    Trace,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line of text each
    Text,
    /// One JSON object a line
    Json,
}

/// The value of `--busy-poll`.
fn busy_polling(text: &str) -> Result<Duration, String> {
    let time = match text {
        "auto" => busy_poll::AUTO,
        "off" => Duration::ZERO,
        _ => Duration::from_micros(text.parse().map_err(|_| "write auto, off or a number of microseconds")?),
    };
    if time <= busy_poll::MOST { Ok(time) } else { Err(format!("at most {} microseconds", busy_poll::MOST.as_micros())) }
}

/// The value of an option that is yes unless something else is said; an empty variable says nothing.
fn allowed(text: &str) -> Result<bool, String> {
    if text.is_empty() { Ok(true) } else { switch(text).map_err(|_| "write yes or no".into()) }
}

/// The value of a switch's environment variable; an empty one is off, as when it is not set.
fn switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "" | "0" | "false" | "no" | "off" => Ok(false),
        "1" | "true" | "yes" | "on" => Ok(true),
        _ => Err("write true or false".into()),
    }
}
