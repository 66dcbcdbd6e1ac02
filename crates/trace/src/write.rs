//! A trace as a folder: the record, a picture per step, the animation, the page.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    error::{TraceError, WriteProblem},
    picture::PictureRef,
    render::{animation, heatmap, html},
    schema::Record,
};

/// The files of a trace that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The folder they lie in.
    pub folder: PathBuf,
    /// `trace.json`, the record.
    pub record: PathBuf,
    /// `index.html`, one page that needs nothing beside it.
    pub page: PathBuf,
    /// `step-1.png` and on, one per step.
    pub steps: Vec<PathBuf>,
    /// `looks.gif`; `None` for a record without steps.
    pub animation: Option<PathBuf>,
}

/// Writes the whole trace into a folder, which is created if need be.
///
/// Everything is written under other names first, so that a disk that is full leaves an earlier trace in the folder as it
/// was. Then `trace.json` goes first and comes last: a folder that has it has everything that belongs to it. Pictures that
/// an earlier trace left there and this one does not replace are removed.
///
/// Fails with [`TraceError::Invalid`] for a record or picture that cannot be right, and with
/// [`TraceError::Write`] for a folder that cannot be written or a disk that is full.
pub fn write_folder(folder: &Path, record: &Record, picture: PictureRef) -> Result<Written, TraceError> {
    picture.check(record)?;
    let json = record.to_json()?;
    let page = html::page(record, picture)?;
    let Drawn { pictures, animation } = draw(record, picture)?;

    let names: Vec<String> = (0..pictures.len()).map(step_name).collect();
    let mut files: Vec<(&str, &[u8])> = Vec::new();
    files.extend(names.iter().zip(&pictures).map(|(name, png)| (&name[..], &png[..])));
    files.extend(animation.iter().map(|gif| (ANIMATION, &gif[..])));
    files.extend([(PAGE, page.as_bytes()), (RECORD, json.as_bytes())]);

    let new = !folder.exists();
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let written = replace(folder, &files, record.steps.len());
    if new && written.is_err() {
        // Only if it is empty; the error that led here is the one to tell.
        drop(fs::remove_dir(folder));
    }
    written?;
    Ok(Written {
        folder: folder.to_owned(),
        record: folder.join(RECORD),
        page: folder.join(PAGE),
        steps: names.iter().map(|name| folder.join(name)).collect(),
        animation: animation.map(|_| folder.join(ANIMATION)),
    })
}

/// Puts the files in place of an earlier trace's; the last of them is the record.
///
/// Not flushed to the disk: a trace can be made again, and a flush would cost more than the answer.
fn replace(folder: &Path, files: &[(&str, &[u8])], steps: usize) -> Result<(), TraceError> {
    let aside = tempfile::Builder::new().prefix(".trace-").tempdir_in(folder).map_err(failed(folder))?;
    for (name, bytes) in files {
        fs::write(aside.path().join(name), bytes).map_err(failed(&folder.join(name)))?;
    }
    // From here on until the new record is in place the folder is not whole, and says so.
    remove(&folder.join(RECORD))?;
    remove_leftovers(folder, steps)?;
    for (name, _) in files {
        let path = folder.join(name);
        fs::rename(aside.path().join(name), &path).map_err(failed(&path))?;
    }
    Ok(())
}

struct Drawn {
    pictures: Vec<Vec<u8>>,
    animation: Option<Vec<u8>>,
}

/// Draws the animation beside everything else: choosing its colours takes longer than all the pictures.
fn draw(record: &Record, picture: PictureRef) -> Result<Drawn, TraceError> {
    std::thread::scope(|scope| {
        let animation = scope.spawn(|| animation::gif(record, picture));
        let pictures = heatmap::pngs(record, picture);
        let animation = animation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok(Drawn { pictures: pictures?, animation: animation? })
    })
}

const ANIMATION: &str = "looks.gif";
const PAGE: &str = "index.html";
const RECORD: &str = "trace.json";

