//! The shipped model looks where the answer is, on pictures of any shape.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use lare_data::{Split, Suite, Task};
use lare_infer::{Assistant, Batch, Options, Question, Steps, session};
use std::path::Path;

#[test]
fn the_brightest_cell_lies_on_the_tag_in_pictures_that_are_not_square() {
    let assistant = Assistant::from_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../weights/nano")).unwrap();
    let suite = Suite::new();
    let (mut asked, mut hit, mut at_an_edge) = (0, 0, 0);
    for index in 0..36 {
        let sample = suite.sample(Split::Size, Task::Read, index);
        let (width, height) = (sample.picture.width as f32, sample.picture.height as f32);
        if width == height {
            continue;
        }
        let options = Options { steps: Steps::Fixed(1), ..Options::default() };
        let question = Question::new(0, &sample.question.text, options);
        let batch = Batch { pictures: &[&sample.picture], questions: &[question] };
        let answer = &session::answer(&assistant, &batch, &mut |_| ()).unwrap()[0];
        let (grid, scores) = (&answer.grid, &answer.looks[0].scores);
        let brightest = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
        let cell = grid.cell(brightest);
        let region = &sample.question.steps[0].region;
        let over = |low: f32, high: f32, start: f32, extent: f32| high.min(start + extent) > low.max(start);
        let meets =
            over(region.left, region.right, cell.x, cell.width) && over(region.top, region.bottom, cell.y, cell.height);
        (asked, hit) = (asked + 1, hit + usize::from(meets));
        let beside = |low: f32, high: f32, extent: f32, cell: f32| low < cell || high > extent - cell;
        let corner = beside(region.left, region.right, width, grid.cell_px_x)
            && beside(region.top, region.bottom, height, grid.cell_px_y);
        at_an_edge += usize::from(corner && meets);
    }
    assert!(asked >= 20 && at_an_edge > 0, "{asked} pictures, {at_an_edge} answers in a corner");
    assert!(hit * 10 >= asked * 8, "{hit} of {asked}");
}
