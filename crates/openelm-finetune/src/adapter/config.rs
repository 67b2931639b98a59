//! PEFT's `adapter_config.json` (`peft/tuners/lora/config.py`), read and written strictly.
//!
//! What must stay true: a key that would change what the adapter computes is understood or refused by name; what is written has every
//! key that PEFT 0.10 writes, so that any later version reads it.

use std::path::Path;

use openelm_train::openelm_checkpoint::{ADAPTER_CONFIG, adapter_folder};
use serde_json::{Map, Value, json};

use super::error::AdapterError;
use super::pattern::Pattern;

/// The modules that an adapter changes.
#[derive(Clone, Debug, PartialEq)]
pub enum Targets {
    /// Ends of their names.
    Names(Vec<String>),
    /// A regular expression for their whole names.
    Pattern(String),
}

/// A low-rank adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    pub r: usize,
    pub lora_alpha: f64,
    /// Share of each module's input that is dropped in training.
    pub lora_dropout: f64,
    pub target_modules: Targets,
    /// Other ranks, by regular expressions for the ends of modules' names; the first that matches holds.
    pub rank_pattern: Vec<(String, usize)>,
    /// Other alphas.
    pub alpha_pattern: Vec<(String, f64)>,
    /// alpha / √r instead of alpha / r.
    pub use_rslora: bool,
    /// DoRA: a trained magnitude for each row.
    pub use_dora: bool,
    /// Where the base model is, for whoever loads the adapter.
    pub base: Option<String>,
}

/// Keys that may only have the values that switch them off, or that say nothing about the computation.
const OFF: [(&str, &[&str]); 8] = [
    ("bias", &["\"none\"", "null"]),
    ("fan_in_fan_out", &["false", "null"]),
    ("modules_to_save", &["null", "[]"]),
    ("layers_to_transform", &["null"]),
    ("layers_pattern", &["null", "[]"]),
    ("layer_replication", &["null"]),
    ("exclude_modules", &["null", "[]"]),
    ("loftq_config", &["{}", "null"]),
];
const SILENT: [&str; 10] = [
    "auto_mapping",
    "inference_mode",
    "revision",
    "task_type",
    "peft_version",
    "megatron_core",
    "megatron_config",
    "runtime_config",
    "ensure_weight_tying",
    // Has a meaning with use_qalora alone, which is refused.
    "qalora_group_size",
];

impl AdapterConfig {
    /// The configuration of the adapter at `path`: a folder of PEFT's, a checkpoint, or a run that trains an adapter.
    ///
    /// # Errors
    /// When there is none, or it asks for what is not supported.
    pub fn load(path: &Path) -> Result<Self, AdapterError> {
        let Some(folder) = adapter_folder(path)? else {
            let reason = format!("no {ADAPTER_CONFIG}");
            let hint = "give a folder that PEFT wrote, or the folder of a run with an adapter section";
            return Err(AdapterError::Missing { path: path.to_owned(), reason, hint });
        };
        let file = folder.join(ADAPTER_CONFIG);
        let place = file.display().to_string();
        let text = std::fs::read(&file).map_err(|source| AdapterError::io(&file, "reading it", source))?;
        let value: Value = serde_json::from_slice(&text)
            .map_err(|error| AdapterError::config(&place, "(the file)", error.to_string(), "it must be the JSON that PEFT writes"))?;
        Self::from_json(&place, &value)
    }

    /// Reads PEFT's form; `place` is what errors call it.
    ///
    /// # Errors
    /// A key that is missing, unknown, of the wrong kind, or asks for what is not supported.
    pub fn from_json(place: &str, value: &Value) -> Result<Self, AdapterError> {
        let Value::Object(object) = value else {
            return Err(AdapterError::config(place, "(the file)", "it holds no object", "it must be the JSON that PEFT writes"));
        };
        let mut keys = Keys { place, rest: object.clone() };
        let kind = keys.take("peft_type");
        if kind != Some(json!("LORA")) {
            let reason = format!("is {}, and only LORA is supported", kind.unwrap_or(Value::Null));
            return Err(keys.fault("peft_type", reason, "train a LoRA or DoRA adapter"));
        }
        let config = Self {
            r: keys.count("r")?,
            lora_alpha: keys.number("lora_alpha")?,
            lora_dropout: keys.number_or("lora_dropout", 0.0)?,
            target_modules: keys.targets()?,
            rank_pattern: keys.patterns("rank_pattern", |value| value.as_u64().and_then(|value| usize::try_from(value).ok()))?,
            alpha_pattern: keys.patterns("alpha_pattern", Value::as_f64)?,
            use_rslora: keys.flag("use_rslora")?,
            use_dora: keys.flag("use_dora")?,
            base: keys.take("base_model_name_or_path").and_then(|value| value.as_str().map(str::to_owned)),
        };
        keys.finish()?;
        config.check(place)?;
        Ok(config)
    }

