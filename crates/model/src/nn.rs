//! The layers that everything here is made of.

use crate::Result;
use crate::lora::Adapted;
use crate::weights::{Init, Path};
use candle_core::{D, DType, Device, Tensor};
use lare_kernels::{self as kernels, Collected, Matrix, Packed};
use std::sync::{Arc, OnceLock};

/// Part of a matrix: rows that some checkpoints store under a name of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// What these rows give.
    pub name: &'static str,
    /// How many.
    pub rows: usize,
}

impl Part {
    /// Rows that give `name`.
    pub fn new(name: &'static str, rows: usize) -> Self {
        Self { name, rows }
    }
}

/// A matrix `[O, I]`.
#[derive(Clone, Debug)]
pub enum Weight {
    /// In f32; may be trained.
    Tensor(Tensor),
    /// In f32 on a CPU, frozen: products give a row the same bits in any company.
    Frozen(Frozen),
    /// As it is stored; frozen.
    Stored(Stored),
    /// On a GPU, in f32, bf16 or f16; frozen.
    Placed(Placed),
    /// Either, frozen, with low-rank changes that may be trained.
    Adapted(Adapted),
}

/// A frozen matrix as it is stored, and what was once measured of it.
#[derive(Clone, Debug)]
pub struct Stored {
    matrix: Matrix,
    root_mean_square: Arc<OnceLock<f64>>,
    row_norms: Arc<OnceLock<Tensor>>,
}

/// A frozen matrix on a GPU, in its own number type, and what was once measured of it.
#[derive(Clone, Debug)]
pub struct Placed {
    weight: Tensor, // [O, I]
    root_mean_square: Arc<OnceLock<f64>>,
    row_norms: Arc<OnceLock<Tensor>>,
}

impl Placed {
    /// As a GPU does it for such weights: activations are rounded to their type, sums are in f32, and so is what comes out.
    fn product(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        let (outputs, inputs) = self.weight.dims2()?;
        let rows = x.reshape(((), inputs))?.to_dtype(self.weight.dtype())?;
        let mut shape = x.dims().to_vec();
        shape.pop();
        shape.push(outputs);
        let product = rows.matmul(&self.weight.t()?)?.to_dtype(DType::F32)?.reshape(shape)?;
        Ok(match bias {
            None => product,
            Some(bias) => product.broadcast_add(bias)?,
        })
    }

    fn widened(&self) -> Result<Tensor> {
        Ok(self.weight.to_dtype(DType::F32)?)
    }
}

/// The value of a cell that is measured when it is first asked for.
fn once<T: Clone>(cell: &OnceLock<T>, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    if let Some(known) = cell.get() {
        return Ok(known.clone());
    }
    let measured = measure()?;
    Ok(cell.get_or_init(|| measured).clone())
}

/// A frozen matrix laid out for products, and what was once measured of it.
#[derive(Clone, Debug)]
pub struct Frozen {
    packed: Packed,
    root_mean_square: Arc<OnceLock<f64>>,
    row_norms: Arc<OnceLock<Tensor>>,
}

fn root_mean_square(weight: &Tensor) -> Result<f64> {
    Ok(f64::from(weight.sqr()?.mean_all()?.sqrt()?.to_scalar::<f32>()?))
}

impl From<Matrix> for Weight {
    fn from(matrix: Matrix) -> Self {
        Self::Stored(Stored { matrix, root_mean_square: Arc::default(), row_norms: Arc::default() })
    }
}

/// Rows of a stored matrix that are converted at once while it is measured.
const MEASURED_ROWS: u32 = 1024;

/// Euclidean norms of rows `[N, I]`, `[N]`.
fn norms(rows: &Tensor) -> Result<Tensor> {
    Ok((rows.sqr()?.sum(D::Minus1)?.sqrt()? + 1e-12)?)
}

impl Stored {
    fn row_norms(&self) -> Result<Tensor> {
        let rows = self.matrix.outputs() as u32;
        let measured = (0..rows).step_by(MEASURED_ROWS as usize).map(|first| {
            let ids: Vec<u32> = (first..rows.min(first + MEASURED_ROWS)).collect();
            norms(&self.matrix.gather(&ids)?)
        });
        Ok(Tensor::cat(&measured.collect::<Result<Vec<_>>>()?, 0)?)
    }

