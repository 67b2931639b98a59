//! Low-rank additions to the matrices of a model, on any burn device: LoRA and DoRA as PEFT has them (`peft/tuners/lora/layer.py`).
//!
//! What must stay true: a model with an adapter trains the adapter alone, in the order of its modules; the sum of a matrix and its
//! addition is never built; the addition to the embedding changes the look-up and never the tied head.

use burn::tensor::{Device, Int, Tensor};

use crate::{ModelConfig, ModelError, OpenElm, Parameter, ParameterInfo, Precision, block::product, parameters::upload};

/// The module whose table is looked up; every other adapted module is a matrix.
pub const EMBEDDING_MODULE: &str = "token_embeddings";

/// One module that an adapter changes.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptedModule {
    /// CoreNet's name without `.weight`, such as `layers.0.attn.qkv_proj`.
    pub name: String,
    pub rank: usize,
    /// What B · A is multiplied by.
    pub scale: f64,
    /// Share of the input of A that is dropped in training.
    pub dropout: f64,
    /// DoRA: a magnitude for each row of the sum.
    pub magnitude: bool,
}

impl AdaptedModule {
    /// Names and shapes of its parameters, for a module [rows, columns]: A, B, then the magnitude.
    pub fn infos(&self, rows: usize, columns: usize) -> Vec<ParameterInfo> {
        let info = |tail: &str, shape: &[usize]| ParameterInfo { name: format!("{}.{tail}", self.name), shape: shape.to_vec() };
        if self.name == EMBEDDING_MODULE {
            return vec![info("lora_embedding_A", &[self.rank, rows]), info("lora_embedding_B", &[columns, self.rank])];
        }
        let mut infos = vec![info("lora_A.weight", &[self.rank, columns]), info("lora_B.weight", &[rows, self.rank])];
        infos.extend(self.magnitude.then(|| info("lora_magnitude_vector", &[rows])));
        infos
    }
}

/// Names and shapes of the parameters of an adapter with these modules, module by module.
///
/// # Errors
/// When the model has no such module, or a module cannot be adapted.
pub fn adapter_infos(config: &ModelConfig, modules: &[AdaptedModule]) -> Result<Vec<ParameterInfo>, ModelError> {
    let infos = OpenElm::infos_of(config)?;
    let mut found = Vec::new();
    for module in modules {
        let weight = format!("{}.weight", module.name);
        match infos.iter().find(|info| info.name == weight && weight != "classifier.weight").map(|info| &info.shape[..]) {
            Some(&[rows, columns]) => found.extend(module.infos(rows, columns)),
            _ => return Err(ModelError::Missing { name: format!("{weight}, which the adapter changes") }),
        }
    }
    Ok(found)
}

/// A low-rank addition to one matrix [out, in], or to the embedding's table.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// A: [rank, in]; for the embedding [rank, vocabulary].
    pub a: Tensor<2>,
    /// B: [out, rank]; for the embedding [model_dim, rank].
    pub b: Tensor<2>,
    /// DoRA's magnitudes, `[out]`.
    pub magnitude: Option<Tensor<1>>,
    pub scale: f64,
    /// Share of the input of A that is dropped in training.
    pub dropout: f64,
    /// What the input of A is multiplied by, [tokens, in]: set for one training pass by whoever draws it.
    pub kept: Option<Tensor<2>>,
}

impl LowRank {
    /// `x` [tokens, in] through `weight` [out, in] and the addition. The norms of DoRA are constants for autodiff, as in PEFT.
    pub fn forward(&self, x: Tensor<2>, weight: Tensor<2>, precision: Precision) -> Tensor<2> {
        let dropped = self.kept.as_ref().map_or_else(|| x.clone(), |kept| x.clone() * kept.clone());
        let inner = product(dropped.clone(), self.a.clone().transpose(), precision);
        let low = product(inner, self.b.clone().transpose(), precision).mul_scalar(self.scale);
        let transposed = weight.clone().transpose();
        let Some(magnitude) = &self.magnitude else {
            return product(x, transposed, precision) + low;
        };
        let factors = (magnitude.clone() / self.norms(weight)).unsqueeze::<2>(); // [1, out]
        let whole = (product(dropped.clone(), transposed.clone(), precision) + low) * factors;
        match &self.kept {
            None => whole,
            Some(_) => product(x - dropped, transposed, precision) + whole,
        }
    }

