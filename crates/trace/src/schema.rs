//! The record of one answer: what went in, where the model looked at every step, what came out.
//!
//! One JSON object, written by [`Record::to_json`] and read by [`Record::from_json`]. Reading is strict:
//! another schema version, an unknown field, or a value that cannot be true (weights that do not sum
//! to 1, a patch outside the grid) is refused with the field, the expectation and the value. A record
//! that was read is therefore always safe to draw.
//!
//! The record holds everything needed to redo its answer: the program's version, the hashes of configuration,
//! weights and picture, the question, the seed and the options. `docs/trace-format.md` describes it field by field.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

use crate::error::{Invalid, TraceError};

/// The version this code writes, and the only one it reads.
///
/// Any change to the fields below, or to their meaning, takes the next number.
pub const SCHEMA: u32 = 2;

/// More patches than any first look has: keeps sizes computed from a record within bounds.
pub const MOST_CELLS: usize = 1 << 24;

/// How far the weights of a step may sum from 1: `f32` softmax over a few thousand patches stays well inside.
pub const SUM_TOLERANCE: f64 = 1e-3;

/// Everything one answer leaves behind.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// The format's version: [`SCHEMA`].
    pub schema: u32,
    /// The program that answered, with its version.
    pub program: String,
    /// Which model answered.
    pub model: ModelInfo,
    /// What it was asked.
    pub input: InputInfo,
    /// How the patches lie on the picture.
    pub grid: Grid,
    /// One entry per latent step, in order; empty for the plain model (`K = 0`).
    pub steps: Vec<StepRecord>,
    /// The text the model answered.
    pub answer: String,
    /// What the answer cost, in tokens and positions.
    pub usage: Usage,
    /// What the answer cost, in time.
    pub timing_ms: Timing,
}

/// The identity of a model: two records with equal hashes come from the same function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelInfo {
    /// The name people use for it.
    pub name: String,
    /// SHA-256 of the resolved configuration, in hexadecimal.
    pub config_hash: String,
    /// SHA-256 of the weights file, in hexadecimal.
    pub weights_hash: String,
}

/// The question as it was asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputInfo {
    /// SHA-256 of the picture file, in hexadecimal.
    pub picture_hash: String,
    /// Width of the original picture, in pixels, after orientation.
    pub width: u32,
    /// Height of the original picture, in pixels, after orientation.
    pub height: u32,
    /// The question, word for word.
    pub question: String,
    /// Seed of whatever was drawn at random on the way to the answer.
    pub seed: u64,
    /// How it was to be answered.
    pub options: OptionsInfo,
}

/// What decides an answer besides the model, the picture, the question and the seed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionsInfo {
    /// Latent steps asked for; without it the halting head decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// The halting probability at which it stopped thinking, unless steps were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub halt_threshold: Option<f32>,
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Tokens are drawn among the most likely that together have this probability.
    pub top_p: f32,
    /// Most tokens of the answer.
    pub max_tokens: usize,
}

/// The patches of the first look as they lie on the original picture, row by row from the top left.
///
/// The grid starts at the picture's top-left corner. It may end past the right or bottom edge, because
/// a model pads a picture to a whole number of cells; what lies there is padding, not picture.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Cells from top to bottom.
    pub rows: usize,
    /// Cells from left to right.
    pub cols: usize,
    /// Width of a cell, in pixels of the original picture.
    pub cell_px_x: f32,
    /// Height of a cell, in pixels of the original picture.
    pub cell_px_y: f32,
    /// Fine features a second look finds under one cell; 1 when it sees no more than the first.
    pub fine_per_cell: usize,
}

/// One latent step: where the model looked and what became of its thought.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepRecord {
    /// The step's place in the chain, from 0.
    pub index: usize,
    /// `[rows * cols]`, attention over the patches, row by row; not negative, sums to 1.
    pub weights: Vec<f32>,
    /// The patches looked at again, best first, as indices into `weights`.
    pub selected: Vec<usize>,
    /// The words that the thought names when the head that training used asks it, one for each slot, with
    /// probabilities; empty for a model without that head.
    pub named_words: Vec<Word>,
    /// The vocabulary entries nearest to the latent, nearest first.
    pub nearest_words: Vec<Word>,
    /// Mean of the fusion gate: 0 keeps the decoder's hidden state, 1 takes the LQ-Former's output, which starts from that
    /// state too: no measure of how much comes from the picture.
    pub gate_mean: f32,
    /// The halting head's probability that this step is the last.
    pub halt_probability: f32,
    /// Euclidean norm of the latent that was fed back.
    pub latent_norm: f32,
    /// Time of the step, in milliseconds.
    pub time_ms: f64,
    /// Where the step should have looked, when the data says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<Region>,
    /// A picture sampled back from the thought, when the model can draw one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thought_picture: Option<SmallPicture>,
}