/// File name of a step's picture: people count from 1.
fn step_name(step: usize) -> String {
    format!("step-{}.png", step + 1)
}

/// Removes the step pictures and the animation that a longer, earlier trace left in the folder.
fn remove_leftovers(folder: &Path, steps: usize) -> Result<(), TraceError> {
    let mut leftovers: Vec<PathBuf> =
        (steps..).map(|step| folder.join(step_name(step))).take_while(|path| path.exists()).collect();
    if steps == 0 {
        leftovers.push(folder.join(ANIMATION));
    }
    leftovers.iter().try_for_each(|path| remove(path))
}

/// Removes a file if it is there.
fn remove(path: &Path) -> Result<(), TraceError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path)(error)),
        _ => Ok(()),
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> TraceError {
    let path = path.to_owned();
    move |source| TraceError::Write { path, problem: WriteProblem::of(&source), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    fn picture<'a>(record: &Record, rgb: &'a [u8]) -> PictureRef<'a> {
        PictureRef { width: record.input.width, height: record.input.height, rgb }
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_trace_is_a_folder_with_these_files_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let (record, rgb) = example::wide();
        let written = write_folder(&folder.path().join("new"), &record, picture(&record, &rgb)).unwrap();
        assert_eq!(
            names(&written.folder),
            ["index.html", "looks.gif", "step-1.png", "step-2.png", "step-3.png", "trace.json"]
        );
        let json = fs::read_to_string(&written.record).unwrap();
        assert_eq!(Record::from_json(&json).unwrap(), record);
    }

    #[test]
    fn a_shorter_trace_leaves_nothing_of_a_longer_one_before_it() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        for (record, rgb) in [example::wide(), example::without_steps()] {
            write_folder(folder.path(), &record, picture(&record, &rgb)).unwrap();
        }
        assert_eq!(names(folder.path()), ["index.html", "notes.txt", "trace.json"]);
    }

    #[test]
    fn a_trace_that_cannot_be_written_leaves_the_earlier_one() {
        let folder = tempfile::tempdir().unwrap();
        let (record, rgb) = example::wide();
        write_folder(folder.path(), &record, picture(&record, &rgb)).unwrap();
        let before = names(folder.path());
        let long = "x".repeat(300); // no file system takes this name, as a full one takes none
        let files: [(&str, &[u8]); 3] = [("step-1.png", b"new"), (&long, b""), (RECORD, b"new")];
        assert!(replace(folder.path(), &files, 1).is_err());
        assert_eq!(names(folder.path()), before);
        let json = fs::read_to_string(folder.path().join(RECORD)).unwrap();
        assert_eq!(Record::from_json(&json).unwrap(), record);
    }

    #[test]
    fn a_wrong_record_leaves_no_folder_behind() {
        let folder = tempfile::tempdir().unwrap();
        let (mut record, rgb) = example::wide();
        record.steps[1].weights[0] = f32::NAN;
        let target = folder.path().join("new");
        assert!(write_folder(&target, &record, picture(&record, &rgb)).is_err());
        assert!(!target.exists());
    }

    #[test]
    fn a_file_in_place_of_the_folder_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("answer");
        fs::write(&target, "mine").unwrap();
        let (record, rgb) = example::wide();
        let error = write_folder(&target, &record, picture(&record, &rgb)).unwrap_err().to_string();
        insta::assert_snapshot!(error.replace(&folder.path().display().to_string(), "FOLDER"));
        assert_eq!(fs::read_to_string(&target).unwrap(), "mine");
    }

    #[test]
    fn every_problem_of_the_disk_has_its_own_way_out() {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem, StorageFull, TimedOut};
        let texts = [PermissionDenied, ReadOnlyFilesystem, StorageFull, TimedOut]
            .map(|kind| failed(Path::new("out/trace.json"))(kind.into()).to_string());
        insta::assert_snapshot!(texts.join("\n\n"));
    }
}