    /// Norms of the rows of W + scale · B · A, `[out]`, in the memory of [out, rank].
    fn norms(&self, weight: Tensor<2>) -> Tensor<1> {
        let [out, _] = weight.dims();
        let (a, b) = (self.a.clone().detach(), self.b.clone().detach());
        let crossed = weight.clone().matmul(a.clone().transpose());
        let own = b.clone().matmul(a.clone().matmul(a.transpose()));
        let squares =
            weight.square().sum_dim(1) + ((crossed.mul_scalar(2.0 * self.scale) + own.mul_scalar(self.scale * self.scale)) * b).sum_dim(1);
        squares.clamp_min(0.0).sqrt().reshape([out]).detach()
    }

    /// What the look-up of `ids` `[tokens]` adds: [tokens, model_dim].
    pub fn look_up(&self, ids: Tensor<1, Int>) -> Tensor<2> {
        let inner = self.a.clone().transpose().select(0, ids); // [tokens, rank]
        inner.matmul(self.b.clone().transpose()).mul_scalar(self.scale)
    }

    /// The same addition with parameters that autodiff tracks.
    pub fn tracked(&self) -> Self {
        let matrix = |tensor: &Tensor<2>| tensor.clone().autodiff().require_grad();
        Self {
            a: matrix(&self.a),
            b: matrix(&self.b),
            magnitude: self.magnitude.as_ref().map(|magnitude| magnitude.clone().autodiff().require_grad()),
            kept: self.kept.as_ref().map(|kept| kept.clone().autodiff()),
            ..*self
        }
    }

    /// Tensors that are trained.
    pub fn num_parameters(&self) -> usize {
        2 + usize::from(self.magnitude.is_some())
    }

    /// A, B, then the magnitude.
    pub fn parameters_mut(&mut self) -> Vec<Parameter<'_>> {
        let mut all = vec![Parameter::Matrix(&mut self.a), Parameter::Matrix(&mut self.b)];
        all.extend(self.magnitude.as_mut().map(Parameter::Vector));
        all
    }
}

/// The additions to one block's matrices.
#[derive(Clone, Debug, Default)]
pub struct BlockAdapter {
    pub qkv_proj: Option<LowRank>,
    pub out_proj: Option<LowRank>,
    pub proj_1: Option<LowRank>,
    pub proj_2: Option<LowRank>,
}

impl BlockAdapter {
    /// The additions that there are, in their fixed order.
    pub fn parts_mut(&mut self) -> impl Iterator<Item = &mut LowRank> {
        [&mut self.qkv_proj, &mut self.out_proj, &mut self.proj_1, &mut self.proj_2].into_iter().filter_map(Option::as_mut)
    }

    /// Tensors that are trained.
    pub fn num_parameters(&self) -> usize {
        [&self.qkv_proj, &self.out_proj, &self.proj_1, &self.proj_2].into_iter().flatten().map(LowRank::num_parameters).sum()
    }

    /// Their parameters, in their fixed order.
    pub fn parameters_mut(&mut self) -> Vec<Parameter<'_>> {
        self.parts_mut().flat_map(LowRank::parameters_mut).collect()
    }

    /// The same additions with parameters that autodiff tracks.
    pub fn tracked(&self) -> Self {
        let part = |part: &Option<LowRank>| part.as_ref().map(LowRank::tracked);
        Self { qkv_proj: part(&self.qkv_proj), out_proj: part(&self.out_proj), proj_1: part(&self.proj_1), proj_2: part(&self.proj_2) }
    }

    fn part_mut(&mut self, tail: &str) -> Option<&mut Option<LowRank>> {
        match tail {
            "attn.qkv_proj" => Some(&mut self.qkv_proj),
            "attn.out_proj" => Some(&mut self.out_proj),
            "ffn.proj_1" => Some(&mut self.proj_1),
            "ffn.proj_2" => Some(&mut self.proj_2),
            _ => None,
        }
    }
}

