//! Replays what the fuzzers keep: `fuzz/corpus/TARGET/*` through each target.

use std::fs;
use std::path::Path;

use sluice_path::testkit::fuzz::TARGETS;

#[test]
fn the_fuzzers_corpus_passes() {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
        let mut inputs = 0;
        for entry in fs::read_dir(&directory).expect("a corpus for each target") {
            let path = entry.unwrap().path();
            println!("{}", path.display());
            target(&fs::read(&path).unwrap());
            inputs += 1;
        }
        assert!(inputs >= 5, "{name}: {inputs} inputs");
    }
}
