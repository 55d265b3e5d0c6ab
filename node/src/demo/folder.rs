//! Decides where a demo keeps what it needs while it runs: a folder among the system's temporary ones, removed at the
//! end. What a demo has left that was killed, the next one removes.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::getuid;
use tempfile::TempDir;

/// How the folder's name begins.
const PREFIX: &str = "turnwise-demo-";
/// The file in it that is locked as long as its demo runs.
const LOCK: &str = "lock";

/// The folder. Removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder {
    folder: TempDir,
    _lock: File,
}

impl Folder {
    /// A new one, the leftovers of others removed.
    pub(crate) fn make() -> io::Result<Self> {
        Self::make_in(&std::env::temp_dir())
    }

    fn make_in(parent: &Path) -> io::Result<Self> {
        sweep(parent);
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent)?;
        // Locked before it has its name: a folder with a lock that can be had is one whose demo is gone.
        let (new, name) = (folder.path().join("new"), folder.path().join(LOCK));
        let lock = File::create_new(&new)?;
        lock.lock()?;
        fs::rename(new, name)?;
        Ok(Self { folder, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Remove it.
    pub(crate) fn remove(self) -> io::Result<()> {
        self.folder.close()
    }
}

/// Remove the folders of demos that were killed. What cannot be removed is left where it is.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX)
            && entry.metadata().is_ok_and(|it| it.is_dir() && it.uid() == getuid().as_raw());
        if is_ours && is_left(&entry.path()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_left(folder: &Path) -> bool {
    File::open(folder.join(LOCK)).is_ok_and(|lock| lock.try_lock().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_demo_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let at = |name: &str| parent.path().join(name);
        let running = Folder::make_in(parent.path()).unwrap();
        // As after a kill: the folder is there, the lock is not held.
        fs::create_dir(at("turnwise-demo-killed")).unwrap();
        fs::write(at("turnwise-demo-killed/lock"), "").unwrap();
        fs::write(at("turnwise-demo-killed/demo.db"), "").unwrap();
        // One that has just begun, and strangers.
        fs::create_dir(at("turnwise-demo-begun")).unwrap();
        fs::create_dir(at("another")).unwrap();
        fs::write(at("another/lock"), "").unwrap();
        std::os::unix::fs::symlink(at("another"), at("turnwise-demo-link")).unwrap();

        let other = Folder::make_in(parent.path()).unwrap();
        assert!(!at("turnwise-demo-killed").exists());
        assert!(running.path().exists());
        assert!(at("turnwise-demo-begun").exists());
        assert!(at("another/lock").exists());

        let path = other.path().to_owned();
        other.remove().unwrap();
        assert!(!path.exists());
    }
}