/// What a model with an adapter trains.
#[derive(Clone, Debug)]
pub(crate) struct Adapted {
    pub infos: Vec<ParameterInfo>,
    /// Seed of what dropout drops.
    pub seed: u64,
}

impl OpenElm {
    /// Puts an adapter onto the model, in the place of any other; `values` is asked for each of its parameters once, in the order
    /// of [`adapter_infos`] with the modules in the model's order. What dropout drops is drawn from `seed`.
    ///
    /// # Errors
    /// When the model has no such module, `values` fails, or gives another number of values than the shape has.
    pub fn attach<E: From<ModelError>>(
        &mut self,
        modules: &[AdaptedModule],
        seed: u64,
        mut values: impl FnMut(&ParameterInfo) -> Result<Vec<f32>, E>,
    ) -> Result<(), E> {
        let modules = in_model_order(self.infos(), modules);
        let infos = adapter_infos(self.config(), &modules)?;
        *self = self.without_adapter();
        let device = self.device().clone();
        let mut rest = infos.iter();
        for module in &modules {
            let mut next = || take(&mut rest, &device, &mut values);
            let (a, b) = (matrix(next()?), matrix(next()?));
            let magnitude = if module.magnitude && module.name != EMBEDDING_MODULE { Some(next()?.0) } else { None };
            let low = LowRank { a, b, magnitude, scale: module.scale, dropout: module.dropout, kept: None };
            let place = if module.name == EMBEDDING_MODULE { Some(&mut self.embedding_adapter) } else { self.part_mut(&module.name) };
            let Some(place) = place else { return Err(ModelError::Missing { name: module.name.clone() }.into()) };
            *place = Some(low);
        }
        self.adapted = Some(Adapted { infos, seed });
        Ok(())
    }

    fn part_mut(&mut self, module: &str) -> Option<&mut Option<LowRank>> {
        let (layer, tail) = module.strip_prefix("layers.")?.split_once('.')?;
        self.blocks.get_mut(layer.parse::<usize>().ok()?)?.adapter.part_mut(tail)
    }

    /// The model alone, sharing its tensors.
    pub fn without_adapter(&self) -> Self {
        let mut model = self.clone();
        model.embedding_adapter = None;
        model.adapted = None;
        model.blocks.iter_mut().for_each(|block| block.adapter = BlockAdapter::default());
        model
    }

    /// Whether an adapter is what this model trains.
    pub fn is_adapted(&self) -> bool {
        self.adapted.is_some()
    }

    /// Seed of what dropout drops; 0 without an adapter.
    pub fn dropout_seed(&self) -> u64 {
        self.adapted.as_ref().map_or(0, |adapted| adapted.seed)
    }

    /// Names and shapes of what training changes: the adapter's parameters where there is one, else all.
    pub fn trained_infos(&self) -> &[ParameterInfo] {
        self.adapted.as_ref().map_or(self.infos(), |adapted| &adapted.infos)
    }

    /// What training changes, in the order of [`trained_infos`](Self::trained_infos).
    pub fn trained_mut(&mut self) -> Vec<Parameter<'_>> {
        if !self.is_adapted() {
            return self.parameters_mut();
        }
        let mut all: Vec<Parameter<'_>> = self.embedding_adapter.iter_mut().flat_map(LowRank::parameters_mut).collect();
        all.extend(self.blocks.iter_mut().flat_map(|block| block.adapter.parameters_mut()));
        all
    }

    /// Copies what training changes to the host, one parameter at a time, in order.
    ///
    /// # Errors
    /// When the device fails, or `keep` does.
    pub fn read_trained<E: From<ModelError>>(&mut self, mut keep: impl FnMut(&ParameterInfo, Vec<f32>) -> Result<(), E>) -> Result<(), E> {
        let infos = self.trained_infos().to_vec();
        for (info, parameter) in infos.iter().zip(self.trained_mut()) {
            keep(info, parameter.read(info)?)?;
        }
        Ok(())
    }
}