/// A vocabulary entry and how near the latent is to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Word {
    /// The entry's text.
    pub text: String,
    /// The model's score of it; larger is nearer.
    pub score: f32,
}

/// A rectangle on the original picture, in pixels; `x` and `y` are its top-left corner.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Region {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Extent to the right.
    pub width: f32,
    /// Extent downwards.
    pub height: f32,
}

/// A picture small enough to live inside the record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmallPicture {
    /// Width, in pixels.
    pub width: u32,
    /// Height, in pixels.
    pub height: u32,
    /// `width * height` pixels, row by row, three bytes each; base64 in JSON.
    #[serde(with = "base64_bytes")]
    pub rgb: Vec<u8>,
}

/// Tokens and positions an answer used, under the names every report of this project uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Usage {
    /// Text tokens generated.
    pub text_tokens: usize,
    /// Latent steps taken; one entry of [`Record::steps`] each.
    pub latent_steps: usize,
    /// Entries of the visual memory read while refocusing, over all steps.
    pub refocused_visual_tokens: usize,
    /// Visual tokens appended to the context after the prompt (cropping and splicing methods).
    pub appended_visual_tokens: usize,
    /// Every position the language model computed, prompt included.
    pub processed_positions: usize,
}

/// Where the time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Decoding and resizing the picture, tokenising the question.
    pub prepare: f64,
    /// The vision encoder and the projector.
    pub encode: f64,
    /// The language model over the prompt.
    pub prefill: f64,
    /// All latent steps.
    pub think: f64,
    /// Decoding the answer.
    pub answer: f64,
    /// From request to last token; at least the sum of the above.
    pub total: f64,
}

impl Record {
    /// Writes the record as indented JSON.
    ///
    /// Fails with [`TraceError::Invalid`] rather than write a record that could not be read back.
    pub fn to_json(&self) -> Result<String, TraceError> {
        self.validate()?;
        serde_json::to_string_pretty(self).map_err(TraceError::Json)
    }

    /// Reads a record and checks it.
    ///
    /// Fails with [`TraceError::UnknownSchema`] for another version, [`TraceError::Json`] for a text that is
    /// no record at all, [`TraceError::Invalid`] for a value that cannot be true.
    pub fn from_json(json: &str) -> Result<Self, TraceError> {
        // The version is read alone and first: a later format would fail on some field otherwise,
        // and the message would name that field instead of the version.
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let Version { schema: got } = serde_json::from_str(json).map_err(TraceError::Json)?;
        if got != SCHEMA {
            return Err(TraceError::UnknownSchema { expected: SCHEMA, got });
        }
        let record: Self = serde_json::from_str(json).map_err(TraceError::Json)?;
        record.validate()?;
        Ok(record)
    }

    /// Checks counts, ranges, sums and indices; the first that cannot be is the error.
    pub fn validate(&self) -> Result<(), TraceError> {
        if self.schema != SCHEMA {
            return Err(TraceError::UnknownSchema { expected: SCHEMA, got: self.schema });
        }
        self.input.validate()?;
        self.grid.validate(&self.input)?;
        let read: usize = self.steps.iter().map(|step| step.selected.len()).sum();
        let read = read.saturating_mul(self.grid.fine_per_cell);
        // Read by the step itself, or appended to the context.
        let counted = self.usage.refocused_visual_tokens.saturating_add(self.usage.appended_visual_tokens);
        if read != counted {
            let field = "usage.refocused_visual_tokens";
            return Err(Invalid::new(field, format!("{read} with those appended, as the steps say"), counted)
                .hint("a selected patch counts grid.fine_per_cell entries")
                .into());
        }
        let (taken, recorded) = (self.usage.latent_steps, self.steps.len());
        if taken != recorded {
            return Err(Invalid::new("steps", format!("{taken} entries, as usage.latent_steps says"), recorded)
                .hint("record every latent step that was counted")
                .into());
        }
        for (place, step) in self.steps.iter().enumerate() {
            step.validate(place, &self.grid).map_err(|invalid| invalid.inside(&format!("steps[{place}]")))?;
        }
        self.timing_ms.validate()
    }
}

