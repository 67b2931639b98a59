//! The engine that answers for given weights: our own kernels on the CPU, burn's operations on every other device.

use anyhow::{Result, bail};
use openelm_checkpoint::Weights;
use openelm_formats::DType;
use openelm_infer::{BurnDecoder, Decoder, Draft, HostDecoder, HostOptions, KvType};
use openelm_model::{Precision, open_device};

use crate::args::{DecodeDtype, DecoderArguments, GuessArguments, KvDtype};

/// Opens `weights` as asked. OPENELM_KERNELS=off takes burn's operations on the CPU as well.
pub(super) fn open_decoder(weights: &Weights, arguments: &DecoderArguments) -> Result<Box<dyn Decoder>> {
    let device = open_device(&arguments.device)?;
    if HostDecoder::serves(&device) {
        let convert = match arguments.dtype {
            DecodeDtype::Auto => None,
            DecodeDtype::F32 => Some(DType::F32),
            DecodeDtype::F16 => Some(DType::F16),
            DecodeDtype::Bf16 => Some(DType::BF16),
        };
        let kv = match arguments.kv {
            KvDtype::F32 => KvType::F32,
            KvDtype::F16 => KvType::F16,
            KvDtype::Bf16 => KvType::Bf16,
            KvDtype::Q8 => KvType::Q8,
        };
        return Ok(Box::new(HostDecoder::open(weights, HostOptions { convert, kv, in_memory: arguments.in_memory })?));
    }
    if arguments.kv != KvDtype::F32 {
        bail!("--kv is for the kernels on the CPU\nhint: leave it out, or leave out --device");
    }
    Ok(Box::new(BurnDecoder::new(weights.model(&device)?, decode_precision(arguments.dtype)?)))
}

/// The type of burn's matrix products.
pub(super) fn decode_precision(dtype: DecodeDtype) -> Result<Precision> {
    match dtype {
        DecodeDtype::Auto | DecodeDtype::F32 => Ok(Precision::F32),
        DecodeDtype::Bf16 => Ok(Precision::Bf16),
        DecodeDtype::F16 => bail!("--dtype f16 is for the kernels on the CPU\nhint: use bf16 or f32 on this device"),
    }
}

/// The draft for `decoder` that the command line asks for.
pub(super) fn open_draft(guesses: &GuessArguments, arguments: &DecoderArguments, decoder: &dyn Decoder) -> Result<Option<Draft>> {
    match (&guesses.draft, guesses.lookup) {
        (Some(path), _) => {
            let small = open_decoder(&Weights::open(path)?, arguments)?;
            Ok(Some(Draft::model(small.into(), decoder, guesses.draft_tokens)?))
        }
        (None, lookup) => Ok(lookup.map(Draft::lookup)),
    }
}
