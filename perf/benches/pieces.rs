//! The time that the pieces of the packet path take: `cargo bench -p sluice-perf`.
//!
//! What is compared from commit to commit is their instructions (`sluice-perf count`): those do not
//! depend on what else the machine does.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sluice_perf::pieces::{LARGE, PIECES};

fn pieces(criterion: &mut Criterion) {
    for (name, prepare) in PIECES.iter().chain(LARGE) {
        let mut piece = prepare();
        let mut group = criterion.benchmark_group("pieces");
        group.throughput(Throughput::Elements(u64::from(piece.operations)));
        group.bench_function(*name, |bencher| bencher.iter(&mut piece.run));
        group.finish();
    }
}

criterion_group!(benches, pieces);
criterion_main!(benches);
