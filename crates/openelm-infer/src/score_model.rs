//! [`TokenScorer`] for a model on a burn device: batches of contexts of similar length; each context is read once and its
//! continuations behind it, over its keys and values; what many contexts begin with (few-shot examples) is read once for all of them.
//!
//! What must stay true: rows are filled up on the left, behind the shared beginning, and the filling is never looked at; every token
//! is turned by its own position.

use burn::tensor::{Int, Tensor, TensorData};
use openelm_model::{CausalMask, ModelError, OpenElm, Precision, Projected};

use crate::error::InferError;
use crate::score::{ContextGroup, TokenScore, TokenScorer, beginning_of, by_beginning, check_groups, shared_start};

/// Logits that exist at a time: 64 MiB of f32.
const CHUNK_VALUES: usize = 16 << 20;
/// Keys and values that continuations copy, in multiples of the tokens of a batch.
const COPIED: usize = 8;

/// A model that scores tokens.
#[derive(Debug)]
pub struct ModelScorer<'a> {
    model: &'a OpenElm,
    precision: Precision,
    batch_tokens: usize,
}

/// Keys and values of a run of positions, a pair a layer: [rows, kv_heads, positions, head_dim].
type Layers = Vec<(Tensor<4>, Tensor<4>)>;

/// A token to look up: the row among a batch's hidden states, the id, and whose score it adds to.
#[derive(Clone, Copy)]
struct Target {
    row: usize,
    id: u32,
    group: usize,
    continuation: usize,
}

/// What is read of a group in the first pass.
struct Prefix {
    group: usize,
    ids: Vec<u32>,
    /// The one continuation is read along with the context.
    whole: bool,
}

impl<'a> ModelScorer<'a> {
    /// `batch_tokens`: tokens that go through the model at a time; a longer sequence goes alone.
    pub fn new(model: &'a OpenElm, precision: Precision, batch_tokens: usize) -> Self {
        Self { model, precision, batch_tokens: batch_tokens.max(1) }
    }

