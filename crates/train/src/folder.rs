//! A run's folder: one process at a time writes into it, and no run is written over another.

use crate::checkpoint::checkpoints;
use crate::{Error, Result};
use std::fs::{self, DirEntry, File, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Locked by the process that writes into the folder. The system takes the lock back however the process ends.
const LOCK: &str = ".lock";

/// The right to write into a run's folder, until dropped.
pub struct RunFolder {
    path: PathBuf,
    created: bool,
    _lock: Option<File>,
}

impl RunFolder {
    /// Takes a folder for a run: a new or empty one, one that a start left which came to nothing, or, to `resume`, one
    /// that is there.
    ///
    /// # Errors
    /// [`Error::Busy`] while another process has it, [`Error::Taken`] and [`Error::NoRun`] where `resume` does not fit
    /// what is in it, [`Error::File`] where it cannot be written.
    pub fn claim(path: &Path, resume: bool) -> Result<Self> {
        // A run that goes on is named as such, and not as files that are in the way.
        let held = if path.join(LOCK).exists() { lock(path)? } else { None };
        if resume && !path.is_dir() {
            return Err(Error::NoRun { path: path.into() });
        }
        if let Some(got) = in_the_way(path).filter(|_| !resume) {
            return Err(Error::Taken { path: path.into(), got });
        }
        let created = !path.exists();
        fs::create_dir_all(path).map_err(|e| Error::file("write", path, &e))?;
        let held = if held.is_some() { held } else { lock(path)? };
        Ok(Self { path: path.into(), created, _lock: held })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for RunFolder {
    /// A start that came to nothing leaves nothing behind.
    fn drop(&mut self) {
        let lock = self.path.join(LOCK);
        if entries(&self.path).iter().all(|entry| entry.path() == lock) {
            drop(fs::remove_file(lock));
            if self.created {
                drop(fs::remove_dir(&self.path));
            }
        }
    }
}

/// `None` where the file system has no locks: a run is worth more than its lock.
fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let failed = |error: &std::io::Error| Error::file("write", &path, error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| failed(&e))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { path: folder.into(), lock: path }),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

/// What keeps a new run out of a folder.
fn in_the_way(folder: &Path) -> Option<String> {
    let entries = entries(folder);
    if let Some((step, _)) = checkpoints(folder).last() {
        return Some(format!("a run with a checkpoint at step {step}"));
    }
    // The lock tells our own leftovers from files of the same names that somebody else put there.
    let ours = folder.join(LOCK).exists();
    if entries.iter().all(|entry| ours && is_leftover(entry)) {
        return None;
    }
    let begun = folder.join("metrics.jsonl").exists();
    Some(if begun { "a run without a checkpoint" } else { "a folder with files in it" }.to_owned())
}

/// What a start makes before its first step. Metrics with a line in them are the work of a step.
fn is_leftover(entry: &DirEntry) -> bool {
    match entry.file_name().to_string_lossy().as_ref() {
        LOCK | "config.toml" | "dropped.jsonl" | "events" => true,
        "metrics.jsonl" => entry.metadata().is_ok_and(|found| found.len() == 0),
        name => name.starts_with('.') && name.ends_with(".partial"),
    }
}

fn entries(folder: &Path) -> Vec<DirEntry> {
    fs::read_dir(folder).into_iter().flatten().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_held_by_one_at_a_time() {
        let place = tempfile::tempdir().unwrap();
        let held = RunFolder::claim(place.path(), false).unwrap();
        for resume in [false, true] {
            let error = RunFolder::claim(place.path(), resume).err().unwrap();
            assert!(matches!(error, Error::Busy { .. }), "{error}");
            assert!(error.to_string().contains(&place.path().display().to_string()), "{error}");
        }
        drop(held);
        assert!(RunFolder::claim(place.path(), false).is_ok());
    }

    #[test]
    fn what_a_failed_start_leaves_is_not_in_the_way_and_anything_else_is() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("run");
        drop(RunFolder::claim(&folder, false).unwrap());
        assert!(!folder.exists(), "nothing was begun");
        let claim = |folder: &Path| RunFolder::claim(folder, false).map(drop);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("config.toml"), "").unwrap();
        assert!(matches!(claim(&folder), Err(Error::Taken { .. })), "somebody's own file");
        for name in [LOCK, "metrics.jsonl", ".checkpoint-0.partial"] {
            fs::write(folder.join(name), "").unwrap();
        }
        assert!(claim(&folder).is_ok());
        fs::write(folder.join("metrics.jsonl"), "{}\n").unwrap();
        let error = claim(&folder).unwrap_err().to_string();
        assert!(error.contains("a run without a checkpoint"), "{error}");
    }
}
