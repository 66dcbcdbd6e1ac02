//! Rationales whose looks may come in any order ([`crate::Task::any_order`]): which of them a model took when.
//!
//! Counting asks that every member be looked at once. To ask for one order as well would punish a look at the right
//! thing at the wrong time, and the order of objects in about the same row is a matter of pixels.

/// Matches looks to regions greedily: each look, in turn, takes the region it scores highest on average among those that
/// no earlier look took; then come the regions that are left, in their order. `looks`: scores of each cell; `regions`:
/// the share of each region in each cell.
pub fn order_taken(looks: &[&[f32]], regions: &[&[f32]]) -> Vec<usize> {
    let mut left: Vec<usize> = (0..regions.len()).collect();
    let mut order = Vec::with_capacity(left.len());
    for look in looks {
        let mean = |region: usize| -> f32 { look.iter().zip(regions[region]).map(|(s, c)| s * c).sum() };
        // The first of equals, so that a tie keeps the rationale's order.
        let Some(best) = (0..left.len()).rev().max_by(|a, b| mean(left[*a]).total_cmp(&mean(left[*b]))) else {
            break;
        };
        order.push(left.remove(best));
    }
    order.extend(left);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    const REGIONS: [&[f32]; 3] = [&[1.0, 0.0, 0.0, 0.0], &[0.0, 0.5, 0.5, 0.0], &[0.0, 0.0, 0.0, 1.0]];

    #[test]
    fn each_look_takes_the_region_it_looks_at_most_and_none_is_taken_twice() {
        let last: &[f32] = &[0.2, 0.1, 0.1, 0.6];
        let middle: &[f32] = &[0.2, 0.4, 0.4, 0.0];
        assert_eq!(order_taken(&[last, middle], &REGIONS), [2, 1, 0]);
        assert_eq!(order_taken(&[last, last, last], &REGIONS), [2, 0, 1]);
    }

    #[test]
    fn looks_that_say_nothing_keep_the_rationales_order() {
        let even: &[f32] = &[0.25; 4];
        assert_eq!(order_taken(&[even, even, even, even], &REGIONS), [0, 1, 2]);
        assert_eq!(order_taken(&[], &REGIONS), [0, 1, 2]);
    }
}
