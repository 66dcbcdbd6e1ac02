//! Rationales whose looks may come in any order: a thought is held to what its look took [ours].

use crate::Result;
use crate::batch::Batch;
use lare_data::order_taken;
use lare_model::Thread;

/// The batch, with the steps of such rationales in the order in which the model took them. Other rows are as they were.
pub fn as_taken<P: Clone>(batch: &Batch<P>, thread: &Thread) -> Result<Batch<P>> {
    let mut taken = batch.clone();
    // A model that does not look took none before another.
    let looks = thread.steps.iter().flat_map(|step| &step.chosen).any(|chosen| !chosen.is_empty());
    if !looks || !batch.rows.iter().any(|row| row.any_order) {
        return Ok(taken);
    }
    let scores = thread.steps.iter().map(|step| Ok(step.log_scores.detach().exp()?.to_vec2::<f32>()?));
    let scores: Vec<Vec<Vec<f32>>> = scores.collect::<Result<_>>()?; // step, row, cell
    for (number, row) in taken.rows.iter_mut().enumerate().filter(|(_, row)| row.any_order) {
        // Steps of the rationale that are said and not thought keep their place: their words are in the text already.
        let thought = batch.steps[number].min(row.targets.len());
        let looks: Vec<&[f32]> = scores.iter().take(thought).map(|rows| &rows[number][..]).collect();
        let regions: Vec<&[f32]> = row.targets[..thought].iter().map(|target| &target.coverage[..]).collect();
        let taken: Vec<_> = order_taken(&looks, &regions).into_iter().map(|which| row.targets[which].clone()).collect();
        row.targets[..thought].clone_from_slice(&taken);
    }
    Ok(taken)
}
