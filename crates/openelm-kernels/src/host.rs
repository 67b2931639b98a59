//! Tensors of burn's Flex device as the slices of memory that they are.
//!
//! What must stay true: reading shares memory with the tensor; changing happens in place where the tensor has one owner, and in
//! a copy that replaces it otherwise. Tensors of other devices, and tracked ones, are not host tensors.

use std::sync::Arc;

use burn::tensor::{DType, Tensor, bf16};
use burn_flex::{Flex, FlexTensor};
use rayon::prelude::*;

use crate::Values;

/// An f32 tensor in this process's memory, row by row.
#[derive(Clone, Debug)]
pub struct HostTensor(FlexTensor);

impl HostTensor {
    /// The tensor's memory, if it is an f32 tensor of the Flex device.
    pub fn of<const D: usize>(tensor: &Tensor<D>) -> Option<Self> {
        let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
        (primitive.dtype() == DType::F32).then(|| Self(primitive.to_contiguous()))
    }

    /// The elements.
    pub fn values(&self) -> &[f32] {
        self.0.as_slice::<f32>().unwrap_or_default()
    }
}

/// A matrix in this process's memory, f32 or bf16, row by row.
#[derive(Clone, Debug)]
pub enum HostMatrix {
    /// The tensor's own memory.
    Shared(FlexTensor),
    /// A quantised tensor's values, unpacked; they go when the matrix does.
    Unpacked(Arc<Vec<f32>>),
}

/// Values that share a scale, and that one task unpacks.
const BLOCK: usize = 32;
const RUN: usize = 1 << 16;

impl HostMatrix {
    /// The tensor's memory, if it is an f32 or bf16 tensor of the Flex device, or what a quantised one unpacks to.
    pub fn of(tensor: &Tensor<2>) -> Option<Self> {
        if matches!(tensor.dtype(), DType::QFloat(_)) {
            return match unpack(tensor) {
                Some(values) => Some(Self::Unpacked(Arc::new(values))),
                None => Self::of(&tensor.clone().dequantize()),
            };
        }
        let primitive = tensor.clone().try_into_primitive::<Flex>().ok()?;
        matches!(primitive.dtype(), DType::F32 | DType::BF16).then(|| Self::Shared(primitive.to_contiguous()))
    }

    /// The elements.
    pub fn values(&self) -> Values<'_> {
        match self {
            Self::Shared(tensor) if tensor.dtype() == DType::BF16 => {
                Values::Bf16(bytemuck::cast_slice(tensor.as_slice::<bf16>().unwrap_or_default()))
            }
            Self::Shared(tensor) => Values::F32(tensor.as_slice::<f32>().unwrap_or_default()),
            Self::Unpacked(values) => Values::F32(values),
        }
    }
}

/// The values of levels of 8 bits with an f32 scale for every 32 of a row: burn's own way takes one value at a time. `None` for another
/// layout.
fn unpack(tensor: &Tensor<2>) -> Option<Vec<f32>> {
    let [rows, columns] = tensor.dims();
    let data = tensor.clone().into_data();
    let (levels, scales) = data.as_bytes().split_at_checked(rows * columns)?;
    if !columns.is_multiple_of(BLOCK) || scales.len() * BLOCK != levels.len() * size_of::<f32>() {
        return None;
    }
    let (scales, _) = scales.as_chunks::<4>();
    let mut values = vec![0.0; levels.len()];
    values.par_chunks_mut(RUN).zip(levels.par_chunks(RUN)).zip(scales.par_chunks(RUN / BLOCK)).for_each(|((values, levels), scales)| {
        for ((values, levels), scale) in values.chunks_mut(BLOCK).zip(levels.chunks(BLOCK)).zip(scales) {
            let scale = f32::from_ne_bytes(*scale);
            values.iter_mut().zip(levels).for_each(|(value, level)| *value = f32::from(level.cast_signed()) * scale);
        }
    });
    Some(values)
}

