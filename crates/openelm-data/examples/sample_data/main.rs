mod generator;
use generator::document::*;
use generator::stream::Stream;
fn main() {
    let language = Language::new(1).unwrap();
    let n: u64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(1);
    let check = std::env::args().nth(2).is_some();
    println!("facts {} bits {} names {} {}", language.world.facts, language.world.fact_bits, language.world.names, language.world.name_bits);
    for genre in Genre::ALL {
        let blend: Blend = Box::leak(Box::new([(genre, 1)]));
        let (mut bytes, mut bits, mut min, mut max) = (0, 0.0, 1 << 30, 0);
        let start = std::time::Instant::now();
        for i in 0..n {
            let d = language.document(Stream::new(1, "try", i), blend).unwrap_or_else(|e| panic!("{genre:?} {i} {e:?}"));
            bytes += d.text.len();
            bits += d.bits;
            let chars = d.text.chars().count();
            min = min.min(chars);
            max = max.max(chars);
            if n == 1 { println!("=== {}\n{}", genre.name(), d.text); }
            if check {
                let (ways, reached) = language.derivations(&d.text, blend).unwrap();
                if ways.len() != 1 || (ways[0] - d.bits).abs() > 1e-6 { println!("{genre:?} {i}: {ways:?} {} reached {reached}\n{}", d.bits, d.text); return; }
            }
        }
        println!("--- {} mean bytes {} min {min} max {max} bits/byte {:.4} time {:?}", genre.name(), bytes / n as usize, bits / bytes as f64, start.elapsed());
    }
}