    fn root_mean_square(&self) -> Result<f64> {
        let (rows, mut sum) = (self.matrix.outputs() as u32, 0.0);
        for first in (0..rows).step_by(MEASURED_ROWS as usize) {
            let ids: Vec<u32> = (first..rows.min(first + MEASURED_ROWS)).collect();
            sum += f64::from(self.matrix.gather(&ids)?.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let numbers = rows as usize * self.matrix.inputs();
        Ok((sum / numbers.max(1) as f64).sqrt())
    }
}

impl Weight {
    /// A matrix `[O, I]` of f32 on a CPU, frozen.
    pub fn frozen(tensor: &Tensor) -> Result<Self> {
        let (root_mean_square, row_norms) = (Arc::default(), Arc::default());
        Ok(Self::Frozen(Frozen { packed: Packed::new(tensor)?, root_mean_square, row_norms }))
    }

    /// The same matrix on another device than the CPU, frozen; matrices in floats keep their number type there.
    ///
    /// # Errors
    /// For one in blocks of 8 or 4 bits, and when the device cannot take it.
    pub fn placed(&self, device: &Device) -> Result<Self> {
        let weight = match self {
            Self::Stored(stored) => stored.matrix.to_floats(device)?,
            other => other.to_tensor(&Device::Cpu)?.detach().to_device(device)?,
        };
        Ok(Self::Placed(Placed { weight, root_mean_square: Arc::default(), row_norms: Arc::default() }))
    }

    /// `x W^T + b`, `[.., I]` to `[.., O]`.
    pub fn product(&self, x: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        Ok(match self {
            Self::Tensor(weight) => kernels::linear(x, weight, bias)?,
            Self::Frozen(frozen) => kernels::linear_packed(x, &frozen.packed, bias)?,
            Self::Stored(stored) => kernels::linear_stored(x, &stored.matrix, bias)?,
            Self::Placed(placed) => placed.product(x, bias)?,
            Self::Adapted(adapted) => adapted.product(x, bias)?,
        })
    }

    /// The rows `ids` `[N]`, `[N, I]`.
    pub fn gather(&self, ids: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Tensor(weight) => weight.index_select(ids, 0)?,
            Self::Frozen(frozen) => frozen.packed.weight().index_select(ids, 0)?,
            Self::Stored(stored) => stored.matrix.gather(&ids.to_vec1::<u32>()?)?.to_device(ids.device())?,
            Self::Placed(placed) => placed.weight.index_select(ids, 0)?.to_dtype(DType::F32)?,
            Self::Adapted(adapted) => adapted.folded(ids.device())?.index_select(ids, 0)?,
        })
    }

    /// Of all its numbers, without a gradient.
    pub fn root_mean_square(&self) -> Result<f64> {
        match self {
            Self::Tensor(weight) => root_mean_square(&weight.detach()),
            Self::Frozen(frozen) => once(&frozen.root_mean_square, || root_mean_square(frozen.packed.weight())),
            Self::Stored(stored) => once(&stored.root_mean_square, || stored.root_mean_square()),
            Self::Placed(placed) => once(&placed.root_mean_square, || root_mean_square(&placed.widened()?)),
            Self::Adapted(adapted) => root_mean_square(&adapted.folded(adapted.device())?.detach()),
        }
    }

    /// The Euclidean norm of each row, `[O]`, without a gradient.
    pub fn row_norms(&self, device: &Device) -> Result<Tensor> {
        match self {
            Self::Frozen(frozen) => once(&frozen.row_norms, || norms(frozen.packed.weight())),
            Self::Stored(stored) => Ok(once(&stored.row_norms, || stored.row_norms())?.to_device(device)?),
            Self::Placed(placed) => once(&placed.row_norms, || norms(&placed.widened()?)),
            _ => norms(&self.to_tensor(device)?.detach()),
        }
    }

    /// `O` and `I`.
    pub fn dims(&self) -> Result<(usize, usize)> {
        Ok(match self {
            Self::Tensor(weight) => weight.dims2()?,
            Self::Frozen(frozen) => frozen.packed.weight().dims2()?,
            Self::Stored(stored) => (stored.matrix.outputs(), stored.matrix.inputs()),
            Self::Placed(placed) => placed.weight.dims2()?,
            Self::Adapted(adapted) => adapted.dims()?,
        })
    }

    /// In f32, copied where it is stored otherwise.
    pub fn to_tensor(&self, device: &Device) -> Result<Tensor> {
        Ok(match self {
            Self::Tensor(weight) => weight.clone(),
            Self::Frozen(frozen) => frozen.packed.weight().to_device(device)?,
            Self::Stored(stored) => stored.matrix.to_tensor(device)?,
            Self::Placed(placed) => placed.widened()?.to_device(device)?,
            Self::Adapted(adapted) => adapted.folded(device)?,
        })
    }
}