    /// Reads `ids` [rows, length] behind `before`, whose keys have one row or as many. Row r's first `pads[r]` ids are filling, and so
    /// are its keys from `shared` on; `kept` filling keys lie in `before` already. Gives hidden states [rows · length, model_dim] and
    /// the keys and values of all positions.
    fn pass(&self, ids: Vec<u32>, rows: &Rows<'_>, before: Option<&Layers>) -> Result<(Tensor<2>, Layers), InferError> {
        let config = self.model.config();
        let device = self.model.device();
        let count = rows.pads.len();
        let length = ids.len() / count.max(1);
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(values, [count, length]), device);
        // A filling token gets the position of the row's first real one: any would do.
        let place = |row: usize, column: usize| (rows.start + column).saturating_sub(rows.pads[row]).max(rows.shared.min(rows.start));
        let positions: Vec<usize> = (0..count).flat_map(|row| (0..length).map(move |column| place(row, column))).collect();
        let rotation = self.model.rotation_at(&positions, count)?;
        let mask = match rows.pads.iter().all(|pad| *pad == 0) {
            true => CausalMask::new(config.num_gqa_groups, rows.start, length, device),
            false => CausalMask::padded(config.num_gqa_groups, rows.shared, rows.pads, rows.start, length, device),
        };
        let mut layers = Vec::with_capacity(self.model.blocks.len());
        let mut x = self.model.embed(ids);
        for (layer, block) in self.model.blocks.iter().enumerate() {
            let Projected { queries, keys, values } = block.project(x.clone(), &rotation, self.precision);
            let (keys, values) = match before.and_then(|before| before.get(layer)) {
                Some((earlier_keys, earlier_values)) => (behind(earlier_keys, keys), behind(earlier_values, values)),
                None => (keys, values),
            };
            layers.push((keys.clone(), values.clone()));
            let attended = block.attend(queries, keys, values, Some(&mask), self.precision);
            x = block.finish(x, attended, self.precision);
        }
        Ok((x.reshape([count * length, config.model_dim]), layers))
    }

    /// Looks up `targets` in `hidden` [positions, model_dim] and adds their log-probabilities to `scores`.
    fn look_up(&self, hidden: &Tensor<2>, targets: &[Target], scores: &mut [Vec<TokenScore>]) -> Result<(), InferError> {
        let device = self.model.device();
        let chunk = (CHUNK_VALUES / self.model.config().vocab_size.max(1)).max(1);
        for targets in targets.chunks(chunk) {
            let count = targets.len();
            let ints = |values: Vec<i32>| Tensor::<1, Int>::from_data(TensorData::new(values, [count]), device);
            let rows = ints(targets.iter().map(|target| target.row as i32).collect());
            let ids = ints(targets.iter().map(|target| target.id as i32).collect());
            let hidden = hidden.clone().select(0, rows).unsqueeze::<3>();
            let logits = self.model.logits(hidden, self.precision).squeeze_dim::<2>(0); // [targets, vocabulary]
            let largest = logits.clone().max_dim(1);
            let target = logits.clone().gather(1, ids.reshape([count, 1])) - largest.clone();
            let log_sum = (logits - largest).exp().sum_dim(1).log();
            // Behind the largest logit, and the log-probability: [targets, 2]
            let both = Tensor::cat(vec![target.clone(), target - log_sum], 1);
            let both = both.try_into_vec_as::<f32>();
            let both = both.map_err(|error| ModelError::Read { name: "log-probabilities".into(), reason: format!("{error:?}") })?;
            for (target, pair) in targets.iter().zip(both.chunks_exact(2)) {
                let [behind, log_probability] = *pair else { continue };
                if !log_probability.is_finite() {
                    return Err(InferError::NotFinite { value: log_probability, position: target.row });
                }
                let score = &mut scores[target.group][target.continuation];
                score.log_probability += f64::from(log_probability);
                score.greedy &= behind >= 0.0;
            }
        }
        Ok(())
    }

    /// Groups in batches of similar length, behind what all of them begin with.
    fn together(&self, groups: &[ContextGroup], prefixes: &mut [Prefix], scores: &mut [Vec<TokenScore>]) -> Result<(), InferError> {
        let shared = shared_start(prefixes.iter().map(|prefix| groups[prefix.group].context.as_slice()));
        let before = match prefixes.first().filter(|_| shared > 0) {
            Some(first) => Some(self.pass(first.ids[..shared].to_vec(), &Rows { shared: 0, start: 0, pads: &[0] }, None)?.1),
            None => None,
        };
        // Longest first: what does not fit into memory fails at once. Equal lengths keep their order.
        prefixes.sort_by_key(|prefix| std::cmp::Reverse(prefix.ids.len()));
        let mut left = &*prefixes;
        while let Some(first) = left.first() {
            let longest = first.ids.len() - shared;
            let room = (self.batch_tokens / longest).min(COPIED * self.batch_tokens / first.ids.len()).max(1);
            // Rows much shorter than the longest would be filling for the most part.
            let similar = left.iter().take_while(|prefix| 4 * (prefix.ids.len() - shared) >= 3 * longest).count();
            let (now, later) = left.split_at(room.min(similar));
            left = later;
            self.batch(groups, now, shared, before.as_ref(), scores)?;
        }
        Ok(())
    }

    /// One batch: contexts first, then what follows them.
    fn batch(
        &self,
        groups: &[ContextGroup],
        prefixes: &[Prefix],
        shared: usize,
        before: Option<&Layers>,
        scores: &mut [Vec<TokenScore>],
    ) -> Result<(), InferError> {
        let rest = |prefix: &Prefix| prefix.ids.len() - shared;
        let length = prefixes.iter().map(rest).max().unwrap_or(0);
        let pads: Vec<usize> = prefixes.iter().map(|prefix| length - rest(prefix)).collect();
        let mut ids = Vec::with_capacity(prefixes.len() * length);
        let mut targets = Vec::new();
        for (number, prefix) in prefixes.iter().enumerate() {
            ids.extend(std::iter::repeat_n(0, pads[number]).chain(prefix.ids.iter().skip(shared).copied()));
            let group = &groups[prefix.group];
            // The hidden state behind the context's last token tells the first token of each continuation.
            let after_context = number * length + pads[number] + group.context.len() - shared - 1;
            for (continuation, tokens) in group.continuations.iter().enumerate() {
                let read = if prefix.whole { tokens.len() } else { 1 };
                let first = tokens.iter().take(read).enumerate();
                targets.extend(first.map(|(offset, id)| Target {
                    row: after_context + offset,
                    id: *id,
                    group: prefix.group,
                    continuation,
                }));
            }
        }
        let rows = Rows { shared, start: shared, pads: &pads };
        let (hidden, layers) = self.pass(ids, &rows, before)?;
        self.look_up(&hidden, &targets, scores)?;
        drop(hidden);

        // What is left: continuations of more than one token, longest first.
        let mut left: Vec<(usize, usize)> = Vec::new();
        for (number, prefix) in prefixes.iter().enumerate().filter(|(_, prefix)| !prefix.whole) {
            let continuations = groups[prefix.group].continuations.iter().enumerate();
            left.extend(continuations.filter(|(_, tokens)| tokens.len() > 1).map(|(continuation, _)| (number, continuation)));
        }
        let tokens = |(number, continuation): &(usize, usize)| &groups[prefixes[*number].group].continuations[*continuation];
        left.sort_by_key(|row| std::cmp::Reverse(tokens(row).len()));
        let mut left = left.as_slice();
        while let Some(longest) = left.first() {
            let longest = tokens(longest).len() - 1;
            let room = (self.batch_tokens / longest).min(COPIED * self.batch_tokens / (shared + length + longest)).max(1);
            let (now, later) = left.split_at(room.min(left.len()));
            left = later;
            let mut ids = Vec::with_capacity(now.len() * longest);
            let mut targets = Vec::new();
            for (row, place) in now.iter().enumerate() {
                let (group, continuation) = (prefixes[place.0].group, place.1);
                let tokens = tokens(place);
                let read = &tokens[..tokens.len() - 1];
                ids.extend(read.iter().copied().chain(std::iter::repeat_n(0, longest - read.len())));
                let following = tokens.iter().skip(1).enumerate();
                targets.extend(following.map(|(offset, id)| Target { row: row * longest + offset, id: *id, group, continuation }));
            }
            let numbers: Vec<i32> = now.iter().map(|(number, _)| *number as i32).collect();
            let numbers = Tensor::<1, Int>::from_data(TensorData::new(numbers, [now.len()]), self.model.device());
            let of_row = |tensor: &Tensor<4>| tensor.clone().select(0, numbers.clone());
            let before: Layers = layers.iter().map(|(keys, values)| (of_row(keys), of_row(values))).collect();
            let pads: Vec<usize> = now.iter().map(|(number, _)| pads[*number]).collect();
            let rows = Rows { shared, start: shared + length, pads: &pads };
            let (hidden, _) = self.pass(ids, &rows, Some(&before))?;
            self.look_up(&hidden, &targets, scores)?;
        }
        Ok(())
    }
}

