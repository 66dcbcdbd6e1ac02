//! What the vision towers share: layer norm, attention inside pictures or windows, the order of merged patches.

use super::fields::{Fields, HEADS, WIDTH};
use crate::Result;
use crate::mask;
use crate::nn::Linear;
use crate::rope::Angles;
use crate::weights::{Init, Path};
use candle_core::{D, Device, Tensor};
use lare_kernels as kernels;

/// Layer norm with scale and bias.
#[derive(Clone, Debug)]
pub struct LayerNorm {
    weight: Tensor, // [D]
    bias: Tensor,   // [D]
    eps: f64,
}

impl LayerNorm {
    /// Starts as the plain norm.
    pub fn new(path: Path, width: usize, eps: f64) -> Result<Self> {
        let (weight, bias) = (path.get("weight", &[width], Init::Ones)?, path.get("bias", &[width], Init::Zeros)?);
        Ok(Self { weight, bias, eps })
    }

    /// `[.., D]` to `[.., D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        // The root mean square of what is centred is the standard deviation.
        Ok(kernels::rms_norm(&centred, &self.weight, self.eps)?.broadcast_add(&self.bias)?)
    }
}

/// A linear layer with a bias at the child `name`.
pub fn biased(path: Path, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
    path.at(name, |p| Linear::new(p, inputs, outputs)?.biased(p, 0.0))
}

/// `Dv` and heads of a tower of Qwen's, from its `vision_config`, once they fit each other and the language model.
pub fn width_and_heads(fields: Fields, language_width: usize) -> Result<[usize; 2]> {
    let (width, heads) = (fields.up_to("hidden_size", WIDTH)?, fields.up_to("num_heads", HEADS)?);
    if width % heads != 0 || width / heads % 4 != 0 {
        let expected = "a divisor of hidden_size that leaves heads of a multiple of 4";
        return Err(fields.error("num_heads", expected, "the file is damaged"));
    }
    if fields.size("out_hidden_size")? != language_width {
        let expected = format!("the language model's width, {language_width}");
        return Err(fields.error("out_hidden_size", &expected, "the file is damaged"));
    }
    Ok([width, heads])
}

/// Which patches of a picture see each other: consecutive runs, each by itself.
#[derive(Clone, Debug)]
pub struct Runs {
    count: usize,
    longest: usize,
    /// `[count * longest]`, the patch at each place; 0 where a shorter run was padded.
    patches: Vec<u32>,
    visible: Vec<bool>,
    /// `[N]`, the place of each patch.
    places: Vec<u32>,
}

impl Runs {
    /// Runs of these lengths, one after another.
    pub fn new(lengths: &[usize]) -> Self {
        let longest = lengths.iter().copied().max().unwrap_or(0);
        let (mut patches, mut visible, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut first = 0u32;
        for (run, length) in lengths.iter().enumerate() {
            patches.extend((0..longest).map(|i| if i < *length { first + i as u32 } else { 0 }));
            visible.extend((0..longest).map(|i| i < *length));
            places.extend((0..*length).map(|i| (run * longest + i) as u32));
            first += *length as u32;
        }
        Self { count: lengths.len(), longest, patches, visible, places }
    }

    /// Attention inside each run. `qkv`: `[N, 3, H, Dh]`, turned; returns `[N, H * Dh]`.
    pub fn attention(&self, qkv: &Tensor) -> Result<Tensor> {
        let (n, _, heads, width) = qkv.dims4()?;
        let device = qkv.device();
        let whole = self.count * self.longest == n; // nothing was padded
        let pick = |x: &Tensor, which: &[u32]| Ok::<_, crate::Error>(x.index_select(&index(which, device)?, 0)?);
        let qkv = if whole { qkv.clone() } else { pick(qkv, &self.patches)? };
        let shape = [self.count, self.longest, heads, width];
        let q = qkv.narrow(1, 0, 1)?.contiguous()?.reshape(&shape[..])?;
        let own = qkv.narrow(1, 1, 2)?.contiguous()?.reshape(&[self.count, self.longest, 2, heads, width][..])?;
        let sight = mask::everyone(self.count, self.visible.clone().into());
        let seen = kernels::attention(&q, &own, None, &sight)?.reshape(((), heads * width))?;
        if whole { Ok(seen) } else { pick(&seen, &self.places) }
    }
}

/// Indices as a tensor, `[N]`.
pub fn index(which: &[u32], device: &Device) -> Result<Tensor> {
    Ok(Tensor::from_slice(which, which.len(), device)?)
}

/// Row and column of each patch of a picture of `rows` x `cols` patches, in the order of the processors: squares of
/// `merge` x `merge` patches that become one token, row by row, and row by row inside.
pub fn in_squares(rows: usize, cols: usize, merge: usize) -> Vec<[u32; 2]> {
    let mut places = Vec::with_capacity(rows * cols);
    for top in (0..rows).step_by(merge) {
        for left in (0..cols).step_by(merge) {
            for row in top..top + merge {
                places.extend((left..left + merge).map(|col| [row as u32, col as u32]));
            }
        }
    }
    places
}

/// Two-dimensional rotary angles of patches `[1, N, Dh / 2]`: a quarter of the head turns with the row, a quarter with
/// the column.
pub fn angles_of(places: &[[u32; 2]], head_width: usize, theta: f64, device: &Device) -> Result<Angles> {
    let quarter = head_width / 4;
    let frequency = |j: usize| theta.powf(-(j as f64) / quarter as f64) as f32;
    let frequencies: Vec<f32> = (0..quarter).map(frequency).collect();
    let turn = |place: &[u32; 2]| {
        place.map(|at| frequencies.iter().map(move |f| at as f32 * f)).into_iter().flatten().collect::<Vec<f32>>()
    };
    let (sin, cos): (Vec<f32>, Vec<f32>) = places.iter().flat_map(turn).map(f32::sin_cos).unzip();
    let shape = (1, places.len(), 2 * quarter);
    Ok(Angles { cos: Tensor::from_vec(cos, shape, device)?, sin: Tensor::from_vec(sin, shape, device)? })
}

/// Packed queries, keys and values `[N, 3 * H * Dh]` as `[N, 3, H, Dh]`, queries and keys turned.
pub fn turned(qkv: &Tensor, heads: usize, angles: &Angles) -> Result<Tensor> {
    let (n, packed) = qkv.dims2()?;
    let width = packed / (3 * heads);
    let flat = qkv.reshape((1, n, 3 * heads, width))?;
    Ok(kernels::rotary(&flat, &angles.cos, &angles.sin, 2 * heads)?.reshape((n, 3, heads, width))?)
}
