//! Rotary positions: plain, stretched as in Llama 3, and with three coordinates as in Qwen2-VL (M-RoPE).
//!
//! Frequencies and angles are rounded to f32, as every reference computes them: at position 30,000 the rounding of an
//! angle is larger than the tolerance of a parity test.

use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// Where a token stands: time, height, width. Words, latents and models without M-RoPE have one number three times.
pub type Place = [u32; 3];

/// The rotary frequencies of a decoder's heads, and the coordinate that each turns with.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Radians per position, `[Dh / 2]`.
    frequencies: Vec<f32>,
    /// Index into [`Place`], `[Dh / 2]`.
    axes: Vec<u8>,
}

/// Which frequencies turn with which coordinate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sections {
    /// First those of time, then of height, then of width (Qwen2-VL, Qwen2.5-VL).
    Contiguous([usize; 3]),
    /// Time, height, width in turn as long as height and width last, then time (Qwen3-VL).
    Interleaved([usize; 3]),
}

/// How Llama 3 stretches slow frequencies over a longer context.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Llama3 {
    /// By how much the slowest are stretched.
    pub factor: f64,
    /// Wavelengths above `original_positions` over this are stretched fully.
    pub low_freq_factor: f64,
    /// Wavelengths below `original_positions` over this stay.
    pub high_freq_factor: f64,
    /// Positions that the model was first trained with.
    pub original_positions: f64,
}

/// Cosines and sines of the rotary angles, each `[B, T, Dh / 2]`.
pub struct Angles {
    /// Cosines.
    pub cos: Tensor,
    /// Sines.
    pub sin: Tensor,
}

impl Rope {
    /// `theta ^ (-2 i / Dh)` for `i` below `Dh / 2`; all three coordinates are taken to be equal.
    pub fn new(theta: f64, head_width: usize) -> Self {
        let half = head_width / 2;
        let frequency = |i: usize| theta.powf(-(i as f64) / half as f64) as f32;
        Self { frequencies: (0..half).map(frequency).collect(), axes: vec![0; half] }
    }

    /// Stretched as Llama 3 does.
    #[must_use]
    pub fn stretched(self, by: Llama3) -> Self {
        let stretch = |frequency: f32| {
            let frequency = f64::from(frequency);
            let turns = by.original_positions * frequency / std::f64::consts::TAU; // within the original context
            if turns > by.high_freq_factor {
                return frequency as f32;
            }
            if turns < by.low_freq_factor {
                return (frequency / by.factor) as f32;
            }
            let kept = (turns - by.low_freq_factor) / (by.high_freq_factor - by.low_freq_factor);
            ((1.0 - kept) * frequency / by.factor + kept * frequency) as f32
        };
        Self { frequencies: self.frequencies.into_iter().map(stretch).collect(), ..self }
    }

    /// With each frequency divided by a number of its own, `[Dh / 2]`, as GGUF files write a longer context.
    #[must_use]
    pub fn divided(self, by: &[f32]) -> Self {
        let frequencies = self.frequencies.iter().zip(by).map(|(frequency, by)| frequency / by);
        Self { frequencies: frequencies.collect(), ..self }
    }

    /// With three coordinates.
    ///
    /// # Errors
    /// [`Error::Arguments`] when the sections do not add up to `Dh / 2`.
    pub fn in_sections(self, sections: Sections) -> Result<Self> {
        let half = self.frequencies.len();
        let (Sections::Contiguous(lengths) | Sections::Interleaved(lengths)) = sections;
        if lengths.iter().sum::<usize>() != half {
            let expected = format!("three that add up to half a head's width, {half}");
            return Err(Error::Arguments { what: "mrope_section", expected, got: format!("{lengths:?}") });
        }
        let axes = match sections {
            Sections::Contiguous(lengths) => {
                (0u8..3).zip(lengths).flat_map(|(axis, length)| std::iter::repeat_n(axis, length)).collect()
            }
            Sections::Interleaved([_, height, width]) => {
                let axis = |i: usize| match i % 3 {
                    1 if i < 3 * height => 1,
                    2 if i < 3 * width => 2,
                    _ => 0,
                };
                (0..half).map(axis).collect()
            }
        };
        Ok(Self { axes, ..self })
    }

    /// The angles at `B * T` places, row by row.
    pub fn angles(&self, places: &[Place], (b, t): (usize, usize), device: &Device) -> Result<Angles> {
        let turn = |place: &Place| {
            let place = *place;
            self.frequencies.iter().zip(&self.axes).map(move |(f, axis)| place[usize::from(*axis)] as f32 * f)
        };
        let (sin, cos): (Vec<f32>, Vec<f32>) = places.iter().flat_map(turn).map(f32::sin_cos).unzip();
        let shape = (b, t, self.frequencies.len());
        Ok(Angles { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_are_laid_out_as_each_family_does() {
        let rope = |sections| Rope::new(1e4, 16).in_sections(sections).unwrap().axes;
        assert_eq!(rope(Sections::Contiguous([2, 3, 3])), [0, 0, 1, 1, 1, 2, 2, 2]);
        assert_eq!(rope(Sections::Interleaved([4, 2, 2])), [0, 1, 2, 0, 1, 2, 0, 0]);
        assert_eq!(rope(Sections::Interleaved([4, 3, 1])), [0, 1, 2, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn sections_of_another_sum_are_refused() {
        let message = Rope::new(1e4, 16).in_sections(Sections::Contiguous([2, 2, 2])).unwrap_err().to_string();
        assert!(message.contains("mrope_section") && message.contains("[2, 2, 2]"), "{message}");
    }

    #[test]
    fn an_angle_is_the_place_on_its_axis_times_its_frequency() {
        let rope = Rope::new(100.0, 4).in_sections(Sections::Contiguous([1, 1, 0])).unwrap();
        let angles = rope.angles(&[[3, 5, 7]], (1, 1), &Device::Cpu).unwrap();
        let sin: Vec<f32> = angles.sin.flatten_all().unwrap().to_vec1().unwrap();
        assert_eq!(sin, [3f32.sin(), 0.5f32.sin()]);
    }
}
