//! What each key of a CoreNet file does here, and which key of our form it became.
//!
//! What must stay true: the table names every key that `file.rs` reads, once.

use serde_yaml_ng::Value;

/// What a key does in this program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum Effect {
    /// It sets these keys of our form.
    Sets(&'static [&'static str]),
    /// Only this value is possible here; it is said to the user when there is another.
    Must(&'static str),
    /// Nothing, and this is what to use instead.
    Nothing(&'static str),
}
use Effect::{Must, Nothing, Sets};

/// The list of corpora, whose elements have keys of their own.
pub(super) const DATA_INFO: &str = "dataset.language_modeling.general_lm.train_data_info";
/// The tokenizer's file, which Apple's files leave to the user.
pub(super) const MODEL_PATH: &str = "text_tokenizer.sentence_piece.model_path";

const RESUME: &str = "--resume continues a run";
const OUT: &str = "--out names the run's folder";
const ONE_FILE_AT_A_TIME: &str = "a run's state is kept in its checkpoints";
const VALIDATION: &str = "the section `validation` of our form scores held-out text (--set validation.corpora=...)";
const LOADER: &str = "reading ahead is set by data.prefetch and data.threads";
const STATS: &str = "losses, gradient norm and speed are always logged";
const FSDP: &str = "weights are not sharded";
const DDP: &str = "one process trains";

/// Every key of a CoreNet file.
#[rustfmt::skip]
pub(in crate::config) const KEYS: &[(&str, Effect)] = &[
    ("taskname", Sets(&["name"])),
    ("common.seed", Sets(&["seed"])),
    ("common.grad_clip", Sets(&["training.grad_clip"])),
    ("common.mixed_precision", Sets(&["training.dtype"])),
    ("common.mixed_precision_dtype", Sets(&["training.dtype"])),
    ("common.accum_freq", Sets(&["training.global_batch"])),
    ("common.accum_after_epoch", Must("0")),
    ("common.log_freq", Sets(&["log.every"])),
    ("common.tensorboard_logging", Sets(&["log.tensorboard"])),
    ("common.save_interval_freq", Sets(&["checkpoint.every", "checkpoint.keep_every"])),
    ("common.resume", Must("null")),
    ("common.finetune", Must("null")),
    ("common.run_label", Nothing(OUT)),
    ("common.auto_resume", Nothing(RESUME)),
    ("common.save_all_checkpoints", Nothing("checkpoints of every save_interval_freq are all kept (checkpoint.keep_every)")),
    ("common.k_best_checkpoints", Nothing("checkpoint.keep_last says how many stay")),
    ("common.eval_every_k_iterations", Nothing(VALIDATION)),
    ("common.results_loc", Nothing(OUT)),
    ("common.logs_loc", Nothing(OUT)),
    ("common.file_logging", Nothing("metrics.jsonl is always written")),
    ("common.debug_mode", Nothing("there is no such mode")),
    ("common.set_grad_to_none", Nothing("gradients are new in every update")),
    ("dataset.train_batch_size0", Sets(&["training.micro_batch", "training.global_batch"])),
    ("dataset.workers", Sets(&["data.workers"])),
    ("dataset.category", Must("language_modeling")),
    ("dataset.name", Must("general_lm")),
    ("dataset.language_modeling.sequence_length", Sets(&["data.sequence_length"])),
    ("dataset.language_modeling.min_tokens_per_text", Sets(&["data.min_tokens_per_text"])),
    ("dataset.language_modeling.min_characters_per_text", Sets(&["data.min_characters_per_text"])),
    ("dataset.language_modeling.shuffle_data", Sets(&["data.shuffle"])),
    ("dataset.language_modeling.random_seed", Sets(&["data.seed"])),
    (DATA_INFO, Sets(&["data.corpora"])),
    ("dataset.language_modeling.general_lm.document_split_size", Sets(&["data.document_split_words"])),
    ("dataset.language_modeling.general_lm.data_state", Must("null")),
    ("dataset.language_modeling.general_lm.val_data_info", Nothing(VALIDATION)),
    ("dataset.language_modeling.general_lm.test_data_info", Nothing(VALIDATION)),
    ("dataset.language_modeling.general_lm.reader_chunk_size", Nothing("files are streamed, which changes no sequence")),
    ("dataset.language_modeling.general_lm.data_state_save_interval", Nothing(ONE_FILE_AT_A_TIME)),
    ("dataset.root_train", Nothing("file_name is the whole path")),
    ("dataset.root_val", Nothing(VALIDATION)),
    ("dataset.root_test", Nothing(VALIDATION)),
    ("dataset.disable_val", Nothing(VALIDATION)),
    ("dataset.val_batch_size0", Nothing(VALIDATION)),
    ("dataset.eval_batch_size0", Nothing(VALIDATION)),
    ("dataset.persistent_workers", Nothing(LOADER)),
    ("dataset.pin_memory", Nothing(LOADER)),
    ("dataset.prefetch_factor", Nothing(LOADER)),
    ("text_tokenizer.name", Must("sentence_piece")),
    (MODEL_PATH, Sets(&["tokenizer.path"])),
    ("text_tokenizer.sentence_piece.enable_nfc_normalization", Sets(&["data.normalize"])),
    ("text_tokenizer.sentence_piece.append_sot_token", Sets(&["data.add_bos"])),
    ("text_tokenizer.sentence_piece.append_eot_token", Sets(&["data.add_eos"])),
    ("loss.category", Must("language_modeling")),
    ("loss.language_modeling.name", Must("cross_entropy")),
    ("loss.language_modeling.cross_entropy.ignore_index", Must("the model's padding_index")),
    ("loss.language_modeling.cross_entropy.label_smoothing", Must("0")),
    ("loss.language_modeling.cross_entropy.use_z_loss", Sets(&["training.z_loss"])),
    ("loss.language_modeling.cross_entropy.z_loss_eps", Sets(&["training.z_loss"])),
    ("optim.name", Must("adamw")),
    ("optim.weight_decay", Sets(&["optimizer.weight_decay"])),
    ("optim.no_decay_bn_filter_bias", Sets(&["optimizer.no_decay_1d"])),
    ("optim.adamw.beta1", Sets(&["optimizer.beta1"])),
    ("optim.adamw.beta2", Sets(&["optimizer.beta2"])),
    ("optim.adamw.eps", Sets(&["optimizer.eps"])),
    ("optim.adamw.amsgrad", Must("false")),
    ("optim.eps", Nothing("optim.adamw.eps is what counts, in CoreNet too")),
    ("optim.bypass_parameters_check", Nothing("all parameters are trained")),
    ("scheduler.name", Must("cosine")),
    ("scheduler.is_iteration_based", Must("true")),
    ("scheduler.max_iterations", Sets(&["training.steps", "schedule.max_iterations"])),
    ("scheduler.warmup_iterations", Sets(&["schedule.warmup_steps"])),
    ("scheduler.warmup_init_lr", Sets(&["schedule.warmup_init_lr"])),
    ("scheduler.cosine.max_lr", Sets(&["schedule.max_lr"])),
    ("scheduler.cosine.min_lr", Sets(&["schedule.min_lr"])),
    ("scheduler.lr", Nothing("the cosine has its own learning rates, in CoreNet too")),
    ("scheduler.max_epochs", Nothing("runs are counted in updates")),
    ("scheduler.adjust_period_for_epochs", Nothing("runs are counted in updates")),
    ("model.activation_checkpointing", Sets(&["training.activation_checkpointing"])),
    ("model.language_modeling.name", Must("general_gpt")),
    ("model.language_modeling.pretrained", Must("null")),
    ("model.language_modeling.general_gpt.model_name", Sets(&["model.preset"])),
    ("model.language_modeling.general_gpt.vocab_size", Sets(&["model.vocab_size"])),
    ("model.language_modeling.general_gpt.max_context_length", Sets(&["model.max_context_length"])),
    ("model.language_modeling.general_gpt.padding_index", Sets(&["model.padding_index"])),
    ("stats.train", Nothing(STATS)),
    ("stats.val", Nothing(STATS)),
    ("stats.checkpoint_metric", Nothing("no checkpoint is chosen by a metric")),
    ("stats.checkpoint_metric_max", Nothing("no checkpoint is chosen by a metric")),
    ("train_eval_pipeline.name", Sets(&["training.dtype"])),
    ("fsdp.parameter_datatype", Sets(&["training.dtype"])),
    ("fsdp.sharding_strategy", Nothing(FSDP)),
    ("fsdp.backward_prefetching", Nothing(FSDP)),
    ("fsdp.gradient_reduction_datatype", Nothing("gradients are reduced in f32")),
    ("fsdp.buffer_datatype", Nothing("buffers are f32")),
    ("fsdp.cpu_offload", Nothing(FSDP)),
    ("fsdp.limit_all_gathers", Nothing(FSDP)),
    ("ddp.rank", Nothing(DDP)),
    ("ddp.world_size", Nothing(DDP)),
    ("ddp.dist_url", Nothing(DDP)),
    ("ddp.dist_port", Nothing(DDP)),
    ("ddp.device_id", Nothing("training.device names the device")),
    ("ddp.backend", Nothing(DDP)),
    ("ddp.find_unused_params", Nothing(DDP)),
];

/// Sections that only a CoreNet file has.
const CORENET_ALONE: &[&str] =
    &["taskname", "common", "dataset", "text_tokenizer", "loss", "optim", "scheduler", "stats", "train_eval_pipeline", "fsdp", "ddp"];
/// Sections that only our form has.
const OURS_ALONE: &[&str] = &[
    "name",
    "seed",
    "tokenizer",
    "data",
    "validation",
    "eval",
    "training",
    "optimizer",
    "schedule",
    "checkpoint",
    "log",
    "sample",
    "export",
];

/// Whether most of what only one of the two forms has is CoreNet's.
pub(super) fn mostly_corenet(value: &Value) -> bool {
    let count = |keys: &[&str]| keys.iter().filter(|key| value.get(**key).is_some()).count();
    count(CORENET_ALONE) > count(OURS_ALONE)
}

/// Whose key an override names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    CoreNet,
    Ours,
    Nobody,
}