/// `y = x W^T + b`.
#[derive(Clone, Debug)]
pub struct Linear {
    weight: Weight, // [O, I]
    bias: Option<Tensor>,
}

impl Linear {
    /// Weights start normal with variance `1 / inputs`.
    pub fn new(path: Path, inputs: usize, outputs: usize) -> Result<Self> {
        Self::with_std(path, inputs, outputs, (1.0 / inputs as f64).sqrt())
    }

    /// Whether all its numbers are 0, as of a branch that was never trained.
    pub fn is_nothing(&self) -> Result<bool> {
        let bias = self.bias.as_ref().map_or(Ok(0.0), |bias| bias.abs()?.sum_all()?.to_scalar::<f32>())?;
        Ok(self.weight.root_mean_square()? == 0.0 && bias == 0.0)
    }

    /// As [`Linear::new`], with outputs that checkpoints may store in parts.
    pub fn of_parts(path: Path, inputs: usize, parts: &[Part]) -> Result<Self> {
        let start = Init::Normal((1.0 / inputs as f64).sqrt());
        Ok(Self { weight: path.parts("weight", parts, inputs, start)?, bias: None })
    }

    /// Weights start normal with this standard deviation; 0 starts a branch that does nothing at first.
    pub fn with_std(path: Path, inputs: usize, outputs: usize, std: f64) -> Result<Self> {
        let init = if std == 0.0 { Init::Zeros } else { Init::Normal(std) };
        Ok(Self { weight: path.weight("weight", [outputs, inputs], init)?, bias: None })
    }

    /// The first `inputs` outputs start as the input itself, the others as those of [`Linear::new`].
    pub fn beginning_with_identity(path: Path, inputs: usize, outputs: usize) -> Result<Self> {
        let init = Init::Identity((1.0 / inputs as f64).sqrt());
        Ok(Self { weight: path.weight("weight", [outputs, inputs], init)?, bias: None })
    }

    /// With a bias that starts at `value`.
    pub fn biased(self, path: Path, value: f64) -> Result<Self> {
        let (outputs, _) = self.weight.dims()?;
        Ok(Self { bias: Some(path.get("bias", &[outputs], Init::Constant(value))?), ..self })
    }

    /// `[.., I]` to `[.., O]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.weight.product(x, self.bias.as_ref())
    }

    /// As [`Linear::forward`] of a layer without a bias, in a shape of its own and for many readers.
    pub fn collected(&self, x: &Tensor, shape: &[usize]) -> Result<Collected> {
        if let (Weight::Frozen(_) | Weight::Stored(_) | Weight::Placed(_), false) = (&self.weight, x.track_op()) {
            return Ok(Collected::frozen(&self.weight.product(x, None)?.reshape(shape)?));
        }
        Ok(Collected::linear(x, &self.weight.to_tensor(x.device())?, shape)?)
    }
}

/// Root-mean-square norm with a learned scale.
#[derive(Clone, Debug)]
pub struct Norm {
    weight: Tensor, // [D]
    eps: f64,
}

impl Norm {
    /// Starts as the plain norm.
    pub fn new(path: Path, width: usize, eps: f64) -> Result<Self> {
        Ok(Self { weight: path.get("weight", &[width], Init::Ones)?, eps })
    }

    /// `D`.
    pub fn width(&self) -> usize {
        self.weight.elem_count()
    }

    /// Where it lies.
    pub fn device(&self) -> &Device {
        self.weight.device()
    }

    /// `[.., D]` to `[.., D]`, mean square 1 before the scale.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(kernels::rms_norm(x, &self.weight, self.eps)?)
    }
}

/// SwiGLU feed-forward, gate and up in one product.
#[derive(Clone, Debug)]
pub struct FeedForward {
    gate_up: Linear,
    down: Linear,
}

impl FeedForward {
    /// `residual_std` is the start of the product that writes into the residual stream.
    pub fn new(path: Path, width: usize, inner: usize, residual_std: f64) -> Result<Self> {
        Ok(Self {
            gate_up: path
                .at("gate_up", |p| Linear::of_parts(p, width, &[Part::new("gate", inner), Part::new("up", inner)]))?,
            down: path.at("down", |p| Linear::with_std(p, inner, width, residual_std))?,
        })
    }

