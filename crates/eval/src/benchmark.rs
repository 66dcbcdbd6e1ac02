//! Benchmarks that others use, in their own files.
//!
//! [`open`] takes a file or a folder. Which [`Layout`] it has follows from its columns, never from its name; where each
//! layout's facts come from stands in its module. Everything but the pixels is checked when a benchmark is opened: columns,
//! answers, options, and that a picture is where it should be. Pictures are decoded when they are asked for, with the limits
//! of [`lare_data::image`], and the last one is kept, because questions on one picture follow each other.
//!
//! What cannot be asked is counted by reason ([`LeftOut`]) and never silently dropped.
//!
//! ```no_run
//! let benchmark = lare_eval::benchmark::open("MMBench_DEV_EN.tsv".as_ref())?.circular()?.first(100);
//! # Ok::<(), lare_eval::Error>(())
//! ```

mod base64;
mod circular;
#[cfg(feature = "parquet")]
mod columnar;
mod delimited;
mod files;
mod layout;
mod mmbench;
mod mmmu_pro;
mod mmstar;
mod mmvp;
mod options;
mod pope;
mod prompt;
mod python;
mod question;
mod scienceqa;
mod table;
#[cfg(test)]
mod tests;
mod vlmevalkit;

pub use layout::Layout;
pub use question::LeftOut;

use crate::error::{Error, Result, Unusable};
use crate::grade::Expected;
use crate::item::{Item, Origin, Source};
use circular::Group;
use delimited::Delimited;
use files::Found;
use lare_data::{Picture, image};
use question::{Answer, Place, Question};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use table::Table;

/// Most questions whose thoughts are borrowed, of all tasks together: their pictures are in memory at once.
const OTHERS: usize = 64;
/// Fewest and most of one task; of one alone, a question could only borrow from itself.
const OTHERS_OF_A_TASK: (usize, usize) = (2, 16);

/// The questions of a benchmark, with their pictures on request.
pub struct Benchmark {
    layout: Layout,
    table: Box<dyn Table>,
    sha256: Vec<String>,
    groups: Vec<Group>,
    left_out: BTreeMap<LeftOut, usize>,
    circular: bool,
    /// How many questions are asked, of all.
    limit: usize,
    /// The items: a question and the order of its options.
    items: Vec<(usize, usize)>,
    last: RefCell<Option<(Place, Arc<Picture>)>>,
}

/// Opens a benchmark: a TSV, CSV or parquet file, or a folder with one TSV or CSV file or with parquet files.
///
/// # Errors
/// [`Error::File`]; [`Error::Benchmark`] where the files have no layout that is read, where a row does not hold what its
/// layout asks for, and where nothing is left to ask.
pub fn open(path: &Path) -> Result<Benchmark> {
    let table: Box<dyn Table> = match files::find(path)? {
        Found::Delimited(file) => Box::new(Delimited::open(&file)?),
        Found::Parquet(files) => columnar(files)?,
    };
    let layout = Layout::of(&*table)?;
    let found = layout.read(&*table)?;
    let file = table.files().first().map_or(path, PathBuf::as_path);
    if found.asked.is_empty() {
        return Err(nothing_left(file, &found.left_out));
    }
    once(file, &found.asked)?;
    let mut sha256 = table.files().iter().map(|file| files::sha256(file)).collect::<Result<Vec<_>>>()?;
    let pictures = found.asked.iter().filter_map(|question| match &question.picture {
        Place::File(path) => Some(path.as_path()),
        Place::Cell(..) => None,
    });
    if pictures.clone().next().is_some() {
        sha256.push(files::sha256_of_all(pictures)?);
    }
    let groups = circular::groups(found.asked);
    let repeated: usize = groups.iter().map(|group| group.others.len()).sum();
    let mut left_out = found.left_out;
    if repeated > 0 {
        left_out.insert(LeftOut::OtherOrder, repeated);
    }
    let (limit, last) = (groups.len(), RefCell::default());
    let benchmark =
        Benchmark { layout, table, sha256, groups, left_out, circular: false, limit, items: Vec::new(), last };
    Ok(benchmark.laid_out())
}

#[cfg(feature = "parquet")]
fn columnar(files: Vec<PathBuf>) -> Result<Box<dyn Table>> {
    Ok(Box::new(columnar::Files::open(files)?))
}

#[cfg(not(feature = "parquet"))]
fn columnar(files: Vec<PathBuf>) -> Result<Box<dyn Table>> {
    Err(Unusable {
        what: "parquet files are not read by this program".to_owned(),
        place: files.first().map_or(String::new(), |file| file.display().to_string()),
        expected: "a TSV or CSV file, or a program built with the feature `parquet`".to_owned(),
        got: "a parquet file".to_owned(),
        hint: "build with `--features parquet`, or convert the file to VLMEvalKit's TSV".to_owned(),
    }
    .into())
}

impl Benchmark {
    /// The same with every question in every order of its options, as items `.../r0`, `.../r1`, ...: orders that the file
    /// itself has, else all rotations.
    ///
    /// # Errors
    /// Where no question has another order: options in the text or the picture, or none.
    pub fn circular(mut self) -> Result<Self> {
        if self.groups.iter().all(|group| group.orders() == 1) {
            return Err(Unusable {
                what: "nothing can be asked in circular evaluation".to_owned(),
                place: self.file().display().to_string(),
                expected: "options that stand in columns or lists of their own".to_owned(),
                got: format!("the layout {}, whose options cannot change their order here", self.layout),
                hint: "leave out `--circular`".to_owned(),
            }
            .into());
        }
        self.circular = true;
        self.left_out.remove(&LeftOut::OtherOrder);
        Ok(self.laid_out())
    }

