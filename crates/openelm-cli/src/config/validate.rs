//! Numbers that are well-formed and still make no run, in the model, the training, the schedule and the small sections.
//!
//! What must stay true: each check names the key to change; nothing is corrected silently.

use super::validate_data::check_data;
use super::{CheckpointSection, ConfigError, EvalSection, LogSection, ModelSection, Multipliers, RunConfig, SampleSection};

/// Shorthand of every check.
pub(super) type Check = Result<(), ConfigError>;

/// Fails unless `holds`.
pub(super) fn require(holds: bool, key: impl Into<String>, reason: impl Into<String>, hint: impl Into<String>) -> Check {
    if holds { Ok(()) } else { Err(ConfigError::impossible(key, reason, hint)) }
}

/// Fails for 0.
pub(super) fn at_least_one(key: impl Into<String>, value: u64) -> Check {
    require(value >= 1, key, "is 0", "give a number of at least 1")
}

/// Fails for numbers that no memory holds.
pub(super) fn at_most(key: impl Into<String>, value: u64, limit: u64) -> Check {
    require(value <= limit, key, format!("is {value}"), format!("give a number of at most {limit}"))
}

/// Fails for NaN, infinity and numbers below 0.
pub(super) fn not_negative(key: impl Into<String>, value: f64) -> Check {
    let holds = value.is_finite() && value >= 0.0;
    require(holds, key, format!("is {value}"), "give a finite number of at least 0")
}

impl RunConfig {
    /// Checks every number by itself and against the others. No file is looked at.
    ///
    /// # Errors
    /// The first key whose value makes the run impossible, with the reason and a remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.name.trim().is_empty(), "name", "is empty", "give the run a name")?;
        check_model(&self.model)?;
        check_data(self)?;
        self.check_training()?;
        self.check_optimizer()?;
        self.check_schedule()?;
        self.check_rest()
    }

    fn check_training(&self) -> Check {
        let training = &self.training;
        at_least_one("training.steps", training.steps)?;
        check_batches(training.global_batch, training.micro_batch)?;
        not_negative("training.grad_clip", training.grad_clip)?;
        not_negative("training.z_loss", training.z_loss)?;
        require(!training.device.trim().is_empty(), "training.device", "is empty", "name a device, for example flex")
    }

    fn check_optimizer(&self) -> Check {
        let optimizer = &self.optimizer;
        check_adamw(optimizer.weight_decay, [optimizer.beta1, optimizer.beta2], optimizer.eps)
    }

    fn check_schedule(&self) -> Check {
        let (schedule, steps) = (&self.schedule, self.training.steps);
        not_negative("schedule.warmup_init_lr", schedule.warmup_init_lr)?;
        check_rates([schedule.max_lr, schedule.min_lr], "0.001", "use a tenth of max_lr, as OpenELM does")?;
        require(
            schedule.warmup_init_lr <= schedule.max_lr,
            "schedule.warmup_init_lr",
            format!("{} is above max_lr ({})", schedule.warmup_init_lr, schedule.max_lr),
            "start the warm-up below the peak, for example at 1.0e-6",
        )?;
        require(
            schedule.warmup_steps < steps,
            "schedule.warmup_steps",
            format!("{} is not below training.steps ({steps})", schedule.warmup_steps),
            "shorten the warm-up or train for longer",
        )?;
        let end = self.max_iterations();
        require(
            schedule.warmup_steps <= end,
            "schedule.max_iterations",
            format!("{end} is below warmup_steps ({})", schedule.warmup_steps),
            "leave max_iterations out, or set it to about the number of steps",
        )
    }

    fn check_rest(&self) -> Check {
        check_checkpoint_and_log(&self.checkpoint, &self.log)?;
        self.eval.as_ref().map_or(Ok(()), EvalSection::check)?;
        self.sample.as_ref().map_or(Ok(()), check_sample)
    }
}

/// Examples of an update, and how many go through the model at once.
pub(super) fn check_batches(global_batch: u64, micro_batch: u64) -> Check {
    at_least_one("training.micro_batch", micro_batch)?;
    at_least_one("training.global_batch", global_batch)?;
    require(
        global_batch.is_multiple_of(micro_batch),
        "training.global_batch",
        format!("{global_batch} is no multiple of micro_batch ({micro_batch})"),
        "choose a micro_batch that divides global_batch",
    )
}

/// The optimizer's constants.
pub(super) fn check_adamw(weight_decay: f64, [beta1, beta2]: [f64; 2], eps: f64) -> Check {
    not_negative("optimizer.weight_decay", weight_decay)?;
    for (key, beta) in [("optimizer.beta1", beta1), ("optimizer.beta2", beta2)] {
        require((0.0..1.0).contains(&beta), key, format!("is {beta}"), "give a number of at least 0 and below 1")?;
    }
    let holds = eps.is_finite() && eps > 0.0;
    require(holds, "optimizer.eps", format!("is {eps}"), "give a number above 0, such as 1.0e-8")
}

