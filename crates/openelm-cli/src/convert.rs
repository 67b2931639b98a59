//! The configuration file's sections as the settings of the crates that do the work.
//!
//! What must stay true: a number is converted exactly or refused; nothing is defaulted here that the file's form does not state.

use anyhow::{Context, Result};
use openelm_data::{CorpusConfig, DataConfig, ObjectStoreConfig};
use openelm_model::{ModelConfig, Precision, preset};
use openelm_train::{AdamWConfig, CORENET_DECIMALS, Schedule, TrainSettings};

use crate::config::{
    Accumulation, CorpusSection, Dtype, ModelSection, Multipliers, ObjectStoreSection, OnBadRecord, Order, Packing, RunConfig,
};

/// A count of the file as a size of this machine.
pub(crate) fn size(value: u64) -> Result<usize> {
    usize::try_from(value).with_context(|| format!("{value} is too large for this machine"))
}

/// The model: the preset with the section's own keys laid over it.
///
/// # Errors
/// When the numbers allow no such model.
pub fn model_config(section: &ModelSection) -> Result<ModelConfig> {
    // Without a preset every shape key is given (the file was validated), so the base below is overwritten.
    let mut config = preset(section.preset.map_or("OpenELM-270M", |preset| preset.name()))?;
    let mut set = |slot: fn(&mut ModelConfig) -> &mut usize, value: Option<u64>| -> Result<()> {
        if let Some(value) = value {
            *slot(&mut config) = size(value)?;
        }
        Ok(())
    };
    set(|c| &mut c.num_transformer_layers, section.num_transformer_layers)?;
    set(|c| &mut c.model_dim, section.model_dim)?;
    set(|c| &mut c.head_dim, section.head_dim)?;
    set(|c| &mut c.num_gqa_groups, section.num_gqa_groups)?;
    set(|c| &mut c.ffn_dim_divisor, section.ffn_dim_divisor)?;
    set(|c| &mut c.vocab_size, section.vocab_size)?;
    set(|c| &mut c.max_context_length, section.max_context_length)?;
    set(|c| &mut c.rope_max_length, section.rope_max_length)?;
    let multipliers = |multipliers: &Multipliers| match multipliers {
        Multipliers::Uniform(value) => openelm_model::Multipliers::Uniform(*value),
        Multipliers::List(list) => openelm_model::Multipliers::List(list.clone()),
    };
    if let Some(given) = &section.qkv_multipliers {
        config.qkv_multipliers = multipliers(given);
    }
    if let Some(given) = &section.ffn_multipliers {
        config.ffn_multipliers = multipliers(given);
    }
    config.padding_index = section.padding_index.map(size).transpose()?;
    config.rope_freq_constant = section.rope_freq_constant.unwrap_or(config.rope_freq_constant);
    config.normalize_qk_projections = section.normalize_qk_projections.unwrap_or(config.normalize_qk_projections);
    config.share_input_output_layers = section.share_input_output_layers.unwrap_or(config.share_input_output_layers);
    config.ffn_with_glu = section.ffn_with_glu.unwrap_or(config.ffn_with_glu);
    config.validate()?;
    Ok(config)
}

fn corpora(sections: &[CorpusSection]) -> Result<Vec<CorpusConfig>> {
    let corpus = |section: &CorpusSection| {
        Ok(CorpusConfig {
            name: section.name.clone(),
            files: section.files.clone(),
            file_id_range: section.file_id_range,
            text_key: section.text_key.clone(),
            weight: section.weight,
            max_epochs: section.max_epochs,
            min_tokens_per_text: section.min_tokens_per_text.map(size).transpose()?,
            min_characters_per_text: section.min_characters_per_text.map(size).transpose()?,
        })
    };
    sections.iter().map(corpus).collect()
}

