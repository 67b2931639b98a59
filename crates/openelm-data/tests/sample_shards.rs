//! The shard readers find in data/sample exactly the documents that its entropy report counts, in every layout.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use openelm_data::{CorpusConfig, documents, fix_text};

#[test]
fn every_layout_gives_the_documents_and_bytes_of_the_report() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/sample");
    let report: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.join("entropy.json")).unwrap()).unwrap();
    let corpora = report["corpora"].as_object().unwrap();
    assert_eq!(corpora.len(), 13);
    let mut changed = 0;
    for (name, account) in corpora {
        let pattern = folder.join(name).join("*").to_str().unwrap().to_string();
        let mut corpus = CorpusConfig::new(name.clone(), vec![pattern]);
        if name == "refinedweb" {
            corpus.text_key = "content".into();
        }
        let (mut count, mut bytes, mut characters) = (0u64, 0u64, 0u64);
        for document in documents(&[corpus], &Default::default()) {
            let document = document.unwrap();
            let text = fix_text(&document.text);
            changed += u64::from(*text != *document.text);
            count += 1;
            bytes += text.len() as u64;
            characters += text.chars().count() as u64;
        }
        assert_eq!(Some(count), account["documents"].as_u64(), "{name}: documents");
        assert_eq!(Some(bytes), account["bytes"].as_u64(), "{name}: bytes");
        assert_eq!(Some(characters), account["characters"].as_u64(), "{name}: characters");
    }
    // The shard with accents apart from their letters: without normalisation its bytes would be others.
    assert!(changed > 100, "{changed}");
}
