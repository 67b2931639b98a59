//! The encoder of a SentencePiece BPE model.

use crate::boundaries::Boundaries;
use crate::bpe::{BpeEncoder, Scratches};
use crate::matcher::Matcher;
use crate::model_file::PieceKind;
use crate::symbols::{SPACE, Symbols};
use crate::vocabulary::Vocabulary;

/// `escaped`: spaces are U+2581 in the vocabulary.
pub(crate) fn bpe_of_model(vocabulary: &Vocabulary, escaped: bool) -> BpeEncoder {
    let symbols = Symbols::of_scores(vocabulary, escaped);
    let unused: Vec<bool> = vocabulary.pieces.iter().map(|piece| piece.kind == PieceKind::Unused).collect();
    // The text in which they are looked for has spaces where SentencePiece has U+2581.
    let fixed: Vec<(String, u32)> = vocabulary
        .of_kind(PieceKind::UserDefined)
        .filter(|(text, _)| !(escaped && text.contains(' ')))
        .map(|(text, id)| (if escaped { text.replace(SPACE, " ") } else { text.to_owned() }, id))
        .collect();
    BpeEncoder {
        boundaries: Boundaries::new(vocabulary.pieces_by_text.keys().map(String::as_str), &symbols),
        symbols,
        unk: vocabulary.unk.unwrap_or_default(),
        bytes: vocabulary.bytes.clone(),
        fixed: Matcher::new(fixed.iter().map(|(text, id)| (text.as_str(), *id))),
        unused: unused.contains(&true).then_some(unused),
        scratches: Scratches::default(),
    }
}