/// The peak and the end of the learning rate; `usual` is a peak, `remedy` what to do about an end above it.
pub(super) fn check_rates([max_lr, min_lr]: [f64; 2], usual: &str, remedy: &str) -> Check {
    not_negative("schedule.max_lr", max_lr)?;
    not_negative("schedule.min_lr", min_lr)?;
    require(max_lr > 0.0, "schedule.max_lr", "is 0", format!("give the peak learning rate, such as {usual}"))?;
    require(min_lr <= max_lr, "schedule.min_lr", format!("{min_lr} is above max_lr ({max_lr})"), remedy)
}

/// When checkpoints and lines of the log are written.
pub(super) fn check_checkpoint_and_log(checkpoint: &CheckpointSection, log: &LogSection) -> Check {
    at_least_one("checkpoint.keep_last", checkpoint.keep_last)?;
    require(
        checkpoint.keep_every == 0 || (checkpoint.every > 0 && checkpoint.keep_every.is_multiple_of(checkpoint.every)),
        "checkpoint.keep_every",
        format!("{} is no multiple of checkpoint.every ({})", checkpoint.keep_every, checkpoint.every),
        "only steps at which a checkpoint is written can be kept",
    )?;
    at_least_one("log.every", log.every)
}

/// The text at the end of a run.
pub(super) fn check_sample(sample: &SampleSection) -> Check {
    at_least_one("sample.max_new_tokens", sample.max_new_tokens)?;
    not_negative("sample.temperature", sample.temperature)?;
    let holds = sample.top_p > 0.0 && sample.top_p <= 1.0;
    require(holds, "sample.top_p", format!("is {}", sample.top_p), "give a number above 0 and up to 1")
}

fn check_model(model: &ModelSection) -> Check {
    let shape = [
        ("num_transformer_layers", model.num_transformer_layers.is_some()),
        ("model_dim", model.model_dim.is_some()),
        ("head_dim", model.head_dim.is_some()),
        ("num_gqa_groups", model.num_gqa_groups.is_some()),
        ("qkv_multipliers", model.qkv_multipliers.is_some()),
        ("ffn_multipliers", model.ffn_multipliers.is_some()),
        ("ffn_dim_divisor", model.ffn_dim_divisor.is_some()),
        ("vocab_size", model.vocab_size.is_some()),
        ("max_context_length", model.max_context_length.is_some()),
    ];
    if model.preset.is_none()
        && let Some((key, _)) = shape.iter().find(|(_, given)| !given)
    {
        return Err(ConfigError::impossible(
            format!("model.{key}"),
            "is missing, and there is no preset to take it from",
            "name a preset (for example `preset: OpenELM-270M`) or give all shape keys",
        ));
    }
    let positive = [
        ("num_transformer_layers", model.num_transformer_layers),
        ("model_dim", model.model_dim),
        ("head_dim", model.head_dim),
        ("num_gqa_groups", model.num_gqa_groups),
        ("ffn_dim_divisor", model.ffn_dim_divisor),
        ("vocab_size", model.vocab_size),
        ("max_context_length", model.max_context_length),
        ("rope_max_length", model.rope_max_length),
    ];
    for (key, value) in positive {
        at_least_one(format!("model.{key}"), value.unwrap_or(1))?;
        let limit = if key == "num_transformer_layers" { 1 << 12 } else { 1 << 24 };
        at_most(format!("model.{key}"), value.unwrap_or(1), limit)?;
    }
    let head_dim = model.head_dim.unwrap_or(2);
    require(
        head_dim.is_multiple_of(2),
        "model.head_dim",
        format!("{head_dim} is odd, but rotary embeddings turn pairs of channels"),
        "use an even number, such as 64",
    )?;
    check_multipliers("model.qkv_multipliers", model.qkv_multipliers.as_ref(), model)?;
    check_multipliers("model.ffn_multipliers", model.ffn_multipliers.as_ref(), model)?;
    let rope = model.rope_freq_constant.unwrap_or(10000.0);
    let holds = rope.is_finite() && rope > 1.0;
    require(holds, "model.rope_freq_constant", format!("is {rope}"), "give a number above 1; OpenELM uses 10000")?;
    if let Some(context) = model.context_length() {
        require(
            model.rope_length() >= context,
            "model.rope_max_length",
            format!("{} is below max_context_length ({context})", model.rope_length()),
            "OpenELM uses twice the context length",
        )?;
    }
    if let (Some(index), Some(rows)) = (model.padding_index, model.vocabulary()) {
        require(
            index < rows,
            "model.padding_index",
            format!("{index} is outside the vocabulary of {rows} rows"),
            "raise vocab_size (OpenELM: 32128 rows for 32000 pieces and padding id 32000) or leave the key out",
        )?;
    }
    Ok(())
}

fn check_multipliers(key: &str, multipliers: Option<&Multipliers>, model: &ModelSection) -> Check {
    let list = match multipliers {
        None => return Ok(()),
        Some(Multipliers::Uniform(value)) => std::slice::from_ref(value),
        Some(Multipliers::List(list)) => {
            let layers = model.num_transformer_layers;
            require(
                list.len() == 2 || (list.len() > 2 && layers.is_none_or(|n| n == list.len() as u64)),
                key,
                format!("has {} numbers", list.len()),
                "give the first and the last layer's, such as [0.5, 4.0], or one number for each layer",
            )?;
            list
        }
    };
    match list.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        Some(value) => require(false, key, format!("holds {value}"), "multipliers are numbers above 0"),
        None => Ok(()),
    }
}
