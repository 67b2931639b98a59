//! What a recipe means for the models on disk: every tensor of the result with its sources and its parameters.
//!
//! What must stay true: once there is a plan, all names, shapes and parameters fit; only reading and arithmetic can fail.

use std::path::{Path, PathBuf};

use openelm_checkpoint::hf_name;
use openelm_checkpoint::{ModelConfig, Multipliers, OpenElm, ParameterInfo, spread_multipliers};
use rayon::prelude::*;

use crate::error::{Difference, MergeError};
use crate::methods::{Inputs, Kind, Method, Parameter, Values};
use crate::models::Models;
use crate::recipe::{Recipe, Slice, Source};
use crate::setting::{Scalar, Settings};

/// Keys of mergekit's that say how much memory to use, not what to compute.
const WITHOUT_EFFECT: [&str; 1] = ["int8_mask"];

/// A recipe, resolved.
#[derive(Debug)]
pub struct Plan {
    method: &'static Method,
    config: ModelConfig,
    tensors: Vec<PlannedTensor>,
    seed: u64,
}

/// One tensor of the result.
#[derive(Debug)]
pub(crate) struct PlannedTensor {
    pub info: ParameterInfo,
    pub(crate) base: Option<(usize, ParameterInfo)>,
    pub(crate) sources: Vec<(usize, ParameterInfo)>,
    whole: Values,
    each: Vec<Values>,
}

/// A slice with every layer range written out.
struct Run<'a> {
    /// Model's number, first layer, settings.
    sources: Vec<(usize, usize, &'a Settings)>,
    base: Option<(usize, usize)>,
    settings: &'a Settings,
    layers: usize,
}

/// Where a tensor stands in the model.
enum Part {
    Layer,
    Before,
    After,
}

impl Plan {
    /// Every model that `recipe` names, once or more often.
    pub fn paths(recipe: &Recipe) -> Vec<PathBuf> {
        let sources = recipe.models.iter().chain(recipe.slices.iter().flat_map(|slice| &slice.sources));
        sources.map(|source| source.model.clone()).chain(recipe.base_model.clone()).collect()
    }

    /// Resolves `recipe` for `models`, which must hold all that it names.
    ///
    /// # Errors
    /// When the method is unknown, a parameter is unknown, missing or out of range, or models do not fit each other.
    pub fn new(recipe: &Recipe, models: &Models) -> Result<Self, MergeError> {
        let fault = |key: &str, reason: String, hint: &str| MergeError::recipe(&recipe.path, key, reason, hint);
        let method = Method::named(&recipe.merge_method).ok_or_else(|| {
            let known: Vec<&str> = crate::METHODS.iter().map(|method| method.name).collect();
            fault("merge_method", format!("`{}` is no known method", recipe.merge_method), &format!("known methods: {}", known.join(", ")))
        })?;
        check_names(recipe, method)?;
        let base = match (&recipe.base_model, method.base) {
            (None, true) => {
                return Err(fault("base_model", format!("is missing, and {} compares with a base", method.name), "add the key base_model"));
            }
            (Some(_), false) | (None, false) => None,
            (Some(path), true) => Some(number(models, path)?),
        };
        let all;
        let slices: Vec<(&[Source], &Settings)> = match (recipe.models.is_empty(), recipe.slices.is_empty()) {
            (false, false) => return Err(fault("slices", "models and slices exclude each other".into(), "keep one of the two")),
            (true, true) => return Err(fault("models", "no model is named".into(), "list the models under `models` or `slices`")),
            (false, true) => {
                all = Settings::new();
                vec![(recipe.models.as_slice(), &all)]
            }
            (true, false) => recipe.slices.iter().map(|Slice { sources, parameters }| (sources.as_slice(), parameters)).collect(),
        };
        let whole_models = recipe.slices.is_empty();
        let mut runs = Vec::with_capacity(slices.len());
        for (place, (sources, settings)) in slices.into_iter().enumerate() {
            let key = if whole_models { "models".to_owned() } else { format!("slices[{place}]") };
            runs.push(run(recipe, models, method, base, sources, settings, &key)?);
        }
        let config = result_config(models, &runs, whole_models)?;
        let mut plan = Self { method, config, tensors: Vec::new(), seed: recipe.seed };
        for info in OpenElm::infos_of(&plan.config)? {
            let tensor = plan_tensor(recipe, models, method, &runs, info)?;
            plan.tensors.push(tensor);
        }
        Ok(plan)
    }

