//! A small model with a tokenizer of its own, and servers of it.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use burn::tensor::Device;
use openelm_infer::server::{ServedModel, Server, ServerSettings};
use openelm_infer::{BurnDecoder, Cache, Decoder, Draft, InferError, Limits, Run, Sampler, SamplingSettings, generate};
use openelm_model::{ModelConfig, OpenElm, Precision, preset};
use openelm_tokenizer::{BpeTraining, ChatTemplate, Tokenizer, train};

/// Trained on little, so that words are several tokens.
pub fn tokenizer() -> Tokenizer {
    let texts = ["the small bird sings a song of the sea", "user system assistant", "every answer is a song, and the song is small"];
    train(&BpeTraining::new(295), texts.iter().map(|text| Ok::<_, Infallible>((*text).to_owned()))).unwrap()
}

/// Always the same weights; random ones, so that its texts are long and without sense.
pub fn decoder() -> BurnDecoder {
    let config = ModelConfig { vocab_size: tokenizer().vocab_size(), ..preset("OpenELM-tiny").unwrap() };
    BurnDecoder::new(OpenElm::init(&config, 7, &Device::flex()).unwrap(), Precision::F32)
}

/// A decoder that takes its time, or fails when told to, and counts the tokens that it reads.
pub struct Bent {
    decoder: BurnDecoder,
    delay: Duration,
    pub fails: AtomicBool,
    pub tokens: AtomicUsize,
}

impl Bent {
    pub fn new(delay: Duration) -> Self {
        Self { decoder: decoder(), delay, fails: AtomicBool::new(false), tokens: AtomicUsize::new(0) }
    }
}

impl Decoder for Bent {
    fn config(&self) -> &ModelConfig {
        self.decoder.config()
    }

    fn cache(&self, capacity: usize) -> Cache {
        self.decoder.cache(capacity)
    }

    fn read(&self, runs: &mut [Run<'_>]) -> Result<Vec<Vec<f32>>, InferError> {
        std::thread::sleep(self.delay);
        if self.fails.swap(false, Ordering::SeqCst) {
            return Err(InferError::NotFinite { value: f32::NAN, position: 3 });
        }
        self.tokens.fetch_add(runs.iter().map(|run| run.ids.len()).sum(), Ordering::SeqCst);
        self.decoder.read(runs)
    }
}

pub fn serve(decoder: Arc<dyn Decoder>, settings: ServerSettings) -> Server {
    serve_with(decoder, None, settings)
}

pub fn serve_with(decoder: Arc<dyn Decoder>, draft: Option<Draft>, settings: ServerSettings) -> Server {
    let (draft, template) = (draft.map(Arc::new), ChatTemplate::openelm_instruct().unwrap());
    let model = ServedModel { name: "tiny".into(), decoder, draft, tokenizer: tokenizer(), template };
    Server::start(model, ServerSettings { drain: Duration::from_secs(20), ..settings }, "127.0.0.1:0".parse().unwrap()).unwrap()
}

/// Positions of the test servers' sequences.
pub const CONTEXT: usize = 256;

/// A server without delays.
pub fn server() -> Server {
    let settings = ServerSettings { context: Some(CONTEXT), prefill_chunk: 24, ..ServerSettings::default() };
    serve(Arc::new(decoder()), settings)
}

/// A server that needs `delay` for a step.
pub fn slow_server(delay: Duration, settings: ServerSettings) -> Server {
    serve(Arc::new(Bent::new(delay)), ServerSettings { context: Some(CONTEXT), ..settings })
}

/// The text of `openelm generate` behind `prompt`.
pub fn generated(decoder: &dyn Decoder, prompt: &[u32], tokens: usize, settings: SamplingSettings) -> String {
    let tokenizer = tokenizer();
    let limits = Limits { max_new_tokens: tokens, stop: tokenizer.eos_id().into_iter().collect() };
    let mut sampler = Sampler::new(settings).unwrap();
    let made = generate(decoder, prompt, &mut sampler, &limits, None, |_| true).unwrap();
    let mut stream = tokenizer.decoder();
    for id in prompt {
        stream.push(*id);
    }
    let text: String = made.ids.iter().filter(|id| !limits.stop.contains(id)).filter_map(|id| stream.push(*id)).collect();
    text + &stream.finish()
}

/// BOS and the ids of a text.
pub fn ids(text: &str) -> Vec<u32> {
    let tokenizer = tokenizer();
    tokenizer.bos_id().into_iter().chain(tokenizer.encode(text)).collect()
}
