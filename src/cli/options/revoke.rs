//! The arguments of `admin-key` and `revoke`.

use std::path::PathBuf;

use clap::Args;

/// `admin-key`.
#[derive(Debug, Args)]
pub struct AdminKeyArgs {
    /// File of the key pair; made where it is missing, readable by you alone. Keep it off the routers
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

/// `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArgs {
    /// Names, nicknames or public keys of the members
    #[arg(required = true, value_name = "NAME")]
    pub peers: Vec<String>,
    /// File of an admin key, made by admin-key, whose public half the routers were given with --admin [default: revoke on this router alone]
    #[arg(long, env = "WEAVE_ADMIN_KEY", value_name = "FILE")]
    pub admin_key: Option<PathBuf>,
}