    /// The result's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    pub(crate) fn tensors(&self) -> &[PlannedTensor] {
        &self.tensors
    }

    /// The model that stands for the others where one is needed: for the type of the weights.
    pub(crate) fn first_source(&self) -> Option<(usize, &ParameterInfo)> {
        self.tensors.first()?.sources.first().map(|(model, info)| (*model, info))
    }

    /// Every tensor that the plan reads, some more than once: the model's number and the parameter.
    pub(crate) fn read(&self) -> impl Iterator<Item = &(usize, ParameterInfo)> {
        self.tensors.iter().flat_map(|tensor| tensor.sources.iter().chain(&tensor.base))
    }

    /// The values of one tensor of the result.
    ///
    /// # Errors
    /// When reading fails, a weight is no number, or the method has no result.
    pub(crate) fn merge(&self, models: &Models, tensor: &PlannedTensor) -> Result<Vec<f32>, MergeError> {
        let read = |(model, info): &(usize, ParameterInfo)| models.values(*model, info);
        let owned = tensor.sources.par_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let base = tensor.base.as_ref().map(read).transpose()?;
        let tensors: Vec<&[f32]> = owned.iter().map(AsRef::as_ref).collect();
        let name = hf_name(&tensor.info.name);
        self.apply(tensor, &tensor.inputs(&name, base.as_deref().unwrap_or_default(), &tensors, self.seed))
    }

    /// What the method makes of a tensor, or of a piece of it.
    pub(crate) fn apply(&self, tensor: &PlannedTensor, inputs: &Inputs<'_>) -> Result<Vec<f32>, MergeError> {
        (self.method.merge)(inputs).map_err(|(reason, hint)| MergeError::Method {
            name: hf_name(&tensor.info.name),
            method: self.method.name,
            reason,
            hint,
        })
    }

    pub(crate) fn method(&self) -> &'static Method {
        self.method
    }

    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }
}

impl PlannedTensor {
    /// What the method is given.
    pub(crate) fn inputs<'a>(&'a self, name: &'a str, base: &'a [f32], tensors: &'a [&'a [f32]], seed: u64) -> Inputs<'a> {
        Inputs { name, shape: &self.info.shape, base, tensors, whole: &self.whole, each: &self.each, seed }
    }
}

fn number(models: &Models, path: &Path) -> Result<usize, MergeError> {
    models.number(path).ok_or_else(|| MergeError::recipe(path, "model", "was not opened", "open every model that the recipe names"))
}

/// Every parameter that stands anywhere in the recipe must be one of the method's.
fn check_names(recipe: &Recipe, method: &Method) -> Result<(), MergeError> {
    let sources = recipe.models.iter().chain(recipe.slices.iter().flat_map(|slice| &slice.sources)).map(|source| &source.parameters);
    let all = sources.chain(recipe.slices.iter().map(|slice| &slice.parameters)).chain([&recipe.parameters]);
    for name in all.flat_map(Settings::keys) {
        if WITHOUT_EFFECT.contains(&name.as_str()) || method.parameters.iter().any(|parameter| parameter.name == name) {
            continue;
        }
        let known: Vec<&str> = method.parameters.iter().map(|parameter| parameter.name).collect();
        let reason = format!("`{name}` is no parameter of {}", method.name);
        return Err(MergeError::recipe(&recipe.path, "parameters", reason, format!("its parameters: {}", known.join(", "))));
    }
    Ok(())
}

