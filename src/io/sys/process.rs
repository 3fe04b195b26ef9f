//! Child processes that never outlive their parent.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use super::check;

/// Has the kernel send `signal` to this process when the thread that started it ends.
pub fn pdeathsig(signal: i32) -> io::Result<()> {
    let signal = libc::c_ulong::try_from(signal).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: this option of prctl takes an integer only.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal) })?;
    Ok(())
}

/// Lets `command`'s process be killed when the calling thread ends, however it ends.
pub fn die_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: between fork and exec the closure makes one system call, which is async-signal-safe; its error is built without allocation.
    unsafe { command.pre_exec(|| check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong)).map(drop)) }
}

/// Sends `signal` to one process; 0 asks only whether it exists.
pub fn kill(pid: u32, signal: i32) -> io::Result<()> {
    // Zero and negative numbers would mean groups of processes.
    let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).ok_or(io::ErrorKind::InvalidInput)?;
    // SAFETY: kill takes integers only.
    check(unsafe { libc::kill(pid, signal) })?;
    Ok(())
}

/// Lets this process have `wanted` files and sockets open, or as many as it may; answers with how many. Never lowers it.
pub fn allow_open_files(wanted: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a rlimit that lives through the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) })?;
    let target = wanted.min(limit.rlim_max);
    if target > limit.rlim_cur {
        let raised = libc::rlimit { rlim_cur: target, ..limit };
        // SAFETY: the pointer is to a rlimit that lives through the call; the kernel only reads it.
        check(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const raised) })?;
        return Ok(target);
    }
    Ok(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    use super::*;

    #[test]
    fn a_child_goes_with_the_thread_that_started_it() {
        let parent = std::thread::spawn(|| {
            let mut command = Command::new("cat");
            let child = die_with_parent(&mut command).stdin(Stdio::piped()).spawn().expect("a child");
            kill(child.id(), 0).expect("it lives");
            child
        });
        // `cat` would wait for ever: its standard input stays open until it has ended.
        let mut child = parent.join().expect("a thread");
        let stdin = child.stdin.take();
        assert_eq!(child.wait().expect("its end").signal(), Some(libc::SIGKILL));
        drop(stdin);
    }

    #[test]
    fn a_signal_goes_to_one_process_only() {
        for pid in [0, u32::MAX] {
            assert_eq!(kill(pid, 0).map_err(|error| error.kind()), Err(io::ErrorKind::InvalidInput));
        }
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().expect("a child");
        let stdin = child.stdin.take();
        kill(child.id(), libc::SIGTERM).expect("sent");
        assert_eq!(child.wait().expect("its end").signal(), Some(libc::SIGTERM));
        drop(stdin);
    }

    #[test]
    fn the_limit_of_open_files_is_never_lowered() {
        let now = allow_open_files(0).expect("a limit");
        assert_eq!(allow_open_files(1).ok(), Some(now));
        let more = allow_open_files(now + 1).expect("a limit");
        assert!(more == now || more == now + 1, "{more} of {now}");
    }
}