impl InputInfo {
    fn validate(&self) -> Result<(), Invalid> {
        for (field, pixels) in [("input.width", self.width), ("input.height", self.height)] {
            if pixels == 0 {
                return Err(Invalid::new(field, "at least 1 pixel", pixels)
                    .hint("record the size of the original picture, after orientation"));
            }
        }
        let options = &self.options;
        if let Some(threshold) = options.halt_threshold {
            probability("input.options.halt_threshold", threshold)?;
        }
        probability("input.options.top_p", options.top_p)?;
        not_negative("input.options.temperature", options.temperature.into(), FROM_THE_REQUEST)
    }
}

impl Grid {
    /// Number of cells, `P`.
    pub fn cells(&self) -> usize {
        self.rows * self.cols
    }

    /// The rectangle of a cell on the original picture, in pixels; it may end past the picture's edge.
    pub fn cell(&self, patch: usize) -> Region {
        let (row, col) = (patch / self.cols, patch % self.cols);
        Region {
            x: col as f32 * self.cell_px_x,
            y: row as f32 * self.cell_px_y,
            width: self.cell_px_x,
            height: self.cell_px_y,
        }
    }

    fn validate(&self, input: &InputInfo) -> Result<(), Invalid> {
        for (field, count) in [("rows", self.rows), ("cols", self.cols), ("fine_per_cell", self.fine_per_cell)] {
            if count == 0 {
                return Err(Invalid::new(format!("grid.{field}"), "at least 1", count)
                    .hint("record the grid the vision encoder used for this picture"));
            }
        }
        if self.rows.checked_mul(self.cols).is_none_or(|cells| cells > MOST_CELLS) {
            let got = format!("{} * {}", self.rows, self.cols);
            return Err(Invalid::new("grid", format!("rows * cols at most {MOST_CELLS}"), got)
                .hint("record the grid the vision encoder used for this picture"));
        }
        let axes = [
            ("grid.cell_px_x", self.cell_px_x, "cols", self.cols, "width", input.width),
            ("grid.cell_px_y", self.cell_px_y, "rows", self.rows, "height", input.height),
        ];
        for (field, cell_px, count_name, count, extent_name, extent_px) in axes {
            if !(cell_px.is_finite() && cell_px > 0.0) {
                return Err(Invalid::new(field, "a finite number above 0", cell_px)
                    .hint("a cell's size is in pixels of the original picture"));
            }
            // Half a cell of slack: resizing rounds. Rows taken for columns miss by far more.
            if (count as f32 + 0.5) * cell_px < extent_px as f32 {
                let expected = format!("{count_name} * cell to reach the picture's {extent_name}, {extent_px} px");
                let reached = format!("{count} * {cell_px} = {} px", count as f32 * cell_px);
                return Err(Invalid::new(field, expected, reached)
                    .hint("a cell's size is in pixels of the original picture, not of the resized one"));
            }
        }
        Ok(())
    }
}

impl StepRecord {
    fn validate(&self, place: usize, grid: &Grid) -> Result<(), Invalid> {
        if self.index != place {
            return Err(Invalid::new("index", place, self.index).hint("steps are stored in order, from 0"));
        }
        self.validate_weights(grid)?;
        self.validate_selected(grid)?;
        for (slot, word) in self.named_words.iter().enumerate() {
            probability(&format!("named_words[{slot}].score"), word.score)?;
        }
        for (rank, word) in self.nearest_words.iter().enumerate() {
            finite(&format!("nearest_words[{rank}].score"), word.score)?;
        }
        probability("gate_mean", self.gate_mean)?;
        probability("halt_probability", self.halt_probability)?;
        not_negative("latent_norm", self.latent_norm.into(), FROM_THE_MODEL)?;
        not_negative("time_ms", self.time_ms, FROM_THE_CLOCK)?;
        if let Some(region) = &self.region {
            region.validate()?;
        }
        self.thought_picture.as_ref().map_or(Ok(()), SmallPicture::validate)
    }

    fn validate_weights(&self, grid: &Grid) -> Result<(), Invalid> {
        let (expected, got) = (grid.cells(), self.weights.len());
        if got != expected {
            let expected = format!("{expected} values, {} rows * {} cols", grid.rows, grid.cols);
            return Err(Invalid::new("weights", expected, format!("{got} values"))
                .hint("record one weight for every cell of the grid, padding included"));
        }
        for (patch, &weight) in self.weights.iter().enumerate() {
            not_negative(&format!("weights[{patch}]"), weight.into(), FROM_THE_MODEL)?;
        }
        let sum: f64 = self.weights.iter().map(|&weight| f64::from(weight)).sum();
        if (sum - 1.0).abs() > SUM_TOLERANCE {
            return Err(Invalid::new("weights", format!("a sum of 1, within {SUM_TOLERANCE}"), format!("{sum:.6}"))
                .hint("record the weights after the softmax over the whole grid, before any selection"));
        }
        Ok(())
    }

