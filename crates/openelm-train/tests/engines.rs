//! The CPU kernels against burn's operations, on models of every make: the same losses, gradients and updates. burn's run on the device
//! that OPENELM_TEST_DEVICE names (default flex).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use burn::tensor::Device;
use openelm_model::{ModelConfig, ModelError, OpenElm, Precision, open_device, preset};
use openelm_train::{AdamW, AdamWConfig, Arithmetic, BurnEngine, CpuEngine, Engine, MicroBatch, Update};
use reference_values::{apart, largest};

const VOCABULARY: usize = 70;
const PADDING: u32 = 69;

/// A small model, changed by `change`, in the memory of this process.
fn model(change: impl FnOnce(&mut ModelConfig)) -> OpenElm {
    let mut config = ModelConfig {
        vocab_size: VOCABULARY,
        max_context_length: 32,
        rope_max_length: 64,
        padding_index: Some(PADDING as usize),
        ..preset("OpenELM-tiny").unwrap()
    };
    change(&mut config);
    OpenElm::init(&config, 11, &Device::flex()).unwrap()
}

/// The same model on the device under test, for burn's operations.
fn on_device(model: &OpenElm) -> OpenElm {
    let device = open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
    let mut all = Vec::new();
    model
        .clone()
        .read_parameters::<ModelError>(|_, values| {
            all.push(values);
            Ok(())
        })
        .unwrap();
    let mut all = all.into_iter();
    OpenElm::build(model.config(), &device, |_| Ok::<_, ModelError>(all.next().unwrap())).unwrap()
}

/// `rows` rows of `sequence` + 1 tokens, the last of them with padding at its end.
fn batch(rows: usize, sequence: usize, seed: usize) -> MicroBatch {
    let mut tokens: Vec<u32> = (0..rows * (sequence + 1)).map(|at| ((at + seed) * 31 % 67) as u32).collect();
    let padding = sequence / 3;
    let end = tokens.len();
    tokens[end - padding..].fill(PADDING);
    MicroBatch::new(&tokens, sequence, PADDING, VOCABULARY).unwrap()
}

fn arithmetic(precision: Precision, recompute: bool) -> Arithmetic {
    Arithmetic { precision, recompute, z_loss: 1e-3, padding_in_z: true }
}

/// Compares losses, gradients of two micro-batches, the norm, and the weights after three updates.
fn compare(model: &OpenElm, batches: &[MicroBatch], arithmetic: Arithmetic, tolerance: f32) {
    let elsewhere = on_device(model);
    let (mut burn, mut cpu) = (BurnEngine::new(&elsewhere), CpuEngine::new().unwrap());
    let engines: [(&mut dyn Engine, &OpenElm); 2] = [(&mut burn, &elsewhere), (&mut cpu, model)];
    let mut seen = Vec::new();
    for (engine, model) in engines {
        let mut model = model.clone();
        let mut optimizer = AdamW::new(AdamWConfig::default(), &model);
        let alone = engine.losses(&model, &batches[0], &arithmetic).unwrap();
        let (mut gradients, mut norms, mut losses) = (Vec::new(), Vec::new(), vec![(alone.ce, alone.z, alone.targets)]);
        for step in 1..=3 {
            for batch in batches {
                let sums = engine.accumulate(&model, batch, 0.01, &arithmetic).unwrap();
                losses.push((sums.ce, sums.z, sums.targets));
            }
            norms.push(engine.norm(&model).unwrap());
            if step == 1 {
                gradients = (0..model.infos().len()).map(|index| engine.gradient(index).unwrap().unwrap()).collect();
            }
            engine.update(&mut model, &mut optimizer, &Update { step, learning_rate: 1e-3, factor: 0.5 }).unwrap();
        }
        let mut weights: Vec<Vec<f32>> = Vec::new();
        model
            .read_parameters::<ModelError>(|_, values| {
                weights.push(values);
                Ok(())
            })
            .unwrap();
        seen.push((losses, gradients, norms, weights));
    }
    let [(losses, gradients, norms, weights), (other_losses, other_gradients, other_norms, other_weights)] = &seen[..] else {
        unreachable!()
    };
    for ((ce, z, targets), (other_ce, other_z, other_targets)) in losses.iter().zip(other_losses) {
        assert_eq!(targets, other_targets);
        assert!(
            (ce / other_ce - 1.0).abs() < f64::from(tolerance) && (z / other_z - 1.0).abs() < f64::from(tolerance),
            "{ce} {other_ce}, {z} {other_z}"
        );
    }
    for (norm, other) in norms.iter().zip(other_norms) {
        assert!((norm / other - 1.0).abs() < f64::from(tolerance), "{norm} {other}");
    }
    for (index, info) in model.infos().iter().enumerate() {
        let difference = apart(&gradients[index], &other_gradients[index]) / largest(&gradients[index]);
        assert!(difference < tolerance, "gradient of {}: {difference}", info.name);
        // Adam's first updates are about a learning rate long whatever the gradient is, so a gradient near zero may go either way.
        let total: f32 = weights[index].iter().zip(&other_weights[index]).map(|(a, b)| (a - b).powi(2)).sum();
        let size: f32 = weights[index].iter().map(|value| value * value).sum();
        assert!((total / size).sqrt() < tolerance.max(1e-3), "{}: {}", info.name, (total / size).sqrt());
    }
}

