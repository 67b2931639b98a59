//! The whole model: embedding, blocks, last norm and head, on any burn device.
//!
//! What must stay true: parameters live on the plain (untracked) device; whoever needs gradients tracks a block at a
//! time. The head is the embedding itself when the configuration ties them. Where an adapter is attached, it is part of every
//! forward pass.

use burn::tensor::{Device, Int, Tensor};

use crate::{
    Block, BlockAdapter, CausalMask, LowRank, ModelConfig, ModelError, Parameter, ParameterInfo, Precision, RmsNorm, RotaryTable, Storage,
    adapter::Adapted,
    block::linear,
    init::initial_values,
    parameters::{parameter_infos, upload},
    rope::Rotation,
    storage::{plain, rows},
};

/// An OpenELM with its weights.
#[derive(Clone, Debug)]
pub struct OpenElm {
    config: ModelConfig,
    infos: Vec<ParameterInfo>,
    device: Device,
    rotary: RotaryTable,
    /// [vocabulary, model_dim]
    pub token_embeddings: Tensor<2>,
    pub blocks: Vec<Block>,
    pub norm: RmsNorm,
    /// [vocabulary, model_dim], when not tied to the embedding.
    pub classifier: Option<Tensor<2>>,
    /// What an adapter adds to the look-up.
    pub embedding_adapter: Option<LowRank>,
    pub(crate) adapted: Option<Adapted>,
}

impl OpenElm {
    /// A model with CoreNet's initial distributions.
    ///
    /// # Errors
    /// When the configuration is impossible.
    pub fn init(config: &ModelConfig, seed: u64, device: &Device) -> Result<Self, ModelError> {
        Self::init_stored(config, seed, device, Storage::F32)
    }

    /// The same, with the matrices kept as `storage` says.
    ///
    /// # Errors
    /// As [`init`](Self::init), and when the matrices cannot be kept so.
    pub fn init_stored(config: &ModelConfig, seed: u64, device: &Device, storage: Storage) -> Result<Self, ModelError> {
        Self::build_stored(config, device, storage, |info| Ok(initial_values(info, config, seed)))
    }

    /// A model with given weights; `values` is asked for each parameter once, in order.
    ///
    /// # Errors
    /// When the configuration is impossible, `values` fails, or gives another number of values than the shape has.
    pub fn build<E: From<ModelError>>(
        config: &ModelConfig,
        device: &Device,
        values: impl FnMut(&ParameterInfo) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        Self::build_stored(config, device, Storage::F32, values)
    }

    /// As [`build`](Self::build), with the matrices kept as `storage` says: for a model that is frozen.
    ///
    /// # Errors
    /// As [`build`](Self::build), and when the matrices cannot be kept so.
    pub fn build_stored<E: From<ModelError>>(
        config: &ModelConfig,
        device: &Device,
        storage: Storage,
        mut values: impl FnMut(&ParameterInfo) -> Result<Vec<f32>, E>,
    ) -> Result<Self, E> {
        config.validate()?;
        storage.check(device)?;
        let device = device.clone().without_autodiff();
        let infos = parameter_infos(config)?;
        let mut reader = ParameterReader { infos: infos.iter(), values: &mut values, device: &device, storage };
        let token_embeddings = reader.matrix()?;
        let mut blocks = Vec::with_capacity(config.num_transformer_layers);
        for shape in config.layers()? {
            let attn_norm = reader.norm()?;
            let qkv_proj = reader.matrix()?;
            let (q_norm, k_norm) =
                if config.normalize_qk_projections { (Some(reader.norm()?), Some(reader.norm()?)) } else { (None, None) };
            blocks.push(Block {
                shape,
                gated: config.ffn_with_glu,
                attn_norm,
                qkv_proj,
                q_norm,
                k_norm,
                out_proj: reader.matrix()?,
                ffn_norm: reader.norm()?,
                proj_1: reader.matrix()?,
                proj_2: reader.matrix()?,
                adapter: BlockAdapter::default(),
            });
        }
        let last_norm = reader.norm()?;
        let classifier = if config.share_input_output_layers { None } else { Some(reader.matrix()?) };
        Ok(Self {
            rotary: RotaryTable::new(config, config.rope_max_length, &device),
            config: config.clone(),
            infos,
            device,
            token_embeddings,
            blocks,
            norm: last_norm,
            classifier,
            embedding_adapter: None,
            adapted: None,
        })
    }

    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The plain device that holds the parameters.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Names and shapes of the parameters, in the order of [`parameters_mut`](Self::parameters_mut).
    pub fn infos(&self) -> &[ParameterInfo] {
        &self.infos
    }