    /// The same with at most the first `questions`, each in all of its orders.
    #[must_use]
    pub fn first(mut self, questions: usize) -> Self {
        self.limit = questions.min(self.groups.len());
        self.laid_out()
    }

    /// Its layout.
    #[must_use]
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// How many rows are not asked, by reason.
    #[must_use]
    pub fn left_out(&self) -> &BTreeMap<LeftOut, usize> {
        &self.left_out
    }

    fn laid_out(mut self) -> Self {
        let asked = self.groups[..self.limit].iter().enumerate();
        let orders = |group: &Group| if self.circular { group.orders() } else { 1 };
        self.items = asked.flat_map(|(place, group)| (0..orders(group)).map(move |order| (place, order))).collect();
        self
    }

    fn file(&self) -> &Path {
        self.table.files().first().map_or(Path::new(""), PathBuf::as_path)
    }

    /// A question in one order of its options, as an item.
    fn asked(&self, group: &Group, order: usize) -> Result<Item> {
        let question = group.order(order);
        let turn = if self.circular { format!("/r{order}") } else { String::new() };
        Ok(Item {
            id: format!("{}/{}{turn}", self.layout, group.first.id),
            task: group.first.task.clone(),
            looks: None,
            picture: self.picture(&question.picture)?,
            prompt: prompt::prompt(&question),
            expected: expected(question),
            rationale: None,
        })
    }

    fn picture(&self, place: &Place) -> Result<Arc<Picture>> {
        if let Some((_, picture)) = self.last.borrow().as_ref().filter(|(last, _)| last == place) {
            return Ok(picture.clone());
        }
        let picture = Arc::new(match place {
            Place::File(path) => image::open(path)?,
            Place::Cell(spot, column) => {
                let bytes = self.table.picture(*spot, column)?;
                let file = self.table.files().get(spot.file).map_or(Path::new(""), PathBuf::as_path);
                image::decode(&bytes, &table::place(file, spot.row))?
            }
        });
        *self.last.borrow_mut() = Some((place.clone(), picture.clone()));
        Ok(picture)
    }
}

impl Source for Benchmark {
    fn count(&self) -> usize {
        self.items.len()
    }

    fn item(&self, index: usize) -> Result<Item> {
        let (place, order) = self.items[index];
        self.asked(&self.groups[place], order)
    }

    fn origin(&self) -> Origin {
        Origin::Benchmark {
            layout: self.layout,
            sha256: self.sha256.clone(),
            circular: self.circular,
            items: self.items.len(),
            left_out: self.left_out.clone(),
        }
    }

    /// Questions of the benchmark itself, since it has no other split: those that are not asked, where a limit leaves some,
    /// then those that are.
    fn others(&self) -> Result<Vec<Item>> {
        let mut of_task: HashMap<&str, Vec<usize>> = HashMap::new();
        for group in &self.groups[..self.limit] {
            of_task.entry(&group.first.task).or_default();
        }
        let (least, most) = OTHERS_OF_A_TASK;
        let each = (OTHERS / of_task.len().max(1)).clamp(least, most);
        for place in (self.limit..self.groups.len()).chain(0..self.limit) {
            let chosen = of_task.get_mut(self.groups[place].first.task.as_str());
            if let Some(chosen) = chosen.filter(|chosen| chosen.len() < each) {
                chosen.push(place);
            }
        }
        // The first of every task before the second of any.
        let mut chosen: Vec<(usize, usize)> =
            of_task.into_values().flat_map(|places| places.into_iter().enumerate()).collect();
        chosen.sort_unstable();
        chosen.truncate(OTHERS);
        // In the order of the file, where pictures are read fastest.
        let mut all: Vec<usize> = chosen.into_iter().map(|(_, place)| place).collect();
        all.sort_unstable();
        all.into_iter().map(|place| self.asked(&self.groups[place], 0)).collect()
    }
}

fn expected(question: Question) -> Expected {
    match question.answer {
        Answer::Option { texts, right, .. } => Expected::Option { texts, right },
        Answer::YesNo(yes) => Expected::YesNo { yes },
    }
}

/// Refuses two questions of one name: their results could not be told apart.
fn once(file: &Path, questions: &[Question]) -> Result<()> {
    let mut seen: HashMap<&str, usize> = HashMap::with_capacity(questions.len());
    for question in questions {
        if let Some(earlier) = seen.insert(&question.id, question.number) {
            return Err(Unusable {
                what: "two rows have the same name".to_owned(),
                place: file.display().to_string(),
                expected: "a name for each row that no other row has".to_owned(),
                got: format!("`{}` in rows {} and {}", question.id, earlier + 1, question.number + 1),
                hint: "number the rows anew in a copy of the file".to_owned(),
            }
            .into());
        }
    }
    Ok(())
}

fn nothing_left(file: &Path, left_out: &BTreeMap<LeftOut, usize>) -> Error {
    let reasons: Vec<String> = left_out.iter().map(|(reason, count)| format!("{count} {}", reason.says())).collect();
    Unusable {
        what: "no row of the benchmark can be asked".to_owned(),
        place: file.display().to_string(),
        expected: "rows with one picture, a question and its answer".to_owned(),
        got: if reasons.is_empty() { "no rows".to_owned() } else { format!("rows: {}", reasons.join("; ")) },
        hint: "take the part of the benchmark whose answers are published, such as its dev or val split".to_owned(),
    }
    .into()
}