/// Lets `change` work on the elements of `tensor`, row by row. False when it is no f32 tensor of the Flex device; nothing was
/// changed then.
pub fn change_values<const D: usize>(tensor: &mut Tensor<D>, change: impl FnOnce(&mut [f32])) -> bool {
    if tensor.dtype() != DType::F32 {
        return false;
    }
    // Taken out, the tensor has one owner, and its memory is changed in place.
    let empty = Tensor::empty([0; D], &tensor.device());
    let owned = std::mem::replace(tensor, empty);
    // A tensor of another device is lost to the conversion, so a handle is kept until it has worked.
    if owned.clone().try_into_primitive::<Flex>().is_err() {
        *tensor = owned;
        return false;
    }
    let Ok(mut primitive) = owned.try_into_primitive::<Flex>() else { return false };
    if !primitive.is_contiguous() || primitive.layout().num_elements() * size_of::<f32>() != primitive.bytes().len() {
        primitive = primitive.to_contiguous();
    }
    change(primitive.storage_mut::<f32>());
    *tensor = Tensor::from_primitive::<Flex>(primitive);
    true
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, ScaleDtype};

    use super::*;

    #[test]
    fn memory_is_shared_and_changed_in_place() {
        let device = Device::flex();
        let mut tensor = Tensor::<2>::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device);
        let before = HostTensor::of(&tensor).unwrap().values().as_ptr();
        assert!(change_values(&mut tensor, |values| values[4] = 50.0));
        let host = HostTensor::of(&tensor).unwrap();
        assert_eq!((host.values(), host.values().as_ptr()), (&[1.0, 2.0, 3.0, 4.0, 50.0, 6.0][..], before));
        // A second handle keeps the old values.
        let kept = tensor.clone();
        assert!(change_values(&mut tensor, |values| values.fill(0.0)));
        assert_eq!(HostTensor::of(&kept).unwrap().values()[4], 50.0);
        // A view reads in its own order, and a changed view is a tensor of its own.
        let mut turned = kept.clone().transpose();
        assert_eq!(HostTensor::of(&turned).unwrap().values(), [1.0, 4.0, 2.0, 50.0, 3.0, 6.0]);
        assert!(change_values(&mut turned, |values| values[1] = -4.0));
        assert_eq!(turned.into_data().try_to_vec::<f32>().unwrap(), [1.0, -4.0, 2.0, 50.0, 3.0, 6.0]);
        let mut part = kept.clone().narrow(0, 1, 1);
        assert!(change_values(&mut part, |values| assert_eq!(values, [4.0, 50.0, 6.0])));
    }

    #[test]
    fn halves_and_levels_are_read() {
        let device = Device::flex();
        let values: Vec<f32> = (0..128).map(|at| (at as f32 - 60.0) / 8.0).collect();
        let tensor = Tensor::<1>::from_floats(&values[..], &device).reshape([2, 64]);
        let halves = tensor.clone().cast(DType::BF16);
        let host = HostMatrix::of(&halves).unwrap();
        let Values::Bf16(found) = host.values() else { panic!("bf16 values") };
        let expected: Vec<u16> = values.iter().map(|value| (value.to_bits() >> 16) as u16).collect();
        assert_eq!(found, expected);
        let host = HostMatrix::of(&tensor).unwrap();
        let Values::F32(found) = host.values() else { panic!("f32 values") };
        assert_eq!(found, values);
        let scheme = QuantScheme::default().with_value(QuantValue::Q8S).with_store(QuantStore::Native).per_block([32], ScaleDtype::F32);
        let levels = tensor.quantize_dynamic(&scheme);
        let host = HostMatrix::of(&levels).unwrap();
        assert!(matches!(host, HostMatrix::Unpacked(_)), "the layout was not understood");
        let Values::F32(found) = host.values() else { panic!("f32 values") };
        assert_eq!(found, levels.dequantize().into_data().try_to_vec::<f32>().unwrap());
    }

    #[test]
    fn tracked_tensors_are_not_host_tensors() {
        let mut tensor = Tensor::<1>::from_floats([1.0], &Device::flex()).autodiff().require_grad();
        assert!(HostTensor::of(&tensor).is_none());
        assert!(!change_values(&mut tensor, |_| unreachable!()));
        assert_eq!(tensor.inner().into_data().try_to_vec::<f32>().unwrap(), [1.0]);
    }
}