/// Decides by the first part; `model` is in both forms, so there the second part decides.
pub(super) fn owner(first: &str, second: Option<&str>) -> Owner {
    match (first, second) {
        ("model", Some("activation_checkpointing" | "language_modeling")) => Owner::CoreNet,
        ("model", _) => Owner::Ours,
        _ if CORENET_ALONE.contains(&first) => Owner::CoreNet,
        _ if OURS_ALONE.contains(&first) => Owner::Ours,
        _ => Owner::Nobody,
    }
}

/// All first parts that an override can have.
pub(super) fn sections() -> Vec<String> {
    CORENET_ALONE.iter().chain(OURS_ALONE).chain(&["model"]).map(|key| (*key).to_owned()).collect()
}

/// The CoreNet key that one of our keys came from.
pub(super) fn theirs(ours: &str) -> Option<String> {
    if let Some(rest) = ours.strip_prefix("data.corpora[") {
        let (index, field) = rest.split_once("].")?;
        let field = if field.starts_with("files") || field == "name" { "file_name" } else { field };
        return Some(format!("{DATA_INFO}[{index}].{field}"));
    }
    // More than one key may set it: the first that sets nothing else is nearest to it.
    let candidates = || {
        KEYS.iter().filter_map(|(key, effect)| match effect {
            Sets(keys) if keys.contains(&ours) => Some((*key, keys.len())),
            _ => None,
        })
    };
    candidates().min_by_key(|(_, count)| *count).map(|(key, _)| key.to_owned())
}

/// Whether `key` is in the file.
pub(super) fn is_given(value: &Value, key: &str) -> bool {
    key.split('.').try_fold(value, |node, part| node.get(part)).is_some()
}

/// A line for each key in the file that does nothing.
pub(super) fn without_effect(value: &Value) -> Vec<String> {
    KEYS.iter()
        .filter_map(|(key, effect)| match effect {
            Nothing(instead) if is_given(value, key) => Some(no_effect(key, instead)),
            _ => None,
        })
        .collect()
}

/// The line of one key.
pub(super) fn no_effect(key: &str, instead: &str) -> String {
    format!("{key} has no effect: {instead}")
}
