//! What a model folder holds, told without building the model: for reports on folders that may not load.

use crate::Result;
use lare_model::{Config, specifications};
use safetensors::SafeTensors;

/// One tensor as it lies in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its module path.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its number type, as in `F16`.
    pub number_type: String,
    /// Whether all its numbers are finite.
    pub finite: bool,
}

/// The tensors of a weights file, in order of their names.
///
/// # Errors
/// [`lare_model::Error::Damaged`] when the header or its lengths do not hold.
pub fn tensors(bytes: &[u8], file: &str) -> Result<Vec<TensorInfo>> {
    let archive = SafeTensors::deserialize(bytes)
        .map_err(|e| lare_model::Error::Damaged { file: file.into(), reason: e.to_string() })?;
    let info = |(name, view): (String, safetensors::tensor::TensorView)| TensorInfo {
        name,
        shape: view.shape().to_vec(),
        number_type: format!("{:?}", view.dtype()),
        finite: is_finite(view.dtype(), view.data()),
    };
    let mut found: Vec<TensorInfo> = archive.tensors().into_iter().map(info).collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// A number is infinite or NaN when all bits of its exponent are set.
fn is_finite(dtype: safetensors::Dtype, data: &[u8]) -> bool {
    let none = |bytes: usize, exponent: u32| {
        data.chunks_exact(bytes).all(|number| {
            let bits = number.iter().rev().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte));
            bits & exponent != exponent
        })
    };
    match dtype {
        safetensors::Dtype::F16 => none(2, 0x7c00),
        safetensors::Dtype::BF16 => none(2, 0x7f80),
        safetensors::Dtype::F32 => none(4, 0x7f80_0000),
        _ => true,
    }
}

/// What an architecture needs and can take, from its config alone.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizes {
    /// Parameters by top module, in order of construction.
    pub parameters: Vec<(String, usize)>,
    /// Bytes of the weights once loaded (f32).
    pub weight_bytes: usize,
    /// Bytes of keys and values of one picture of the most cells.
    pub picture_cache_bytes: usize,
    /// Bytes of keys and values of one question that fills its context.
    pub question_cache_bytes: usize,
    /// Largest square picture that is not scaled down, in pixels a side.
    pub square_px: usize,
}

/// Counts.
///
/// # Errors
/// When the architecture cannot be built at all.
pub fn sizes(config: &Config) -> Result<Sizes> {
    let mut parameters: Vec<(String, usize)> = Vec::new();
    for spec in specifications(config)? {
        let top = spec.name.split('.').next().unwrap_or_default().to_owned();
        let count: usize = spec.shape.iter().product();
        match parameters.iter_mut().find(|(name, _)| *name == top) {
            Some((_, sum)) => *sum += count,
            None => parameters.push((top, count)),
        }
    }
    let f32_bytes = size_of::<f32>();
    let (l, v) = (&config.language, &config.vision);
    // Keys and values of every layer.
    let per_position = l.layers * 2 * l.kv_heads * config.head_width() * f32_bytes;
    let total: usize = parameters.iter().map(|(_, count)| count).sum();
    Ok(Sizes {
        weight_bytes: total * f32_bytes,
        picture_cache_bytes: crate::model::nano::picture_positions(config, v.max_cells) * per_position,
        question_cache_bytes: l.max_positions * per_position,
        square_px: v.max_cells.isqrt() * v.cell_px,
        parameters,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_finite_are_seen() {
        assert!(is_finite(safetensors::Dtype::F32, &1.5f32.to_le_bytes()));
        assert!(!is_finite(safetensors::Dtype::F32, &f32::NAN.to_le_bytes()));
        assert!(!is_finite(safetensors::Dtype::F16, &[0x00, 0x3c, 0x00, 0xfc]));
    }

    #[test]
    fn parameters_are_counted_by_top_module() {
        let sizes = sizes(crate::tiny::assistant().config()).unwrap();
        let names: Vec<&str> = sizes.parameters.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["language", "vision", "refocus", "semantic"]);
        let total: usize = sizes.parameters.iter().map(|(_, count)| count).sum();
        assert_eq!(sizes.weight_bytes, 4 * total);
    }
}