#[test]
fn every_make_of_model() {
    let batches = [batch(3, 17, 0), batch(2, 9, 5)];
    let changes: [fn(&mut ModelConfig); 5] = [
        |_| {},
        |config| config.share_input_output_layers = false,
        |config| config.normalize_qk_projections = false,
        |config| config.ffn_with_glu = false,
        |config| (config.num_gqa_groups, config.padding_index) = (1, None),
    ];
    for change in changes {
        compare(&model(change), &batches, arithmetic(Precision::F32, false), 1e-4);
    }
}

#[test]
fn recomputation_and_single_tokens() {
    compare(&model(|_| {}), &[batch(2, 1, 3), batch(1, 32, 1)], arithmetic(Precision::F32, true), 1e-4);
}

/// Gradients of one micro-batch.
fn gradients(engine: &mut dyn Engine, model: &OpenElm, batch: &MicroBatch, precision: Precision) -> Vec<Vec<f32>> {
    engine.accumulate(model, batch, 0.01, &arithmetic(precision, false)).unwrap();
    (0..model.infos().len()).map(|index| engine.gradient(index).unwrap().unwrap()).collect()
}

/// The Euclidean distance over all parameters, relative to the size of `truth`.
fn distance(found: &[Vec<f32>], truth: &[Vec<f32>]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let pairs = || found.iter().flatten().zip(truth.iter().flatten());
    (pairs().map(|(a, b)| square(a - b)).sum::<f64>() / pairs().map(|(_, b)| square(*b)).sum::<f64>()).sqrt()
}

/// Two ways through bf16 round in different places, so they are measured by their distance from f32, not from each other.
#[test]
fn bf16_is_as_near_to_f32_as_burns() {
    let (model, batch) = (model(|_| {}), batch(3, 17, 0));
    let truth = gradients(&mut BurnEngine::new(&model), &model, &batch, Precision::F32);
    let burn = distance(&gradients(&mut BurnEngine::new(&model), &model, &batch, Precision::Bf16), &truth);
    let cpu = distance(&gradients(&mut CpuEngine::new().unwrap(), &model, &batch, Precision::Bf16), &truth);
    println!("bf16 gradients differ from f32 by {cpu:.2e} with the kernels, {burn:.2e} with burn's operations");
    assert!(cpu > 0.0 && cpu < 1.5 * burn, "{cpu} {burn}");
}

