//! `--device`: where a model computes.

use crate::failure::Failure;
use clap::Args;
use lare_infer::{Device, Format, Holding};
use std::fmt::{self, Display};
use std::str::FromStr;

/// Where to compute.
#[derive(Clone, Copy, Debug, Args)]
pub struct Computing {
    /// Where to compute: `cpu`, or `cuda` for the first GPU, `cuda:1` for the second; GPUs need a program that was built with the
    /// feature `cuda`.
    #[arg(long, value_name = "DEVICE", default_value_t = Place::Cpu)]
    pub device: Place,
}

/// A device by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The processor.
    Cpu,
    /// The GPU of this number.
    Cuda(usize),
}

impl Computing {
    /// The device, ready.
    ///
    /// # Errors
    /// When this program cannot use it, or this machine has none.
    pub fn open(self) -> Result<Device, Failure> {
        let Place::Cuda(number) = self.device else { return Ok(Device::Cpu) };
        if !cfg!(feature = "cuda") {
            return Err(Failure::new(format!("cannot compute on `{}`", self.device))
                .part("expected", "a program that was built with the feature `cuda`")
                .part("got", "one for the CPU alone")
                .hint("cargo build --release --features cuda, where CUDA's nvcc is; or leave --device out"));
        }
        Device::new_cuda(number).map_err(|error| {
            Failure::new(format!("cannot compute on `{}`", self.device))
                .part("expected", "a GPU of that number, with its driver")
                // Below its first line there may be a backtrace.
                .part("got", error.to_string().lines().next().unwrap_or_default())
                .hint("`nvidia-smi -L` lists the GPUs; `--device cpu` needs none")
        })
    }

    /// The device, and what matrices are converted to.
    ///
    /// # Errors
    /// As [`Computing::open`], and for number types that only the CPU computes with.
    pub fn holding(self, format: Option<Format>) -> Result<Holding, Failure> {
        if let (Place::Cuda(_), Some(format @ (Format::Q8_0 | Format::Q4K))) = (self.device, format) {
            return Err(Failure::new(format!("`--dtype {}` is for the CPU", format.name().to_lowercase()))
                .part("expected", "bf16, f16 or f32 on a GPU")
                .hint("leave --dtype out: matrices stay as they are stored"));
        }
        Ok(Holding { format, device: self.open()? })
    }
}

impl Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(0) => f.write_str("cuda"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|number| number.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| "expected `cpu`, `cuda`, or `cuda:N`".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_as_it_is_written() {
        for place in [Place::Cpu, Place::Cuda(0), Place::Cuda(3)] {
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        assert_eq!("cuda:0".parse(), Ok(Place::Cuda(0)));
        for wrong in ["gpu", "cuda:", "cuda:x", "cuda1", ""] {
            assert!(wrong.parse::<Place>().is_err(), "{wrong}");
        }
    }
}