    /// Fails where the numbers or the expressions make no adapter; `place` is what errors call it.
    ///
    /// # Errors
    /// The first key that does.
    pub fn check(&self, place: &str) -> Result<(), AdapterError> {
        let fault = |key: &str, reason: String, hint: &str| Err(AdapterError::config(place, key, reason, hint));
        if self.r == 0 || self.rank_pattern.iter().any(|(_, rank)| *rank == 0) {
            return fault(if self.r == 0 { "r" } else { "rank_pattern" }, "a rank is 0".into(), "give at least 1");
        }
        let alphas = std::iter::once(self.lora_alpha).chain(self.alpha_pattern.iter().map(|(_, alpha)| *alpha));
        if let Some(bad) = alphas.into_iter().find(|alpha| !alpha.is_finite()) {
            return fault("lora_alpha", format!("{bad} is no finite number"), "give a number such as r");
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return fault("lora_dropout", format!("{} does not lie in [0, 1)", self.lora_dropout), "give a share such as 0.1");
        }
        let own = match &self.target_modules {
            Targets::Names(names) if names.is_empty() => {
                return fault("target_modules", "names no module".into(), "name modules, such as qkv_proj");
            }
            Targets::Names(_) => None,
            Targets::Pattern(pattern) => Some(("target_modules", pattern)),
        };
        let ranks = self.rank_pattern.iter().map(|(pattern, _)| ("rank_pattern", pattern));
        let alphas = self.alpha_pattern.iter().map(|(pattern, _)| ("alpha_pattern", pattern));
        for (key, pattern) in own.into_iter().chain(ranks).chain(alphas) {
            if let Err(reason) = Pattern::new(pattern) {
                return fault(key, format!("{pattern}: {reason}"), "simplify the expression, or list the modules");
            }
        }
        Ok(())
    }

    /// PEFT's form.
    pub fn to_json(&self) -> Value {
        let number = |value: f64| {
            // PEFT writes alpha as it was given, and everybody gives whole numbers as such.
            if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
        };
        let object = |pairs: Vec<(String, Value)>| Value::Object(pairs.into_iter().collect());
        json!({
            "alpha_pattern": object(self.alpha_pattern.iter().map(|(key, alpha)| (key.clone(), number(*alpha))).collect()),
            "auto_mapping": null,
            "base_model_name_or_path": self.base,
            "bias": "none",
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "layer_replication": null,
            "layers_pattern": null,
            "layers_to_transform": null,
            "loftq_config": {},
            "lora_alpha": number(self.lora_alpha),
            "lora_dropout": self.lora_dropout,
            "megatron_config": null,
            "megatron_core": "megatron.core",
            "modules_to_save": null,
            "peft_type": "LORA",
            "r": self.r,
            "rank_pattern": object(self.rank_pattern.iter().map(|(key, rank)| (key.clone(), json!(rank))).collect()),
            "revision": null,
            "target_modules": match &self.target_modules {
                Targets::Names(names) => json!(names),
                Targets::Pattern(pattern) => json!(pattern),
            },
            "task_type": "CAUSAL_LM",
            "use_dora": self.use_dora,
            "use_rslora": self.use_rslora,
        })
    }

    /// What B · A is multiplied by, for a module of this rank and alpha.
    pub(super) fn scale(&self, rank: usize, alpha: f64) -> f64 {
        if self.use_rslora { alpha / (rank as f64).sqrt() } else { alpha / rank as f64 }
    }
}

/// The keys that nobody has looked at yet.
struct Keys<'a> {
    place: &'a str,
    rest: Map<String, Value>,
}

