//! Where tensors are computed: the CPU, or a GPU where this was built with the `cuda` feature.

use std::fmt;
use std::str::FromStr;

use candle_core::DeviceLocation;

/// Where tensors are computed; written `cpu` or `cuda:0`, `cuda:1` and so on.
///
/// The CPU runs this crate's own operations, a GPU candle's. Both compute the same up to the order of sums, so two devices
/// give neither the same bits nor, after a training, the same tensors.
#[derive(Clone, Debug)]
pub struct Device(pub(crate) candle_core::Device);

/// The name of a device that is not opened: of another machine than this, as a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// `cpu`.
    Cpu,
    /// `cuda:` and the GPU's number.
    Cuda(usize),
}

/// Why there is no such device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceError {
    /// The text names none.
    #[error("`{0}` is neither `cpu` nor `cuda:` and a number")]
    Unknown(String),
    /// A GPU is asked of a build that knows none.
    #[error("`cuda` needs a build with `--features cuda`, and this one has it not")]
    NotBuilt,
    /// The GPU cannot be opened.
    #[error("cuda:{number}: {why}")]
    NotOpened {
        /// Which GPU.
        number: usize,
        /// What the driver said.
        why: String,
    },
}

impl Device {
    /// The CPU.
    pub const CPU: Self = Self(candle_core::Device::Cpu);

    fn cuda(number: usize) -> Result<Self, DeviceError> {
        if cfg!(not(feature = "cuda")) {
            return Err(DeviceError::NotBuilt);
        }
        // Behind its first line candle may tell where it was.
        let why = |error: candle_core::Error| error.to_string().lines().next().unwrap_or_default().to_owned();
        let opened = candle_core::Device::new_cuda(number);
        opened.map(Self).map_err(|error| DeviceError::NotOpened { number, why: why(error) })
    }
}

impl DeviceName {
    /// Opens the device.
    ///
    /// # Errors
    /// When this build knows no GPUs, or the GPU cannot be opened.
    pub fn open(self) -> Result<Device, DeviceError> {
        match self {
            Self::Cpu => Ok(Device::CPU),
            Self::Cuda(number) => Device::cuda(number),
        }
    }
}

impl FromStr for DeviceName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let number = text.strip_prefix("cuda:").and_then(|number| number.parse().ok());
        match (text, number) {
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(number)) => Ok(Self::Cuda(number)),
            (_, None) => Err(DeviceError::Unknown(text.to_owned())),
        }
    }
}

/// Opens it.
impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        text.parse::<DeviceName>()?.open()
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.location() {
            DeviceLocation::Cpu => f.write_str("cpu"),
            DeviceLocation::Cuda { gpu_id } => write!(f, "cuda:{gpu_id}"),
            DeviceLocation::Metal { gpu_id } => write!(f, "metal:{gpu_id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_named_as_they_are_written() {
        assert_eq!("cpu".parse::<Device>().unwrap().to_string(), "cpu");
        for text in ["", "gpu", "cuda", "cuda:", "cuda:x", "CPU", "cuda:-1"] {
            let error = text.parse::<Device>().unwrap_err();
            assert_eq!(error, DeviceError::Unknown(text.to_owned()));
        }
        // A name is none of this machine's business.
        assert_eq!("cuda:7".parse(), Ok(DeviceName::Cuda(7)));
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_build_without_the_feature_says_so() {
        assert_eq!("cuda:0".parse::<Device>().unwrap_err(), DeviceError::NotBuilt);
    }
}