    fn validate_selected(&self, grid: &Grid) -> Result<(), Invalid> {
        let cells = grid.cells();
        let mut listed = BTreeSet::new();
        for (rank, &patch) in self.selected.iter().enumerate() {
            let field = format!("selected[{rank}]");
            if patch >= cells {
                return Err(Invalid::new(field, format!("a patch below {cells}"), patch)
                    .hint("selected patches are indices into weights, on the grid of the first look"));
            }
            if !listed.insert(patch) {
                return Err(
                    Invalid::new(field, "a patch not listed before", patch).hint("list a patch once, at its best rank")
                );
            }
        }
        Ok(())
    }
}

impl Region {
    fn validate(&self) -> Result<(), Invalid> {
        finite("region.x", self.x)?;
        finite("region.y", self.y)?;
        for (field, extent_px) in [("region.width", self.width), ("region.height", self.height)] {
            if !(extent_px.is_finite() && extent_px > 0.0) {
                return Err(Invalid::new(field, "a finite number above 0", extent_px)
                    .hint("a region is x, y, width, height in pixels, not two corners"));
            }
        }
        Ok(())
    }
}

impl SmallPicture {
    fn validate(&self) -> Result<(), Invalid> {
        let expected = u128::from(self.width) * u128::from(self.height) * 3;
        if expected == 0 || self.rgb.len() as u128 != expected {
            let rule = format!("{} * {} * 3 = {expected} bytes, at least 3", self.width, self.height);
            return Err(Invalid::new("thought_picture.rgb", rule, format!("{} bytes", self.rgb.len()))
                .hint("three bytes a pixel, row by row, no alpha"));
        }
        Ok(())
    }
}

impl Timing {
    fn validate(&self) -> Result<(), TraceError> {
        let spans = [
            ("prepare", self.prepare),
            ("encode", self.encode),
            ("prefill", self.prefill),
            ("think", self.think),
            ("answer", self.answer),
            ("total", self.total),
        ];
        for (span, ms) in spans {
            not_negative(span, ms, FROM_THE_CLOCK).map_err(|invalid| invalid.inside("timing_ms"))?;
        }
        let [parts @ .., (_, total)] = spans;
        let sum: f64 = parts.iter().map(|(_, ms)| ms).sum();
        // Sums of measured spans round.
        if sum > total * (1.0 + 1e-6) + 1e-6 {
            return Err(Invalid::new("timing_ms.total", format!("at least the sum of the others, {sum}"), total)
                .hint(FROM_THE_CLOCK)
                .into());
        }
        Ok(())
    }
}

const FROM_THE_MODEL: &str = "the model computed it: look for NaN or infinity in its weights";
const FROM_THE_REQUEST: &str = "record the options as the request gave them";
const FROM_THE_CLOCK: &str = "durations come from a monotonic clock and are in milliseconds";

fn finite(field: &str, value: f32) -> Result<(), Invalid> {
    if value.is_finite() {
        return Ok(());
    }
    Err(Invalid::new(field, "a finite number", value).hint(FROM_THE_MODEL))
}

fn not_negative(field: &str, value: f64, hint: &'static str) -> Result<(), Invalid> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(Invalid::new(field, "a finite number, 0 or more", value).hint(hint))
}

fn probability(field: &str, value: f32) -> Result<(), Invalid> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(field, "a number from 0 to 1", value).hint("record it after the sigmoid, not before"))
}

/// Bytes as a base64 string: a tenth of the size of a JSON array with one number a line.
mod base64_bytes {
    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::example;

    /// The error of a record that was right until `spoil` changed it.
    fn spoilt(spoil: impl FnOnce(&mut Record)) -> String {
        let (mut record, _) = example::square();
        spoil(&mut record);
        record.validate().unwrap_err().to_string()
    }

    #[test]
    fn a_record_survives_being_written_and_read() {
        for (record, _) in [example::wide(), example::square(), example::without_steps()] {
            assert_eq!(Record::from_json(&record.to_json().unwrap()).unwrap(), record);
        }
    }

