//! A row of packed documents whose attention stays inside them is each document for itself, with burn and with the CPU kernels.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use openelm_model::{ModelConfig, OpenElm, Precision, open_device, preset};
use openelm_train::{Arithmetic, BurnEngine, CpuEngine, Engine, LossSums, MicroBatch};
use reference_values::{apart, largest};

const PADDING: u32 = 95;
const VOCABULARY: usize = 96;

fn batch(tokens: &[u32], length: usize) -> MicroBatch {
    MicroBatch::new(tokens, length, PADDING, VOCABULARY).unwrap()
}

fn compare(model: &OpenElm, mut engine: impl FnMut() -> Box<dyn Engine>, name: &str) {
    let token = |at: usize| (at * 37 % 90 + 3) as u32;
    // Two rows of 24 + 1 tokens: documents of 9, 1, 11 and 4 tokens, and one of 20 tokens before padding.
    let mut rows: Vec<u32> = (0..25).map(token).collect();
    rows.extend((100..120).map(token).chain([PADDING; 5]));
    let packed = batch(&rows, 24).inside_documents(&[vec![0, 9, 10, 21], vec![0]]).unwrap();
    let separate = [batch(&rows[..9], 8), batch(&rows[10..21], 10), batch(&rows[21..25], 3), batch(&rows[25..45], 19)];
    for recompute in [false, true] {
        let arithmetic = Arithmetic { precision: Precision::F32, recompute, z_loss: 1e-4, padding_in_z: false };
        let (mut together, mut one_by_one) = (engine(), engine());
        let found = together.accumulate(model, &packed, 0.1, &arithmetic).unwrap();
        let mut expected = LossSums::default();
        for batch in &separate {
            expected.add(one_by_one.accumulate(model, batch, 0.1, &arithmetic).unwrap());
        }
        assert_eq!(found.targets, expected.targets);
        assert!((found.ce - expected.ce).abs() < 1e-3 && (found.z - expected.z).abs() < 1e-2, "{name}: {found:?}, {expected:?}");
        for (index, info) in model.infos().iter().enumerate() {
            let [ours, theirs] = [&together, &one_by_one].map(|engine| engine.gradient(index).unwrap().unwrap());
            let difference = apart(&ours, &theirs) / largest(&theirs);
            assert!(difference < 1e-4, "{name}, {} (recompute {recompute}): {difference}", info.name);
        }
        // Without the mask the rows are something else.
        let unmasked = engine().losses(model, &batch(&rows, 24), &arithmetic).unwrap();
        let masked = engine().losses(model, &packed, &arithmetic).unwrap();
        assert!((masked.ce - expected.ce).abs() < 1e-3 && (unmasked.ce - masked.ce).abs() > 0.1, "{name}: {masked:?}, {unmasked:?}");
    }
}

#[test]
fn masked_documents_equal_separate_sequences() {
    let config = ModelConfig {
        vocab_size: VOCABULARY,
        max_context_length: 24,
        rope_max_length: 48,
        padding_index: Some(PADDING as usize),
        ..preset("OpenELM-tiny").unwrap()
    };
    let device = open_device(&std::env::var("OPENELM_TEST_DEVICE").unwrap_or_else(|_| "flex".into())).unwrap();
    let model = OpenElm::init(&config, 5, &device).unwrap();
    compare(&model, || Box::new(BurnEngine::new(&model)), "burn");
    if CpuEngine::can_run(&model) {
        compare(&model, || Box::new(CpuEngine::new().unwrap()), "kernels");
    }
}
