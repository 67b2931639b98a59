//! `openelm serve`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use openelm_infer::server::{ServedModel, Server, ServerSettings};

use super::chat_model::ChatModel;
use super::decoder::open_draft;
use super::export::model_name;
use crate::args::ServeArguments;

pub(super) fn serve(arguments: &ServeArguments) -> Result<()> {
    let settings = ServerSettings {
        slots: arguments.slots,
        context: arguments.context,
        queue: arguments.queue,
        timeout: seconds("timeout", arguments.timeout)?,
        drain: seconds("drain", arguments.drain)?,
        body_limit: arguments.body_limit_kib.saturating_mul(1024),
        connections: arguments.connections,
        prefill_chunk: arguments.prefill_chunk,
        kept_caches: arguments.keep.unwrap_or(arguments.slots),
        api_key: arguments.api_key_file.as_deref().map(key_of).transpose()?,
    };
    let drain = settings.drain;
    if !arguments.host.is_loopback() && settings.api_key.is_none() {
        eprintln!("note: whoever reaches {} can use this server; --api-key-file asks them for a key", arguments.host);
    }
    let ChatModel { decoder, tokenizer, template } = ChatModel::open(&arguments.weights, &arguments.model)?;
    let name = arguments.model_name.clone().unwrap_or_else(|| model_name(&arguments.weights));
    let draft = open_draft(&arguments.guesses, &arguments.model.decoder, &*decoder)?.map(Arc::new);
    let model = ServedModel { name: name.clone(), decoder, draft, tokenizer, template };
    let server = Server::start(model, settings, SocketAddr::new(arguments.host, arguments.port))?;
    println!("serving {name} at http://{}", server.address());
    std::io::stdout().flush()?;
    eprintln!("note: {} answers at once, {} tokens each with its prompt; Ctrl-C or SIGTERM ends", arguments.slots, server.context());
    let whole = server.run(|| eprintln!("note: ending; running answers have {} s, a second signal ends at once", drain.as_secs_f64()))?;
    if !whole {
        eprintln!("note: ended before all answers were whole");
    }
    Ok(())
}

fn seconds(name: &str, value: f64) -> Result<Duration> {
    Duration::try_from_secs_f64(value).with_context(|| format!("--{name} is {value}\nhint: give a number of seconds, 0 or above"))
}

/// The key in a file, without the white space round it.
fn key_of(path: &Path) -> Result<String> {
    let place = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the API key from {place} failed\nhint: the file must hold the key as text"))?;
    match text.trim() {
        "" => bail!("{place} holds no API key\nhint: write the key into the file, or leave --api-key-file out"),
        key => Ok(key.to_owned()),
    }
}