/// What the loader reads.
///
/// # Errors
/// When a number is too large for this machine.
pub fn data_config(config: &RunConfig) -> Result<DataConfig> {
    let data = &config.data;
    Ok(DataConfig {
        corpora: corpora(&data.corpora)?,
        order: match data.order {
            Order::Mixed => openelm_data::Order::Mixed,
            Order::Corenet => openelm_data::Order::Corenet,
        },
        sequence_length: size(data.sequence_length)?,
        min_tokens_per_text: size(data.min_tokens_per_text)?,
        min_characters_per_text: size(data.min_characters_per_text)?,
        normalize: data.normalize,
        add_bos: data.add_bos,
        add_eos: data.add_eos,
        shuffle: data.shuffle,
        seed: config.data_seed(),
        document_split_words: size(data.document_split_words)?,
        lanes: size(data.lanes)?,
        shuffle_buffer: size(data.shuffle_buffer)?,
        workers: size(data.workers)?,
        prefetch: size(data.prefetch)?,
        threads: size(data.threads)?,
        packing: match data.packing {
            Packing::Concat => openelm_data::Packing::Concat,
            Packing::BestFit => openelm_data::Packing::BestFit,
        },
        document_mask: data.document_mask,
        on_bad_record: match data.on_bad_record {
            OnBadRecord::Stop => openelm_data::OnBadRecord::Stop,
            OnBadRecord::Skip => openelm_data::OnBadRecord::Skip,
        },
        cache: data.cache.clone(),
        object_store: object_store(data.object_store.as_ref())?,
    })
}

fn object_store(section: Option<&ObjectStoreSection>) -> Result<ObjectStoreConfig> {
    let mut settings = ObjectStoreConfig::default();
    if let Some(section) = section {
        settings.cache.clone_from(&section.cache);
        settings.max_bytes = section.max_bytes.unwrap_or(settings.max_bytes);
        settings.retries = section.retries.map(size).transpose()?.unwrap_or(settings.retries);
    }
    Ok(settings)
}

/// What validation reads: its own corpora, whole, without the filters for short texts; everything else as in training.
///
/// # Errors
/// As [`data_config`].
pub fn validation_config(config: &RunConfig) -> Result<Option<DataConfig>> {
    let Some(validation) = &config.validation else { return Ok(None) };
    let mut data = data_config(config)?;
    data.corpora = corpora(&validation.corpora)?;
    (data.min_tokens_per_text, data.min_characters_per_text) = (0, 0);
    Ok(Some(data))
}

/// The type of the matrix products.
pub(crate) fn precision(dtype: Dtype) -> Precision {
    match dtype {
        Dtype::F32 => Precision::F32,
        Dtype::Bf16 => Precision::Bf16,
    }
}

/// How the run trains.
///
/// # Errors
/// When a number is too large for this machine.
pub fn train_settings(config: &RunConfig) -> Result<TrainSettings> {
    let (training, schedule, optimizer) = (&config.training, &config.schedule, &config.optimizer);
    Ok(TrainSettings {
        steps: training.steps,
        global_batch: size(training.global_batch)?,
        micro_batch: size(training.micro_batch)?,
        precision: precision(training.dtype),
        recompute: training.activation_checkpointing,
        accumulation: match training.accumulation {
            Accumulation::Mean => openelm_train::Accumulation::Mean,
            Accumulation::Sum => openelm_train::Accumulation::Sum,
        },
        grad_clip: training.grad_clip,
        z_loss: training.z_loss,
        corenet_z_loss: config.data.order == Order::Corenet,
        optimizer: AdamWConfig {
            weight_decay: optimizer.weight_decay,
            beta1: optimizer.beta1,
            beta2: optimizer.beta2,
            eps: optimizer.eps,
            no_decay_1d: optimizer.no_decay_1d,
        },
        schedule: Schedule {
            warmup_init_lr: schedule.warmup_init_lr,
            warmup_steps: schedule.warmup_steps,
            max_lr: schedule.max_lr,
            min_lr: schedule.min_lr,
            max_iterations: config.max_iterations(),
            decimals: Some(CORENET_DECIMALS),
        },
        validate_every: config.validation.as_ref().map_or(0, |validation| validation.every),
        checkpoint_every: config.checkpoint.every,
        keep_last: config.checkpoint.keep_last,
        keep_every: config.checkpoint.keep_every,
        log_every: config.log.every,
    })
}