fn run<'a>(
    recipe: &Recipe,
    models: &Models,
    method: &Method,
    base: Option<usize>,
    sources: &'a [Source],
    settings: &'a Settings,
    key: &str,
) -> Result<Run<'a>, MergeError> {
    let fault = |reason: String, hint: &str| MergeError::recipe(&recipe.path, key, reason, hint);
    let (mut others, mut base_start, mut layers) = (Vec::new(), None, None);
    for source in sources {
        let model = number(models, &source.model)?;
        let count = models.config(model).num_transformer_layers;
        let [from, to] = source.layer_range.unwrap_or([0, count]);
        if source.layer_range.is_some() && recipe.slices.is_empty() {
            return Err(fault("layer_range stands in `models`".into(), "layer ranges belong into slices"));
        }
        if from >= to || to > count {
            let reason = format!("layer_range [{from}, {to}] is no part of the {count} layers of {}", source.model.display());
            return Err(fault(reason, "the first is counted from 0, the second is one past the last"));
        }
        if layers.is_some_and(|layers| layers != to - from) {
            let reason = format!("{} gives {} layers, an earlier model {}", source.model.display(), to - from, layers.unwrap_or(0));
            return Err(fault(reason, "models that are merged layer by layer need equally many layers"));
        }
        layers = Some(to - from);
        if Some(model) == base {
            base_start = Some(from);
        } else {
            others.push((model, from, &source.parameters));
        }
    }
    let (fewest, most) = method.models;
    if others.len() < fewest || others.len() > most {
        let besides = if method.base { " besides the base" } else { "" };
        let range = if most == usize::MAX { format!("at least {fewest}") } else { format!("exactly {fewest}") };
        return Err(fault(format!("{} takes {range} model(s){besides}, not {}", method.name, others.len()), "change the list of models"));
    }
    // A base that is not listed gives the layers that the first model's stand in for.
    let first = others.first().map_or(0, |(_, from, _)| *from);
    let base = base.map(|model| (model, base_start.unwrap_or(first)));
    Ok(Run { sources: others, base, settings, layers: layers.unwrap_or(0) })
}