impl Keys<'_> {
    fn fault(&self, key: &str, reason: impl Into<String>, hint: &str) -> AdapterError {
        AdapterError::config(self.place, key, reason, hint)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        self.rest.shift_remove(key).filter(|value| !value.is_null())
    }

    fn count(&mut self, key: &str) -> Result<usize, AdapterError> {
        let value = self.take(key).unwrap_or(Value::Null);
        value
            .as_u64()
            .and_then(|value| usize::try_from(value).ok())
            .ok_or_else(|| self.fault(key, format!("{value} is no whole number"), "give a positive number"))
    }

    fn number(&mut self, key: &str) -> Result<f64, AdapterError> {
        let value = self.take(key).unwrap_or(Value::Null);
        value.as_f64().ok_or_else(|| self.fault(key, format!("{value} is no number"), "give a number"))
    }

    fn number_or(&mut self, key: &str, default: f64) -> Result<f64, AdapterError> {
        if self.rest.get(key).is_none_or(Value::is_null) { Ok(default) } else { self.number(key) }
    }

    fn flag(&mut self, key: &str) -> Result<bool, AdapterError> {
        match self.take(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.fault(key, format!("{other} is neither true nor false"), "give true or false")),
        }
    }

    fn targets(&mut self) -> Result<Targets, AdapterError> {
        let fault =
            |keys: &Self, reason: String| keys.fault("target_modules", reason, "list modules such as qkv_proj, or give one expression");
        match self.take("target_modules") {
            Some(Value::String(pattern)) => Ok(Targets::Pattern(pattern)),
            Some(Value::Array(list)) => {
                let names = list
                    .iter()
                    .map(|name| name.as_str().map(str::to_owned).ok_or_else(|| fault(self, format!("{name} is no module's name"))));
                Ok(Targets::Names(names.collect::<Result<_, _>>()?))
            }
            other => Err(fault(self, format!("{} names no modules", other.unwrap_or(Value::Null)))),
        }
    }

    fn patterns<T>(&mut self, key: &str, read: impl Fn(&Value) -> Option<T>) -> Result<Vec<(String, T)>, AdapterError> {
        let object = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(object)) => object,
            Some(other) => return Err(self.fault(key, format!("{other} is no object"), "give names of modules with their numbers")),
        };
        let pair = |(name, value): (String, Value)| {
            let found = read(&value);
            found
                .map(|found| (name.clone(), found))
                .ok_or_else(|| self.fault(key, format!("{name}: {value} does not fit"), "give a number"))
        };
        object.into_iter().map(pair).collect()
    }

    /// Fails where what is left would change the computation.
    fn finish(mut self) -> Result<(), AdapterError> {
        for key in SILENT {
            self.rest.shift_remove(key);
        }
        if let Some(value) = self.rest.shift_remove("init_lora_weights")
            && !matches!(&value, Value::Bool(_) | Value::Null)
            && value != "gaussian"
        {
            let reason = format!("{value} changes the base's weights, and is not supported");
            return Err(self.fault("init_lora_weights", reason, "train with init_lora_weights true"));
        }
        for (key, allowed) in OFF {
            if let Some(value) = self.rest.shift_remove(key)
                && !allowed.contains(&value.to_string().as_str())
            {
                let reason = format!("{value} is not supported");
                return Err(self.fault(key, reason, &format!("train the adapter with {key} = {}", allowed[0])));
            }
        }
        // Later versions of PEFT have keys for what this one lacks; switched off, they change nothing.
        let off = |value: &Value| match value {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(object) => object.is_empty(),
            _ => false,
        };
        match self.rest.iter().find(|(_, value)| !off(value)) {
            Some((key, value)) => {
                Err(self.fault(key, format!("{value}: this key is not supported"), "leave it away if it changes nothing"))
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> AdapterConfig {
        AdapterConfig {
            r: 8,
            lora_alpha: 16.0,
            lora_dropout: 0.05,
            target_modules: Targets::Names(vec!["qkv_proj".into(), "proj_2".into()]),
            rank_pattern: vec![("layers.0.attn.qkv_proj".into(), 4)],
            alpha_pattern: vec![("proj_2".into(), 2.5)],
            use_rslora: true,
            use_dora: false,
            base: Some("base".into()),
        }
    }

    #[test]
    fn written_and_read_is_the_same() {
        for targets in [config().target_modules, Targets::Pattern(r".*\.(qkv|out)_proj".into())] {
            let config = AdapterConfig { target_modules: targets, ..config() };
            assert_eq!(AdapterConfig::from_json("x", &config.to_json()).unwrap(), config);
        }
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let reason = |key: &str, value: Value| {
            let mut json = config().to_json();
            json[key] = value;
            let error = AdapterConfig::from_json("file", &json).unwrap_err().to_string();
            assert!(error.starts_with(&format!("file: {key}: ")) && error.contains("\nhint: "), "{error}");
            error
        };
        reason("bias", json!("all"));
        reason("modules_to_save", json!(["lm_head"]));
        reason("fan_in_fan_out", json!(true));
        reason("layers_to_transform", json!([1]));
        reason("init_lora_weights", json!("pissa"));
        reason("r", json!(0));
        reason("r", json!("eight"));
        reason("lora_alpha", Value::Null);
        reason("lora_dropout", json!(1.0));
        reason("peft_type", json!("LOHA"));
        reason("use_dora", json!(1));
        reason("target_modules", json!([]));
        reason("target_modules", json!("(a"));
        reason("rank_pattern", json!({"a": -1}));
        reason("trainable_token_indices", json!([1]));
        let mut later = config().to_json();
        later["lora_bias"] = json!(false);
        later["corda_config"] = Value::Null;
        later["qalora_group_size"] = json!(16);
        assert_eq!(AdapterConfig::from_json("file", &later).unwrap(), config());
    }
}
