//! Options of the verbs for containers.

use std::path::PathBuf;

use clap::Args;

use super::switch;

/// Where Docker's API is unless told otherwise.
pub const DEFAULT_DOCKER: &str = "unix:///var/run/docker.sock";

/// Which container.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Network namespace of the container, instead of a Docker container [default: the last word is a Docker container]
    #[arg(long, env = "WEAVE_NETNS", value_name = "PATH", conflicts_with = "pid")]
    pub netns: Option<PathBuf>,
    /// Process in the container, instead of a Docker container [default: the last word is a Docker container]
    #[arg(long, env = "WEAVE_PID", value_name = "PID", value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,
    /// Address of Docker's API
    #[arg(long, env = "DOCKER_HOST", value_name = "unix://PATH", default_value = DEFAULT_DOCKER)]
    pub docker_host: String,
}

/// `attach`.
#[derive(Clone, Debug, Args)]
pub struct AttachArgs {
    /// Addresses, then the container: ip:CIDR or CIDR for this very address, net:CIDR for one of this subnet, net:default for one of the default
    /// subnet, of each family that has one; none is net:default. The container is a Docker name or id, unless --netns or --pid says which
    #[arg(value_name = "ADDR|CONTAINER")]
    pub words: Vec<String>,
    /// Which container.
    #[command(flatten)]
    pub which: Which,
    /// Name of the container in DNS, the domain is added where it has none; repeatable [default: a Docker container's own name, and
    /// its host name where that is in the domain]
    #[arg(long, env = "WEAVE_HOSTNAME", value_name = "NAME")]
    pub hostname: Vec<String>,
    /// Give the container no name [default: its --hostname, or Docker's name]
    #[arg(long, env = "WEAVE_WITHOUT_DNS", value_parser = switch, action = clap::ArgAction::SetTrue, conflicts_with = "hostname")]
    pub without_dns: bool,
    /// Leave the container's route for multicast alone [default: 224.0.0.0/4 goes out of the new interface]
    #[arg(long, env = "WEAVE_NO_MULTICAST_ROUTE", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub no_multicast_route: bool,
}

/// `detach`.
#[derive(Clone, Debug, Args)]
pub struct DetachArgs {
    /// Addresses, as for attach, then the container; a subnet means all addresses in it, none is net:default
    #[arg(value_name = "ADDR|CONTAINER")]
    pub words: Vec<String>,
    /// Which container.
    #[command(flatten)]
    pub which: Which,
    /// Take all addresses and the interface away [default: the addresses that are named]
    #[arg(long, env = "WEAVE_ALL", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub all: bool,
}

/// `ps`.
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Containers: id or its beginning, PATH of a network namespace, pid:N, weave:expose for this host, or a Docker name [default: all]
    #[arg(value_name = "CONTAINER")]
    pub containers: Vec<String>,
    /// Address of Docker's API, for names
    #[arg(long, env = "DOCKER_HOST", value_name = "unix://PATH", default_value = DEFAULT_DOCKER)]
    pub docker_host: String,
    /// Print JSON [default: text]
    #[arg(long, env = "WEAVE_JSON", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub json: bool,
}

/// `expose`.
#[derive(Clone, Debug, Args)]
pub struct ExposeArgs {
    /// Addresses for this host, as for attach; none is net:default
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,
    /// Name of this host in DNS, also as -h; repeatable [default: none]
    #[arg(long, env = "WEAVE_HOSTNAME", value_name = "NAME")]
    pub hostname: Vec<String>,
    /// Leave addresses as they are between the subnets and the outside [default: the outside sees this host's address]
    #[arg(long, env = "WEAVE_WITHOUT_MASQUERADE", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub without_masquerade: bool,
}

/// `hide`.
#[derive(Clone, Debug, Args)]
pub struct HideArgs {
    /// Addresses, as for attach; a subnet means all addresses in it, none is net:default
    #[arg(value_name = "ADDR")]
    pub addresses: Vec<String>,
    /// Take all addresses away [default: the addresses that are named]
    #[arg(long, env = "WEAVE_ALL", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub all: bool,
}

/// `attach-bridge`.
#[derive(Clone, Debug, Args)]
pub struct BridgeArgs {
    /// The other bridge
    #[arg(value_name = "BRIDGE", default_value = "docker0")]
    pub bridge: String,
}
