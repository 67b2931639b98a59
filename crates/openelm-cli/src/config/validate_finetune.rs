//! Numbers and keys of a fine-tuning file that are well-formed and still make no run.
//!
//! What must stay true: each check names the key to change; a key without effect is refused.

use super::paths::is_remote;
use super::validate::{
    Check, at_least_one, at_most, check_adamw, check_batches, check_checkpoint_and_log, check_rates, check_sample, not_negative, require,
};
use super::{ConfigError, EvalSection, FinetuneConfig, LayoutName, ObjectiveKind};

impl FinetuneConfig {
    /// Checks every number by itself and against the others. No file is looked at.
    ///
    /// # Errors
    /// The first key whose value makes the run impossible, with the reason and a remedy.
    pub fn validate(&self) -> Result<(), ConfigError> {
        require(!self.name.trim().is_empty(), "name", "is empty", "give the run a name")?;
        self.check_objective()?;
        self.check_data()?;
        self.check_training()?;
        self.check_adapter()?;
        check_checkpoint_and_log(&self.checkpoint, &self.log)?;
        self.eval.as_ref().map_or(Ok(()), EvalSection::check)?;
        self.sample.as_ref().map_or(Ok(()), check_sample)
    }

    fn check_objective(&self) -> Check {
        let (objective, data) = (&self.objective, &self.data);
        let preference = objective.kind == ObjectiveKind::Preference;
        let (name, foreign) = if preference {
            let foreign = [
                ("objective.train_on", objective.train_on.is_some()),
                ("objective.packing", objective.packing.is_some()),
                ("data.layout", data.layout != LayoutName::Auto),
                ("training.z_loss", self.training.z_loss != 0.0),
            ];
            ("preference", foreign.to_vec())
        } else {
            let foreign = [
                ("objective.loss", objective.loss.is_some()),
                ("objective.beta", objective.beta.is_some()),
                ("objective.label_smoothing", objective.label_smoothing.is_some()),
                ("objective.average", objective.average.is_some()),
                ("objective.reference", objective.reference.is_some()),
                ("data.max_prompt_length", data.max_prompt_length.is_some()),
            ];
            ("supervised", foreign.to_vec())
        };
        let beta = objective.beta.unwrap_or(0.1);
        require(beta.is_finite() && beta > 0.0, "objective.beta", format!("is {beta}"), "give a number above 0; OpenELM used 0.01")?;
        let smoothing = objective.label_smoothing.unwrap_or(0.0);
        let hint = "give a number from 0 to below 0.5";
        require((0.0..0.5).contains(&smoothing), "objective.label_smoothing", format!("is {smoothing}"), hint)?;
        match foreign.into_iter().find(|(_, given)| *given) {
            Some((key, _)) => require(false, key, format!("has no meaning for a {name} objective"), "leave it out"),
            None => Ok(()),
        }
    }

    fn check_data(&self) -> Check {
        let data = &self.data;
        let held_out = self.validation.as_ref().map(|validation| ("validation.files", &validation.files));
        for (key, files) in [Some(("data.files", &data.files)), held_out].into_iter().flatten() {
            require(!files.is_empty(), key, "is empty", "name the files of the conversations")?;
            for (index, file) in files.iter().enumerate() {
                let key = format!("{key}[{index}]");
                require(!file.is_empty(), &*key, "is empty", "name a file, or a pattern such as data/*.jsonl")?;
                require(!is_remote(file), key, format!("{file} is on another machine"), "download the file and name it here")?;
            }
        }
        at_most("data.max_length", data.max_length, 1 << 24)?;
        require(data.max_length >= 2, "data.max_length", format!("is {}", data.max_length), "give a number of at least 2, such as 1024")?;
        if self.objective.kind == ObjectiveKind::Supervised {
            return Ok(());
        }
        let prompt = self.max_prompt_length();
        at_least_one("data.max_prompt_length", prompt)?;
        require(
            prompt < data.max_length,
            "data.max_prompt_length",
            format!("{prompt} leaves no room for an answer within max_length ({})", data.max_length),
            "use half of max_length, as OpenELM did",
        )
    }

    /// Tokens of a prompt that has to be cut: what the file says, else half of `max_length`.
    pub fn max_prompt_length(&self) -> u64 {
        self.data.max_prompt_length.unwrap_or(self.data.max_length / 2)
    }

    /// What needs no look at the model: the names and expressions are checked with it.
    fn check_adapter(&self) -> Check {
        let Some(adapter) = &self.adapter else { return Ok(()) };
        let ranks =
            std::iter::once(("adapter.r", adapter.r)).chain(adapter.rank_pattern.values().map(|rank| ("adapter.rank_pattern", *rank)));
        for (key, rank) in ranks {
            at_least_one(key, rank)?;
            at_most(key, rank, 1 << 24)?;
        }
        let alphas = adapter.lora_alpha.iter().map(|alpha| ("adapter.lora_alpha", *alpha));
        for (key, alpha) in alphas.chain(adapter.alpha_pattern.values().map(|alpha| ("adapter.alpha_pattern", *alpha))) {
            require(alpha.is_finite(), key, format!("holds {alpha}"), "give a number such as r")?;
        }
        let dropout = adapter.lora_dropout;
        let share = (0.0..1.0).contains(&dropout);
        require(share, "adapter.lora_dropout", format!("{dropout} does not lie in [0, 1)"), "give a share such as 0.1")
    }

    fn check_training(&self) -> Check {
        let (training, optimizer, schedule) = (&self.training, &self.optimizer, &self.schedule);
        let hint = "give one of epochs and steps";
        require(training.epochs.is_some() || training.steps.is_some(), "training.epochs", "is missing, and there is no steps", hint)?;
        require(training.epochs.is_none() || training.steps.is_none(), "training.steps", "stands beside epochs", hint)?;
        at_least_one("training.steps", training.steps.unwrap_or(1))?;
        if let Some(epochs) = training.epochs {
            let holds = epochs.is_finite() && epochs > 0.0 && epochs <= 1e6;
            require(holds, "training.epochs", format!("is {epochs}"), "give a number of passes above 0")?;
        }
        check_batches(training.global_batch, training.micro_batch)?;
        not_negative("training.grad_clip", training.grad_clip)?;
        not_negative("training.z_loss", training.z_loss)?;
        require(!training.device.trim().is_empty(), "training.device", "is empty", "name a device, for example flex")?;
        check_adamw(optimizer.weight_decay, [optimizer.beta1, optimizer.beta2], optimizer.eps)?;
        check_rates([schedule.max_lr, schedule.min_lr], "2.0e-5", "use 0")?;
        let ratio = schedule.warmup_ratio;
        require(
            (0.0..1.0).contains(&ratio),
            "schedule.warmup_ratio",
            format!("is {ratio}"),
            "give a share of at least 0 and below 1, such as 0.1",
        )
    }
}
