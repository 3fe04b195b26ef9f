//! The options of the name server.

use std::path::PathBuf;

use clap::Args;

use super::switch;
use crate::names::Domain;

/// The options of the name server, unchecked.
#[derive(Clone, Debug, Args)]
pub struct DnsOptions {
    /// Serve and publish no names of containers [default: names are served on 127.0.0.1 and on the bridge]
    #[arg(long, env = "WEAVE_NO_DNS", value_parser = switch, action = clap::ArgAction::SetTrue)]
    pub no_dns: bool,
    /// Domain of the names, the same on all routers
    #[arg(long, env = "WEAVE_DNS_DOMAIN", value_name = "DOMAIN", default_value = Domain::DEFAULT)]
    pub dns_domain: String,
    /// Address of this host to serve names on, by UDP and TCP, in place of the usual ones; without a port it is 53; repeatable
    /// [default: 127.0.0.1, 169.254.53.53 on the bridge, and every other address of the bridge]
    #[arg(long, env = "WEAVE_DNS_LISTEN", value_name = "IP[:PORT]")]
    pub dns_listen: Vec<String>,
    /// How long answers may be kept, in seconds
    #[arg(long, env = "WEAVE_DNS_TTL", value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=86_400))]
    pub dns_ttl: u32,
    /// How long the host's own name servers may take together for a name of another domain, in seconds
    #[arg(long, env = "WEAVE_DNS_FALLBACK_TIMEOUT", value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub dns_fallback_timeout: u32,
    /// File that names the host's own name servers, read again when it changes
    #[arg(long, env = "WEAVE_RESOLV_CONF", value_name = "FILE", default_value = "/etc/resolv.conf")]
    pub resolv_conf: PathBuf,
}
