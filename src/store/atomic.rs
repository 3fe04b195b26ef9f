//! Files that change whole or not at all, also when the power fails.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Replaces `dir/name`, mode 0600: when this returns, the content is on disk.
pub(super) fn write(dir: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let unfinished = unfinished(dir, name);
    clear(dir, name)?;
    let written = (|| {
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&unfinished, dir.join(name))?;
        File::open(dir)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&unfinished);
    }
    written
}

/// Removes what a write of `dir/name` that was killed has left.
pub(super) fn clear(dir: &Path, name: &str) -> io::Result<()> {
    match fs::remove_file(unfinished(dir, name)) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// One writer at a time holds the directory's lock, so one name for unfinished files is enough.
fn unfinished(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!(".{name}.unfinished"))
}
