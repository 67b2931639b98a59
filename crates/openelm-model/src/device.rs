//! Opening a burn device by name. Which names work is decided when the program is built (cargo features); asking for
//! another says so instead of falling back.

use burn::tensor::Device;

use crate::ModelError;

/// Device names and the cargo feature that each needs (none for `flex`).
pub const DEVICES: [(&str, Option<&str>); 6] = [
    ("flex", None),
    ("wgpu", Some("wgpu")),
    ("vulkan", Some("vulkan")),
    ("metal", Some("metal")),
    ("cuda", Some("cuda")),
    ("tch", Some("tch")),
];

/// Opens `name`: `flex` (the CPU), `wgpu`, `vulkan`, `metal`, `cuda` or `tch`, with `:N` for the N-th device and `:cpu`
/// for a software adapter of wgpu or vulkan.
///
/// # Errors
/// When the name is unknown or this build lacks the feature.
pub fn open_device(name: &str) -> Result<Device, ModelError> {
    let (kind, index) = match name.split_once(':') {
        Some((kind, index)) => (kind, Some(index)),
        None => (name, None),
    };
    let Some((_, feature)) = DEVICES.iter().find(|(known, _)| *known == kind) else {
        let known: Vec<_> = DEVICES.iter().map(|(known, _)| *known).collect();
        return Err(device_error(name, "is not a known device", format!("known devices: {}", known.join(", "))));
    };
    if kind == "flex" && index.is_none() {
        return Ok(Device::flex());
    }
    if let Some(device) = open_featured(name, kind, index)? {
        return Ok(device);
    }
    match feature {
        None => Err(device_error(name, "there is one CPU device and it takes no index", "write `flex`")),
        Some(feature) => Err(device_error(
            name,
            "this program was built without support for it",
            format!("build with `cargo build --release --features {feature}`"),
        )),
    }
}

fn device_error(asked: &str, reason: impl Into<String>, hint: impl Into<String>) -> ModelError {
    ModelError::Device { asked: asked.to_string(), reason: reason.into(), hint: hint.into() }
}

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "tch"))]
fn parse_index(name: &str, index: &str) -> Result<usize, ModelError> {
    index.parse().map_err(|_| device_error(name, format!("`{index}` is not a device number"), "write for example `cuda:0`"))
}

#[cfg(feature = "wgpu")]
fn adapter(name: &str, index: Option<&str>) -> Result<burn::tensor::DeviceKind, ModelError> {
    use burn::tensor::DeviceKind;
    Ok(match index {
        None => DeviceKind::DefaultDevice,
        Some("cpu") => DeviceKind::Cpu,
        Some(index) => DeviceKind::DiscreteGpu(parse_index(name, index)?),
    })
}

/// The device, if this build has the feature for it.
#[allow(unused_variables)]
fn open_featured(name: &str, kind: &str, index: Option<&str>) -> Result<Option<Device>, ModelError> {
    #[cfg(feature = "wgpu")]
    if kind == "wgpu" {
        return Ok(Some(Device::wgpu(adapter(name, index)?)));
    }
    #[cfg(feature = "vulkan")]
    if kind == "vulkan" {
        return Ok(Some(Device::vulkan(adapter(name, index)?)));
    }
    #[cfg(feature = "metal")]
    if kind == "metal" {
        return Ok(Some(Device::metal(adapter(name, index)?)));
    }
    #[cfg(feature = "cuda")]
    if kind == "cuda" {
        return Ok(Some(Device::cuda(index.map_or(Ok(0), |index| parse_index(name, index))?)));
    }
    #[cfg(feature = "tch")]
    if kind == "tch" {
        return Ok(Some(match index {
            None | Some("cpu") => Device::libtorch(),
            Some(index) => Device::libtorch_cuda(parse_index(name, index)?),
        }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_devices_are_named() {
        let message = open_device("gpu").unwrap_err().to_string();
        assert!(message.contains("device gpu") && message.contains("wgpu"), "{message}");
        assert!(open_device("flex:3").unwrap_err().to_string().contains("takes no index"));
        assert!(open_device("flex").is_ok());
    }
}