/// Where rows stand among the keys: `shared` keys of all rows, each row's filling, and the new ids from `start` on.
struct Rows<'a> {
    shared: usize,
    start: usize,
    pads: &'a [usize],
}

impl TokenScorer for ModelScorer<'_> {
    fn vocabulary(&self) -> usize {
        self.model.config().vocab_size
    }

    fn positions(&self) -> usize {
        self.model.config().rope_max_length
    }

    fn score(&self, groups: &[ContextGroup]) -> Result<Vec<Vec<TokenScore>>, InferError> {
        check_groups(self, groups)?;
        let fresh = TokenScore { log_probability: 0.0, greedy: true };
        let mut scores: Vec<Vec<TokenScore>> = groups.iter().map(|group| vec![fresh; group.continuations.len()]).collect();
        let mut prefixes: Vec<Prefix> = Vec::with_capacity(groups.len());
        for (number, group) in groups.iter().enumerate().filter(|(_, group)| !group.continuations.is_empty()) {
            let whole = group.continuations.len() == 1;
            let mut ids = group.context.clone();
            if let (true, [only]) = (whole, group.continuations.as_slice()) {
                ids.extend(&only[..only.len() - 1]);
            }
            prefixes.push(Prefix { group: number, ids, whole });
        }
        for mut prefixes in by_beginning(prefixes, |prefix| beginning_of(&prefix.ids)) {
            self.together(groups, &mut prefixes, &mut scores)?;
        }
        Ok(scores)
    }
}