/// `modules` in the order in which the model holds them.
fn in_model_order(infos: &[ParameterInfo], modules: &[AdaptedModule]) -> Vec<AdaptedModule> {
    let place = |module: &AdaptedModule| infos.iter().position(|info| info.name.strip_suffix(".weight") == Some(&module.name));
    let mut ordered = modules.to_vec();
    ordered.sort_by_key(|module| place(module).unwrap_or(usize::MAX));
    ordered
}

fn take<E: From<ModelError>>(
    infos: &mut std::slice::Iter<'_, ParameterInfo>,
    device: &Device,
    values: &mut impl FnMut(&ParameterInfo) -> Result<Vec<f32>, E>,
) -> Result<(Tensor<1>, Vec<usize>), E> {
    let Some(info) = infos.next() else {
        return Err(ModelError::Missing { name: "(past the last parameter of the adapter)".into() }.into());
    };
    let values = values(info)?;
    if values.len() != info.count() {
        info.check(&[values.len()])?;
    }
    Ok((upload(values, device), info.shape.clone()))
}

fn matrix((flat, shape): (Tensor<1>, Vec<usize>)) -> Tensor<2> {
    let rows = shape.first().copied().unwrap_or(0);
    let columns = shape.get(1).copied().unwrap_or(0);
    flat.reshape([rows, columns])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::preset;

    fn module(name: &str, magnitude: bool) -> AdaptedModule {
        AdaptedModule { name: name.into(), rank: 2, scale: 0.5, dropout: 0.0, magnitude }
    }

    #[test]
    fn an_adapter_is_what_is_trained_and_comes_off_again() {
        let mut config = preset("gpt-test").unwrap();
        config.vocab_size = 9;
        let device = Device::flex();
        let mut model = OpenElm::init(&config, 1, &device).unwrap();
        let ids = Tensor::<2, Int>::from_ints([[1, 2, 8, 3]], &device);
        let logits = |model: &OpenElm| model.forward(ids.clone(), Precision::F32).unwrap().into_data().try_to_vec::<f32>().unwrap();
        let (all, before) = (model.trained_infos().len(), logits(&model));
        let modules = [module("layers.0.ffn.proj_2", true), module("token_embeddings", false), module("layers.0.attn.qkv_proj", false)];
        model.attach::<ModelError>(&modules, 3, |info| Ok((0..info.count()).map(|at| (at % 7) as f32 * 0.1).collect())).unwrap();
        let names: Vec<String> = model.trained_infos().iter().map(|info| info.name.clone()).collect();
        assert_eq!(
            names[..3],
            ["token_embeddings.lora_embedding_A", "token_embeddings.lora_embedding_B", "layers.0.attn.qkv_proj.lora_A.weight"]
        );
        assert_eq!(names.last().unwrap(), "layers.0.ffn.proj_2.lora_magnitude_vector");
        assert_eq!(model.trained_mut().len(), names.len());
        assert_ne!(logits(&model), before);
        let alone = model.without_adapter();
        assert_eq!((alone.trained_infos().len(), logits(&alone)), (all, before));
        let error = model.attach::<ModelError>(&[module("layers.9.ffn.proj_2", false)], 0, |_| Ok(Vec::new())).unwrap_err();
        assert!(error.to_string().contains("layers.9.ffn.proj_2"), "{error}");
    }

    #[test]
    fn norms_are_those_of_the_sum() {
        let device = Device::flex();
        let tensor = |rows: usize, columns: usize, step: f32| {
            let values: Vec<f32> = (0..rows * columns).map(|at| (at as f32 * step).sin()).collect();
            Tensor::<1>::from_floats(&values[..], &device).reshape([rows, columns])
        };
        let low = LowRank { a: tensor(2, 5, 0.7), b: tensor(3, 2, 1.3), magnitude: None, scale: 1.5, dropout: 0.0, kept: None };
        let weight = tensor(3, 5, 2.1);
        let sum = weight.clone() + low.b.clone().matmul(low.a.clone()).mul_scalar(1.5);
        let expected = sum.square().sum_dim(1).sqrt().into_data().try_to_vec::<f32>().unwrap();
        let found = low.norms(weight).into_data().try_to_vec::<f32>().unwrap();
        assert!(expected.iter().zip(&found).all(|(a, b)| (a - b).abs() < 1e-5), "{expected:?} {found:?}");
    }
}
