//! A CoreNet file as it stands: every key that such files have, nothing about what it means.
//!
//! What must stay true: the keys here and the table in `keys.rs` are the same (a test compares them). A key that is absent or
//! null is `None`; CoreNet's default for it stands where it is read, in `read.rs`.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::anchors::WithoutAnchors;
use crate::config::Preset;

/// The sections, without the `_anchor_...` keys.
#[derive(Debug)]
pub(super) struct File(pub Sections);

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TopLevel;

        impl<'de> Visitor<'de> for TopLevel {
            type Value = File;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the sections of a CoreNet file")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<File, A::Error> {
                Sections::deserialize(MapAccessDeserializer::new(WithoutAnchors(map))).map(File)
            }
        }

        deserializer.deserialize_map(TopLevel)
    }
}

/// A strict section: keys that are read, and keys that are known but may hold anything.
macro_rules! section {
    ($name:ident, $expecting:literal, { $($used:ident: $type:ty),* $(,)? }, unused { $($unused:ident),* $(,)? }) => {
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default, expecting = $expecting)]
        pub(super) struct $name {
            $(pub $used: $type,)*
            $($unused: IgnoredAny,)*
        }
    };
}

section!(Sections, "the sections of a CoreNet file", {
    taskname: Option<String>,
    common: Common,
    dataset: Dataset,
    text_tokenizer: TextTokenizer,
    loss: Loss,
    optim: Optim,
    scheduler: Scheduler,
    model: Model,
    stats: Stats,
    train_eval_pipeline: Pipeline,
    fsdp: Fsdp,
    ddp: Ddp,
}, unused {});

section!(Common, "the keys of `common`", {
    seed: Option<u64>,
    grad_clip: Option<f64>,
    mixed_precision: Option<bool>,
    mixed_precision_dtype: Option<String>,
    accum_freq: Option<u64>,
    accum_after_epoch: Option<u64>,
    log_freq: Option<u64>,
    tensorboard_logging: Option<bool>,
    save_interval_freq: Option<u64>,
    resume: Option<String>,
    finetune: Option<String>,
}, unused {
    run_label,
    auto_resume,
    save_all_checkpoints,
    k_best_checkpoints,
    eval_every_k_iterations,
    results_loc,
    logs_loc,
    file_logging,
    debug_mode,
    set_grad_to_none,
});

section!(Dataset, "the keys of `dataset`", {
    train_batch_size0: Option<u64>,
    workers: Option<i64>,
    category: Option<String>,
    name: Option<String>,
    language_modeling: LanguageModelingData,
}, unused {
    root_train,
    root_val,
    root_test,
    disable_val,
    val_batch_size0,
    eval_batch_size0,
    persistent_workers,
    pin_memory,
    prefetch_factor,
});

section!(LanguageModelingData, "the keys of `dataset.language_modeling`", {
    sequence_length: Option<u64>,
    min_tokens_per_text: Option<u64>,
    min_characters_per_text: Option<u64>,
    shuffle_data: Option<bool>,
    random_seed: Option<u64>,
    general_lm: GeneralLm,
}, unused {});

section!(GeneralLm, "the keys of `general_lm`", {
    train_data_info: Option<Vec<DataInfo>>,
    document_split_size: Option<u64>,
    data_state: Option<Vec<String>>,
}, unused {
    val_data_info,
    test_data_info,
    reader_chunk_size,
    data_state_save_interval,
});

section!(DataInfo, "`file_name`, `text_key` and `file_id_range`", {
    file_name: Option<String>,
    text_key: Option<String>,
    file_id_range: Option<[u64; 2]>,
}, unused {});

section!(TextTokenizer, "the keys of `text_tokenizer`", {
    name: Option<String>,
    sentence_piece: SentencePiece,
}, unused {});

section!(SentencePiece, "the keys of `sentence_piece`", {
    model_path: Option<String>,
    enable_nfc_normalization: Option<bool>,
    append_sot_token: Option<bool>,
    append_eot_token: Option<bool>,
}, unused {});

section!(Loss, "the keys of `loss`", {
    category: Option<String>,
    language_modeling: LanguageModelingLoss,
}, unused {});

section!(LanguageModelingLoss, "the keys of `loss.language_modeling`", {
    name: Option<String>,
    cross_entropy: CrossEntropy,
}, unused {});

section!(CrossEntropy, "the keys of `cross_entropy`", {
    ignore_index: Option<i64>,
    label_smoothing: Option<f64>,
    use_z_loss: Option<bool>,
    z_loss_eps: Option<f64>,
}, unused {});

section!(Optim, "the keys of `optim`", {
    name: Option<String>,
    weight_decay: Option<f64>,
    no_decay_bn_filter_bias: Option<bool>,
    adamw: AdamW,
}, unused {
    eps,
    bypass_parameters_check,
});

section!(AdamW, "the keys of `adamw`", {
    beta1: Option<f64>,
    beta2: Option<f64>,
    eps: Option<f64>,
    amsgrad: Option<bool>,
}, unused {});

section!(Scheduler, "the keys of `scheduler`", {
    name: Option<String>,
    is_iteration_based: Option<bool>,
    max_iterations: Option<u64>,
    warmup_iterations: Option<i64>,
    warmup_init_lr: Option<f64>,
    cosine: Cosine,
}, unused {
    lr,
    max_epochs,
    adjust_period_for_epochs,
});

section!(Cosine, "the keys of `cosine`", {
    max_lr: Option<f64>,
    min_lr: Option<f64>,
}, unused {});

section!(Model, "the keys of `model`", {
    activation_checkpointing: Option<bool>,
    language_modeling: LanguageModel,
}, unused {});

section!(LanguageModel, "the keys of `model.language_modeling`", {
    name: Option<String>,
    pretrained: Option<String>,
    general_gpt: GeneralGpt,
}, unused {});

section!(GeneralGpt, "the keys of `general_gpt`", {
    model_name: Option<Preset>,
    vocab_size: Option<u64>,
    max_context_length: Option<u64>,
    padding_index: Option<u64>,
}, unused {});

section!(Stats, "the keys of `stats`", {}, unused { train, val, checkpoint_metric, checkpoint_metric_max });

section!(Pipeline, "the keys of `train_eval_pipeline`", {
    name: Option<String>,
}, unused {});

section!(Fsdp, "the keys of `fsdp`", {
    parameter_datatype: Option<String>,
}, unused {
    sharding_strategy,
    backward_prefetching,
    gradient_reduction_datatype,
    buffer_datatype,
    cpu_offload,
    limit_all_gathers,
});

section!(Ddp, "the keys of `ddp`", {}, unused { rank, world_size, dist_url, dist_port, device_id, backend, find_unused_params });