    /// `[.., D]` to `[.., D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // One operation: the two widest tensors never become nodes of the graph.
        match (&self.gate_up.weight, &self.down.weight) {
            (Weight::Tensor(gate_up), Weight::Tensor(down)) => Ok(kernels::feed_forward(x, gate_up, down)?),
            (Weight::Stored(gate_up), Weight::Stored(down)) => {
                Ok(kernels::feed_forward_stored(x, &gate_up.matrix, &down.matrix)?)
            }
            _ => self.down.forward(&kernels::swiglu(&self.gate_up.forward(x)?)?),
        }
    }
}

/// Start of a product that writes into a residual stream of `depth` such writes: keeps the stream's variance near
/// 1 however deep it is.
pub fn residual_std(inputs: usize, depth: usize) -> f64 {
    (1.0 / (inputs as f64 * depth as f64)).sqrt()
}

/// Sine and cosine features of cell-centre coordinates, `[rows * cols, 4 * frequencies]`, in units of one coarse
/// cell, so that fine and coarse grids of any shape share one frame.
pub fn grid_positions(rows: usize, cols: usize, per_cell: usize, frequencies: usize, like: &Tensor) -> Result<Tensor> {
    let mut features = Vec::with_capacity(rows * cols * 4 * frequencies);
    for row in 0..rows {
        for col in 0..cols {
            for place in [row, col] {
                let centre = (place as f64 + 0.5) / per_cell as f64;
                for f in 0..frequencies {
                    // Wavelengths from 32 cells, longer than any picture, down to half a cell.
                    let wavelength = 32.0 * (0.5f64 / 32.0).powf(f as f64 / (frequencies.max(2) - 1) as f64);
                    let angle = std::f64::consts::TAU * centre / wavelength;
                    features.extend([angle.sin() as f32, angle.cos() as f32]);
                }
            }
        }
    }
    Ok(Tensor::from_vec(features, (rows * cols, 4 * frequencies), like.device())?)
}

/// `1 / (1 + exp(-x))`.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// `log(1 + exp(x))` without overflow.
pub fn softplus(x: &Tensor) -> Result<Tensor> {
    let tail = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok((x.relu()? + tail)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(tensor: &Tensor) -> Vec<f32> {
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    fn far(a: &Tensor, b: &Tensor) -> f32 {
        assert_eq!(a.dims(), b.dims());
        numbers(a).iter().zip(numbers(b)).fold(0.0, |far, (a, b)| far.max((a - b).abs()))
    }

    fn wave(shape: &[usize], step: f64) -> Tensor {
        let count = shape.iter().product::<usize>() as f64;
        let along = (Tensor::arange(0.0, count, &Device::Cpu).unwrap() * step).unwrap().sin().unwrap();
        along.to_dtype(DType::F32).unwrap().reshape(shape).unwrap()
    }

    #[test]
    fn a_placed_matrix_is_the_one_that_is_stored() {
        let (x, bias, ids) =
            (wave(&[2, 3, 64], 0.7), wave(&[9], 1.3), Tensor::new(&[8u32, 0, 8], &Device::Cpu).unwrap());
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F16, 2e-2)] {
            let matrix = Matrix::from_tensor(&wave(&[9, 64], 0.31).to_dtype(dtype).unwrap()).unwrap();
            let stored = Weight::from(Matrix::beside(&[matrix.clone(), matrix]).unwrap());
            let stored_bias = Tensor::cat(&[&bias, &bias], 0).unwrap();
            let placed = stored.placed(&Device::Cpu).unwrap();
            let [one, two] = [&stored, &placed].map(|weight| weight.product(&x, Some(&stored_bias)).unwrap());
            assert!(far(&one, &two) < tolerance, "{dtype:?}: {}", far(&one, &two));
            assert_eq!(numbers(&stored.gather(&ids).unwrap()), numbers(&placed.gather(&ids).unwrap()));
            assert_eq!(stored.dims().unwrap(), placed.dims().unwrap());
            let measured = |weight: &Weight| weight.root_mean_square().unwrap();
            assert!((measured(&stored) - measured(&placed)).abs() < 1e-6);
            let norms = |weight: &Weight| weight.row_norms(&Device::Cpu).unwrap();
            assert!(far(&norms(&stored), &norms(&placed)) < 1e-5);
        }
    }

    #[test]
    fn blocks_of_few_bits_stay_on_the_cpu() {
        let matrix = Matrix::from_tensor(&wave(&[2, 64], 0.31)).unwrap().to_format(kernels::Format::Q8_0).unwrap();
        let refused = Weight::from(matrix).placed(&Device::Cpu).unwrap_err().to_string();
        assert!(refused.contains("Q8_0") && refused.contains("bf16, f16 or f32"), "{refused}");
    }
}