    /// Number of parameters, the tied embedding once.
    pub fn num_parameters(&self) -> usize {
        self.infos.iter().map(ParameterInfo::count).sum()
    }

    /// Names and shapes that a model of `config` has, without building it.
    ///
    /// # Errors
    /// When the configuration is impossible.
    pub fn infos_of(config: &ModelConfig) -> Result<Vec<ParameterInfo>, ModelError> {
        config.validate()?;
        parameter_infos(config)
    }

    /// Every parameter, in the order of [`infos`](Self::infos).
    pub fn parameters_mut(&mut self) -> Vec<Parameter<'_>> {
        let mut all = vec![Parameter::Matrix(&mut self.token_embeddings)];
        for block in &mut self.blocks {
            all.extend(block.parameters_mut());
        }
        all.push(Parameter::Vector(&mut self.norm.weight));
        all.extend(self.classifier.as_mut().map(Parameter::Matrix));
        all
    }

    /// Copies every parameter to the host, one at a time, in order: name, shape and values.
    ///
    /// # Errors
    /// When the device fails, or `keep` does.
    pub fn read_parameters<E: From<ModelError>>(
        &mut self,
        mut keep: impl FnMut(&ParameterInfo, Vec<f32>) -> Result<(), E>,
    ) -> Result<(), E> {
        let infos = self.infos.clone();
        for (info, parameter) in infos.iter().zip(self.parameters_mut()) {
            keep(info, parameter.read(info)?)?;
        }
        Ok(())
    }

    /// Cosines and sines of all positions.
    pub fn rotary(&self) -> &RotaryTable {
        &self.rotary
    }

    /// Rows of the rotary table for a run of positions.
    ///
    /// # Errors
    /// When the run reaches past the table.
    pub fn rotation(&self, start: usize, length: usize) -> Result<Rotation, ModelError> {
        self.rotary.rotation(start, length)
    }

    /// Rotation for rows of documents, whose positions begin anew with each (see [`RotaryTable::of_documents`]).
    ///
    /// # Errors
    /// When `length` exceeds the rotary table.
    pub fn document_rotation(&self, starts: &[Vec<u32>], length: usize) -> Result<Rotation, ModelError> {
        self.rotary.of_documents(starts, length)
    }

    /// Rows of the rotary table for positions of each row's own: `positions` is [rows, length], row by row.
    ///
    /// # Errors
    /// When a position reaches past the table.
    pub fn rotation_at(&self, positions: &[usize], rows: usize) -> Result<Rotation, ModelError> {
        self.rotary.rotation_at(positions, rows)
    }

    /// Embeddings of `ids` [batch, sequence]: [batch, sequence, model_dim].
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, sequence] = ids.dims();
        let ids = ids.reshape([batch * sequence]);
        let found = rows(&self.token_embeddings, ids.clone());
        let found = match &self.embedding_adapter {
            Some(low) => found + low.look_up(ids),
            None => found,
        };
        found.reshape([batch, sequence, self.config.model_dim])
    }

    /// The table that turns hidden states into logits.
    pub fn head(&self) -> &Tensor<2> {
        self.classifier.as_ref().unwrap_or(&self.token_embeddings)
    }

    /// Logits [batch, sequence, vocabulary] of `hidden` [batch, sequence, model_dim], the output of the last block.
    pub fn logits(&self, hidden: Tensor<3>, precision: Precision) -> Tensor<3> {
        linear(self.norm.forward(hidden), self.head(), None, precision)
    }

    /// Logits [batch, sequence, vocabulary] of `ids` [batch, sequence], positions from 0, without a cache or gradients.
    ///
    /// # Errors
    /// When the sequence is longer than the rotary table.
    pub fn forward(&self, ids: Tensor<2, Int>, precision: Precision) -> Result<Tensor<3>, ModelError> {
        let [_, sequence] = ids.dims();
        let rotation = self.rotation(0, sequence)?;
        let mask = CausalMask::new(self.config.num_gqa_groups, 0, sequence, &self.device);
        let hidden = self.blocks.iter().fold(self.embed(ids), |x, block| block.forward(x, &rotation, &mask, precision));
        Ok(self.logits(hidden, precision))
    }
}