/// The configuration of the result: the first model's, with the layers that the runs take.
fn result_config(models: &Models, runs: &[Run<'_>], whole_models: bool) -> Result<ModelConfig, MergeError> {
    let mut config = models.config(runs.first().and_then(|run| run.sources.first()).map_or(0, |(model, ..)| *model)).clone();
    if whole_models {
        return Ok(config);
    }
    let (mut qkv, mut ffn) = (Vec::new(), Vec::new());
    for run in runs {
        let Some((model, from, _)) = run.sources.first() else { continue };
        let source = models.config(*model);
        let range = *from..from + run.layers;
        qkv.extend(per_layer(&source.qkv_multipliers, source.num_transformer_layers).drain(range.clone()));
        ffn.extend(per_layer(&source.ffn_multipliers, source.num_transformer_layers).drain(range));
        if source.ffn_dim_divisor != config.ffn_dim_divisor {
            config.ffn_dim_divisor = 1;
        }
    }
    config.num_transformer_layers = qkv.len();
    config.qkv_multipliers = Multipliers::List(qkv);
    config.ffn_multipliers = Multipliers::List(ffn);
    Ok(config)
}

/// One multiplier a layer; the configuration was checked when the model was opened.
fn per_layer(multipliers: &Multipliers, layers: usize) -> Vec<f64> {
    match multipliers {
        Multipliers::Uniform(value) => vec![*value; layers],
        Multipliers::List(list) => match list[..] {
            [first, last] => spread_multipliers(first, last, layers),
            _ => list.clone(),
        },
    }
}

fn plan_tensor(
    recipe: &Recipe,
    models: &Models,
    method: &Method,
    runs: &[Run<'_>],
    info: ParameterInfo,
) -> Result<PlannedTensor, MergeError> {
    let layer = layer_of(&info.name);
    let part = match layer {
        Some(_) => Part::Layer,
        None if info.name.starts_with("token_embeddings") => Part::Before,
        None => Part::After,
    };
    // The run that makes the tensor, and the layer's place in it.
    let (mut run, mut place) = (&runs[0], layer.unwrap_or(0));
    match part {
        Part::Before => {}
        Part::After => run = &runs[runs.len() - 1],
        Part::Layer => {
            for candidate in runs {
                run = candidate;
                if place < run.layers {
                    break;
                }
                place -= run.layers;
            }
        }
    }
    let t = match part {
        Part::Before => 0.0,
        Part::After => 1.0,
        Part::Layer if run.layers > 1 => place as f64 / (run.layers - 1) as f64,
        Part::Layer => 1.0,
    };
    let source_info = |model: usize, from: usize| -> Result<(usize, ParameterInfo), MergeError> {
        let name = match layer {
            Some(_) => with_layer(&info.name, from + place),
            None => info.name.clone(),
        };
        let found = OpenElm::infos_of(models.config(model))?.into_iter().find(|candidate| candidate.name == name);
        let shape = found.map(|found| found.shape).unwrap_or_default();
        if shape != info.shape {
            let first = run.sources.first().map_or(0, |(model, ..)| *model);
            return Err(MergeError::differs(Difference {
                first: models.path(first).to_owned(),
                second: models.path(model).to_owned(),
                what: format!("the shape of {name}"),
                left: format!("{:?}", info.shape),
                right: format!("{shape:?}"),
                hint: "only layers of one shape can be merged; passthrough takes layers of any shape",
            }));
        }
        Ok((model, ParameterInfo { name, shape }))
    };
    let sources = run.sources.iter().map(|(model, from, _)| source_info(*model, *from)).collect::<Result<Vec<_>, _>>()?;
    let base = run.base.map(|(model, from)| source_info(model, from)).transpose()?;
    let name = hf_name(&info.name);
    let value = |parameter: &Parameter, own: Option<&Settings>| -> Result<(&'static str, f64), MergeError> {
        let found =
            own.into_iter().chain([run.settings, &recipe.parameters]).find_map(|settings| settings.get(parameter.name)?.at(&name, t));
        Ok((parameter.name, resolve(recipe, parameter, found, &name)?))
    };
    let whole = method.parameters.iter().filter(|parameter| !parameter.per_model).map(|parameter| value(parameter, None));
    let whole = Values(whole.collect::<Result<_, _>>()?);
    let mut each = Vec::with_capacity(run.sources.len());
    for (_, _, settings) in &run.sources {
        let values = method.parameters.iter().filter(|parameter| parameter.per_model).map(|parameter| value(parameter, Some(settings)));
        each.push(Values(values.collect::<Result<_, _>>()?));
    }
    Ok(PlannedTensor { info, base, sources, whole, each })
}

fn resolve(recipe: &Recipe, parameter: &Parameter, found: Option<Scalar>, tensor: &str) -> Result<f64, MergeError> {
    let fault = |reason: String, hint: String| MergeError::recipe(&recipe.path, format!("parameters.{}", parameter.name), reason, hint);
    let Some(found) = found else {
        return parameter
            .default
            .ok_or_else(|| fault(format!("is missing for {tensor}"), format!("give `{}` a value for every tensor", parameter.name)));
    };
    match (&parameter.kind, found) {
        (Kind::Number(least, most), Scalar::Number(value)) if (*least..=*most).contains(&value) => Ok(value),
        (Kind::Number(least, most), Scalar::Number(value)) => {
            Err(fault(format!("is {value} for {tensor}"), format!("give a number from {least} to {most}")))
        }
        (Kind::Flag, Scalar::Flag(flag)) => Ok(f64::from(u8::from(flag))),
        // Gradients of flags are numbers in mergekit too.
        (Kind::Flag, Scalar::Number(value)) if value == 0.0 || value == 1.0 => Ok(value),
        (Kind::Word(words), Scalar::Text(text)) => match words.iter().position(|word| *word == text) {
            Some(place) => Ok(place as f64),
            None => Err(fault(format!("is `{text}`"), format!("write one of: {}", words.join(", ")))),
        },
        (Kind::Number(..), other) => Err(fault(format!("is {other:?} for {tensor}"), "give a number".into())),
        (Kind::Flag, other) => Err(fault(format!("is {other:?} for {tensor}"), "write true or false".into())),
        (Kind::Word(words), other) => Err(fault(format!("is {other:?}"), format!("write one of: {}", words.join(", ")))),
    }
}

/// The layer's number in a name such as `layers.3.ffn.proj_1.weight`.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    name.strip_prefix("layers.")?.split('.').next()?.parse().ok()
}

fn with_layer(name: &str, layer: usize) -> String {
    let tail = name.strip_prefix("layers.").and_then(|rest| rest.split_once('.')).map_or(name, |(_, tail)| tail);
    format!("layers.{layer}.{tail}")
}