#[test]
fn documents_are_masked_alike() {
    let masked = |rows: usize, sequence: usize, starts: &[Vec<u32>]| batch(rows, sequence, 2).inside_documents(starts).unwrap();
    let batches = [masked(2, 21, &[vec![0, 5, 6, 19], vec![0, 11]]), masked(1, 8, &[vec![3]])];
    compare(&model(|_| {}), &batches, arithmetic(Precision::F32, false), 1e-4);
}

/// Sums of log-probabilities, and gradients of a weighted sum of them, are the same, with rows that weigh nothing.
#[test]
fn weighted_log_probabilities() {
    let rows: Vec<(Vec<u32>, Vec<bool>)> = (0..4)
        .map(|row| ((0..7 + 3 * row).map(|at| ((at * 31 + row) % 67) as u32).collect(), (0..7 + 3 * row).map(|at| at > 3).collect()))
        .collect();
    let batch = MicroBatch::of_targets(rows.iter().map(|(ids, counts)| (&ids[..], &counts[..])), VOCABULARY).unwrap();
    let all = [0.5, 0.0, -0.25, 1.5];
    // The same rows twice over, the second time with other endings: siblings share their beginnings.
    let endings = rows[..2].iter().map(|(ids, counts)| {
        let other: Vec<u32> = ids.iter().enumerate().map(|(at, id)| if at > 4 { (id + 5) % 67 } else { *id }).chain([3, 4]).collect();
        (other, counts.iter().copied().chain([true, true]).collect::<Vec<bool>>())
    });
    let family: Vec<(Vec<u32>, Vec<bool>)> = rows[..2].iter().cloned().chain(endings).collect();
    let family = MicroBatch::of_targets(family.iter().map(|(ids, counts)| (&ids[..], &counts[..])), VOCABULARY).unwrap().with_siblings();
    for (change, recompute, batch) in [(0, false, &batch), (1, true, &batch), (0, false, &family), (1, true, &family)] {
        let model = model(|config| config.share_input_output_layers = change == 0);
        let arithmetic = Arithmetic { z_loss: 0.0, ..arithmetic(Precision::F32, recompute) };
        let elsewhere = on_device(&model);
        let (mut burn, mut cpu) = (BurnEngine::new(&elsewhere), CpuEngine::new().unwrap());
        let engines: [(&mut dyn Engine, &OpenElm); 2] = [(&mut burn, &elsewhere), (&mut cpu, &model)];
        let found = engines.map(|(engine, model)| {
            let alone = engine.row_log_probabilities(model, batch, &arithmetic).unwrap();
            let mut gradients = Vec::new();
            for weights in [[0.0; 4], all] {
                let sums = engine
                    .accumulate_weighted(model, batch, &arithmetic, &mut |sums| {
                        assert_eq!(sums.len(), 4);
                        weights.to_vec()
                    })
                    .unwrap();
                assert!(sums.iter().zip(&alone).all(|(sum, alone)| (sum - alone).abs() < 1e-4 * alone.abs()), "{sums:?} {alone:?}");
                let read = |index| engine.gradient(index).unwrap().unwrap();
                gradients.push((0..model.infos().len()).map(read).collect::<Vec<_>>());
            }
            assert!(gradients[0].iter().flatten().all(|value| *value == 0.0));
            (alone, gradients.remove(1))
        });
        let [(sums, gradients), (other_sums, other_gradients)] = found;
        assert!(sums.iter().zip(&other_sums).all(|(a, b)| (a / b - 1.0).abs() < 1e-5), "{sums:?} {other_sums:?}");
        for (index, info) in model.infos().iter().enumerate() {
            let difference = apart(&gradients[index], &other_gradients[index]) / largest(&gradients[index]);
            assert!(difference < 1e-4, "gradient of {}: {difference}", info.name);
        }
    }
    assert!(
        CpuEngine::new().unwrap().accumulate_weighted(&model(|_| {}), &batch, &arithmetic(Precision::F32, false), &mut |_| vec![]).is_err()
    );
}