/// `new` [rows, heads, length, width] behind `earlier`, whose one row stands for all or which has as many rows.
fn behind(earlier: &Tensor<4>, new: Tensor<4>) -> Tensor<4> {
    let [rows, ..] = new.dims();
    let [_, heads, length, width] = earlier.dims();
    Tensor::cat(vec![earlier.clone().expand([rows, heads, length, width]), new], 2)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use openelm_model::preset;

    use super::*;
    use crate::{BurnDecoder, Decoder, DecoderScorer, HostDecoder};

    /// ln p of every token of `ids` after the first, read without a cache.
    fn plain(model: &OpenElm, ids: &[u32]) -> Vec<(f64, bool)> {
        let values: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let all = Tensor::<2, Int>::from_data(TensorData::new(values, [1, ids.len()]), model.device());
        let logits: Vec<f32> = model.forward(all, Precision::F32).unwrap().try_into_vec_as().unwrap();
        let width = model.config().vocab_size;
        let of = |(row, id): (&[f32], &u32)| {
            let largest = row.iter().copied().fold(f32::MIN, f32::max);
            let sum: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
            (f64::from(row[*id as usize] - largest) - sum.ln(), row[*id as usize] >= largest)
        };
        logits.chunks(width).zip(&ids[1..]).map(of).collect()
    }

    fn group(context: Vec<u32>, continuations: Vec<Vec<u32>>) -> ContextGroup {
        ContextGroup { context, continuations }
    }

    fn check(model: &OpenElm, groups: &[ContextGroup], batch_tokens: usize) {
        let device = ModelScorer::new(model, Precision::F32, batch_tokens).score(groups).unwrap();
        let burn = BurnDecoder::new(model.clone(), Precision::F32);
        let mut parameters = model.clone();
        let mut values = parameters
            .parameters_mut()
            .into_iter()
            .map(|parameter| parameter.flat().try_into_vec_as::<f32>().unwrap())
            .collect::<Vec<_>>()
            .into_iter();
        let host = HostDecoder::build(model.config(), |_| Ok::<_, InferError>(values.next().unwrap())).unwrap();
        let decoded = [&burn as &dyn Decoder, &host].map(|decoder| DecoderScorer::new(decoder, batch_tokens).score(groups).unwrap());
        for scores in [device].into_iter().chain(decoded) {
            compare(model, groups, scores);
        }
    }

    fn compare(model: &OpenElm, groups: &[ContextGroup], scores: Vec<Vec<TokenScore>>) {
        for (group, scores) in groups.iter().zip(scores) {
            assert_eq!(group.continuations.len(), scores.len());
            for (continuation, score) in group.continuations.iter().zip(scores) {
                let tokens = plain(model, &[group.context.as_slice(), continuation].concat());
                let own = &tokens[group.context.len() - 1..];
                let expected: f64 = own.iter().map(|(log_probability, _)| log_probability).sum();
                assert!((score.log_probability - expected).abs() < 2e-4, "{} and {expected}", score.log_probability);
                assert_eq!(score.greedy, own.iter().all(|(_, greedy)| *greedy));
            }
        }
    }

    #[test]
    fn scores_are_those_without_a_cache() {
        let mut config = preset("OpenELM-tiny").unwrap();
        config.vocab_size = 50;
        let model = OpenElm::init(&config, 4, &Device::flex()).unwrap();
        let ids = |from: u32, count: u32| (0..count).map(|i| (i * 7 + from) % 50).collect::<Vec<u32>>();
        let groups = [
            group(ids(1, 9), vec![ids(3, 4), ids(5, 1), ids(9, 7)]),
            group(ids(2, 1), vec![ids(8, 12)]),
            group(ids(4, 8), vec![ids(1, 1), ids(2, 1)]),
            group(ids(5, 30), vec![ids(6, 3), ids(7, 5), ids(8, 2)]),
            group(ids(6, 10), vec![ids(6, 2)]),
            group(ids(6, 10), vec![]),
        ];
        for batch_tokens in [1, 24, 4096] {
            check(&model, &groups, batch_tokens);
        }
        // Contexts with a long beginning in common.
        let start = ids(3, 20);
        let with_start = |rest: Vec<u32>| [start.as_slice(), &rest].concat();
        let groups = [
            group(with_start(ids(11, 5)), vec![ids(3, 4), ids(5, 1)]),
            group(with_start(ids(12, 6)), vec![ids(8, 12)]),
            group(with_start(ids(14, 1)), vec![ids(1, 3), ids(2, 2)]),
        ];
        for batch_tokens in [1, 24, 4096] {
            check(&model, &groups, batch_tokens);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        let mut config = preset("gpt-test").unwrap();
        config.vocab_size = 9;
        let model = OpenElm::init(&config, 4, &Device::flex()).unwrap();
        let scorer = ModelScorer::new(&model, Precision::F32, 64);
        let long = vec![1; scorer.positions()];
        let refused =
            |context: &[u32], continuation: &[u32]| scorer.score(&[group(context.to_vec(), vec![continuation.to_vec()])]).unwrap_err();
        assert!(matches!(refused(&[], &[1]), InferError::EmptyPrompt));
        assert!(matches!(refused(&[1], &[]), InferError::EmptyPrompt));
        assert!(matches!(refused(&[1], &[9]), InferError::UnknownToken { id: 9, .. }));
        assert!(matches!(refused(&long, &[1, 1]), InferError::PromptTooLong { .. }));
    }
}
