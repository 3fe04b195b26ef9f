//! What can go wrong on the host, as sentences.

use std::io;

/// Why something on the host could not be done.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The name of the bridge belongs to an interface of another kind.
    #[error("--bridge {name} is taken by an interface of kind {kind}; choose another name or remove it")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// The kind of what is there.
        kind: String,
    },
    /// A name that no interface may have.
    #[error("'{0}' cannot be the name of an interface: it takes 1 to 15 bytes without blanks, '/' or ':'")]
    BadName(String),
    /// The kernel refused for want of privilege.
    #[error("could not {attempted}: permission denied; run as root or with the capabilities CAP_NET_ADMIN and CAP_NET_RAW")]
    Permission {
        /// What was attempted.
        attempted: String,
    },
    /// The kernel refused a netlink request.
    #[error("could not {attempted}: {reason}")]
    Netlink {
        /// What was attempted.
        attempted: String,
        /// What the kernel answered.
        reason: String,
        /// The error number, where there is one.
        errno: Option<i32>,
    },
    /// A system call failed.
    #[error("could not {attempted}: {source}")]
    Io {
        /// What was attempted.
        attempted: String,
        /// What the system answered.
        source: io::Error,
    },
    /// Another program was asked and refused.
    #[error("could not {attempted}: {program} said: {output}")]
    Program {
        /// What was attempted.
        attempted: String,
        /// The program, with its arguments.
        program: String,
        /// The first line it printed.
        output: String,
    },
    /// A program is not installed.
    #[error("could not {attempted}: the program '{program}' is not installed; install it, or accept the traffic yourself: {hint}")]
    MissingProgram {
        /// What was attempted.
        attempted: String,
        /// The program.
        program: String,
        /// What an operator can do by hand.
        hint: String,
    },
}

impl HostError {
    /// A failed system call.
    pub fn io(attempted: impl Into<String>, source: io::Error) -> HostError {
        match source.kind() {
            io::ErrorKind::PermissionDenied => HostError::Permission { attempted: attempted.into() },
            _ => HostError::Io { attempted: attempted.into(), source },
        }
    }

    /// Something that is not attempted at all, and why.
    pub fn refused(attempted: impl Into<String>, reason: impl Into<String>) -> HostError {
        HostError::Netlink { attempted: attempted.into(), reason: reason.into(), errno: None }
    }

    /// A refused netlink request.
    pub fn netlink(attempted: impl Into<String>, error: rtnetlink::Error) -> HostError {
        let attempted = attempted.into();
        match error {
            rtnetlink::Error::NetlinkError(message) => match message.to_io() {
                e if e.kind() == io::ErrorKind::PermissionDenied => HostError::Permission { attempted },
                e => HostError::Netlink { attempted, reason: e.to_string(), errno: e.raw_os_error() },
            },
            other => HostError::Netlink { attempted, reason: other.to_string(), errno: None },
        }
    }

    /// The error number of the kernel's answer, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            HostError::Netlink { errno, .. } => *errno,
            HostError::Io { source, .. } => source.raw_os_error(),
            HostError::Permission { .. } => Some(libc::EPERM),
            HostError::NameTaken { .. } | HostError::BadName(_) | HostError::Program { .. } | HostError::MissingProgram { .. } => None,
        }
    }
}