/// Hands out parameters one after the other in the fixed order.
struct ParameterReader<'a, F> {
    infos: std::slice::Iter<'a, ParameterInfo>,
    values: &'a mut F,
    device: &'a Device,
    storage: Storage,
}

impl<E: From<ModelError>, F: FnMut(&ParameterInfo) -> Result<Vec<f32>, E>> ParameterReader<'_, F> {
    fn take(&mut self) -> Result<(Tensor<1>, &ParameterInfo), E> {
        let Some(info) = self.infos.next() else {
            return Err(ModelError::Missing { name: "(past the last parameter)".into() }.into());
        };
        let values = (self.values)(info)?;
        if values.len() != info.count() {
            info.check(&[values.len()])?;
        }
        Ok((upload(values, self.device), info))
    }

    fn matrix(&mut self) -> Result<Tensor<2>, E> {
        let storage = self.storage;
        let (flat, info) = self.take()?;
        Ok(storage.keep(&info.name, flat.reshape([info.shape[0], info.shape[1]]))?)
    }

    fn norm(&mut self) -> Result<RmsNorm, E> {
        Ok(RmsNorm { weight: self.take()?.0 })
    }
}

impl Block {
    /// The same block with parameters that autodiff tracks.
    pub fn tracked(&self) -> Self {
        let matrix = |tensor: &Tensor<2>| tensor.clone().autodiff().require_grad();
        Self {
            shape: self.shape,
            gated: self.gated,
            attn_norm: self.attn_norm.tracked(),
            qkv_proj: matrix(&self.qkv_proj),
            q_norm: self.q_norm.as_ref().map(RmsNorm::tracked),
            k_norm: self.k_norm.as_ref().map(RmsNorm::tracked),
            out_proj: matrix(&self.out_proj),
            ffn_norm: self.ffn_norm.tracked(),
            proj_1: matrix(&self.proj_1),
            proj_2: matrix(&self.proj_2),
            adapter: self.adapter.clone(),
        }
    }

    /// The same block with matrices in f32 that stay as they are and an adapter that autodiff tracks.
    pub fn tracked_adapter(&self) -> Self {
        let matrix = |tensor: &Tensor<2>| plain(tensor).autodiff();
        let norm = |norm: &RmsNorm| RmsNorm { weight: norm.weight.clone().autodiff() };
        Self {
            shape: self.shape,
            gated: self.gated,
            attn_norm: norm(&self.attn_norm),
            qkv_proj: matrix(&self.qkv_proj),
            q_norm: self.q_norm.as_ref().map(norm),
            k_norm: self.k_norm.as_ref().map(norm),
            out_proj: matrix(&self.out_proj),
            ffn_norm: norm(&self.ffn_norm),
            proj_1: matrix(&self.proj_1),
            proj_2: matrix(&self.proj_2),
            adapter: self.adapter.tracked(),
        }
    }

    /// Parameters of a block.
    pub fn num_parameters(&self) -> usize {
        6 + usize::from(self.q_norm.is_some()) + usize::from(self.k_norm.is_some())
    }

    /// This block's parameters, in their fixed order.
    pub fn parameters_mut(&mut self) -> Vec<Parameter<'_>> {
        let mut all = vec![Parameter::Vector(&mut self.attn_norm.weight), Parameter::Matrix(&mut self.qkv_proj)];
        all.extend(self.q_norm.as_mut().map(|norm| Parameter::Vector(&mut norm.weight)));
        all.extend(self.k_norm.as_mut().map(|norm| Parameter::Vector(&mut norm.weight)));
        all.push(Parameter::Matrix(&mut self.out_proj));
        all.push(Parameter::Vector(&mut self.ffn_norm.weight));
        all.push(Parameter::Matrix(&mut self.proj_1));
        all.push(Parameter::Matrix(&mut self.proj_2));
        all
    }
}