    #[test]
    fn the_written_form_is_the_documented_one() {
        let grid = Grid { rows: 1, cols: 2, cell_px_x: 8.0, cell_px_y: 8.5, fine_per_cell: 4 };
        let step = StepRecord {
            named_words: vec![Word { text: "dog".to_owned(), score: 0.5 }],
            nearest_words: vec![Word { text: "cat".to_owned(), score: 2.5 }],
            region: Some(Region { x: 1.0, y: 2.0, width: 3.0, height: 4.0 }),
            thought_picture: Some(SmallPicture { width: 1, height: 1, rgb: vec![255, 0, 127] }),
            ..example::step_on(&grid, 1)
        };
        insta::assert_snapshot!(example::record((16, 8), grid, vec![step]).to_json().unwrap());
    }

    #[test]
    fn another_schema_version_is_refused_by_name() {
        let json = example::wide().0.to_json().unwrap();
        let newer = json.replacen("\"schema\": 2", "\"schema\": 9, \"unheard_of\": []", 1);
        let older = json.replacen("\"schema\": 2", "\"schema\": 0", 1);
        let errors = [newer, older].map(|json| Record::from_json(&json).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n\n"));
    }

    #[test]
    fn a_text_that_is_no_record_is_refused_with_the_place() {
        let json = example::wide().0.to_json().unwrap();
        let errors = [
            json.replacen("\"answer\"", "\"anwser\"", 1),
            json.replacen("\"answer\": \"7B\",", "", 1),
            json[..json.len() / 2].to_owned(),
            "{}".to_owned(),
        ]
        .map(|json| Record::from_json(&json).unwrap_err().to_string());
        insta::assert_snapshot!(errors.join("\n\n"));
    }

    #[test]
    fn values_that_cannot_be_true_are_refused_with_the_field() {
        let errors = [
            spoilt(|record| record.steps[1].weights.truncate(48)),
            spoilt(|record| record.steps[1].weights[3] += 0.01),
            spoilt(|record| record.steps[2].weights[3] = f32::NAN),
            spoilt(|record| record.steps[0].weights[3] = -0.001),
            spoilt(|record| record.steps[0].selected[1] = 49),
            spoilt(|record| record.steps[0].selected[1] = record.steps[0].selected[0]),
            spoilt(|record| record.steps[0].index = 1),
            spoilt(|record| record.steps[0].gate_mean = 1.5),
            spoilt(|record| record.steps[0].latent_norm = f32::INFINITY),
            spoilt(|record| record.steps[0].named_words[1].score = 1.1),
            spoilt(|record| record.steps[0].nearest_words[1].score = f32::NAN),
            spoilt(|record| record.steps[0].region = Some(Region { x: 9.0, y: 9.0, width: 4.0, height: 0.0 })),
            spoilt(|record| record.steps[0].thought_picture.as_mut().unwrap().rgb.truncate(5)),
            spoilt(|record| record.usage.latent_steps = 5),
            spoilt(|record| record.usage.refocused_visual_tokens += 1),
            spoilt(|record| record.timing_ms.think = -1.0),
            spoilt(|record| record.timing_ms.total = 1.0),
            spoilt(|record| (record.grid.rows, record.grid.cols) = (1 << 40, 1 << 40)),
            spoilt(|record| record.input.width = 0),
        ];
        insta::assert_snapshot!(errors.join("\n\n"));
    }

    #[test]
    fn a_grid_with_rows_and_columns_exchanged_is_refused() {
        let (mut record, _) = example::wide();
        std::mem::swap(&mut record.grid.rows, &mut record.grid.cols);
        insta::assert_snapshot!(record.validate().unwrap_err(), @r"
        trace field `grid.cell_px_x` is wrong
          expected  cols * cell to reach the picture's width, 640 px
          got       6 * 64 = 384 px

        hint: a cell's size is in pixels of the original picture, not of the resized one
        ");
    }

    #[test]
    fn a_grid_may_end_past_the_picture() {
        let grid = Grid { rows: 7, cols: 7, cell_px_x: 100.0, cell_px_y: 100.0, fine_per_cell: 4 };
        let record = example::record((640, 384), grid, vec![example::step_on(&grid, 48)]);
        assert_eq!(record.validate().map_err(|error| error.to_string()), Ok(()));
    }

    #[test]
    fn a_record_that_is_wrong_is_not_written() {
        let (mut record, _) = example::wide();
        record.steps[0].weights[0] = f32::NAN; // JSON has no NaN: it would become null
        assert!(record.to_json().is_err());
    }
}
