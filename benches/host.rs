//! What the host does around the kernels: `cargo bench --bench host [-- FILTER]`. Kernels and their twins are measured by
//! `magic bench`.
#![allow(missing_docs, reason = "criterion writes the entry points")]

use std::hint::black_box;
use std::path::Path;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use magic_merge::bench::{store, values};
use magic_merge::checkpoint::{Checkpoint, Dtype};
use magic_merge::device::Wanted;
use magic_merge::job::Job;
use magic_merge::kernels::convert;
use magic_merge::progress::Progress;
use magic_merge::recipe::Recipe;
use magic_merge::select::{Source, cuts};
use magic_merge::stream::{Engine, Stream};

/// Elements of a block, as the CPU device works.
const BLOCK: usize = 32 << 10;

/// Every stored type to f32 and back.
fn types(criterion: &mut Criterion) {
    let dtypes = [Dtype::F32, Dtype::BF16, Dtype::F16, Dtype::F64, Dtype::F8E4M3, Dtype::F8E5M2];
    let plane = values(BLOCK, 0.1, 1);
    let mut decode = criterion.benchmark_group("decode");
    decode.throughput(Throughput::Elements(BLOCK as u64));
    for dtype in dtypes {
        // As twins see it, at a word boundary.
        let words: Vec<u64> = bytemuck::pod_collect_to_vec(&store(dtype, &plane));
        let mut out = vec![0f32; BLOCK];
        decode.bench_function(dtype.header_name(), |b| {
            b.iter(|| convert::widen(dtype, black_box(bytemuck::cast_slice(&words)), 0, &mut out));
        });
    }
    decode.finish();
    let mut encode = criterion.benchmark_group("encode");
    encode.throughput(Throughput::Elements(BLOCK as u64));
    for dtype in dtypes {
        let mut words = vec![0u64; (BLOCK * dtype.size()).div_ceil(8)];
        encode.bench_function(dtype.header_name(), |b| {
            b.iter(|| convert::narrow(dtype, black_box(&plane), bytemuck::cast_slice_mut(&mut words), 0));
        });
    }
    encode.finish();
}

/// A checkpoint of `tensors` matrices in bf16.
fn checkpoint(folder: &Path, tensors: u64, shape: [u64; 2], seed: u64) {
    let bytes = 2 * shape[0] * shape[1];
    let entry = |i: u64| {
        let (begin, end) = (i * bytes, (i + 1) * bytes);
        format!(r#""model.layers.{i}.weight":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{begin},{end}]}}"#)
    };
    let mut header = format!("{{{}}}", (0..tensors).map(entry).collect::<Vec<_>>().join(",")).into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.append(&mut header);
    file.append(&mut store(Dtype::BF16, &values((tensors * bytes / 2) as usize, 0.1, seed)));
    std::fs::create_dir_all(folder).expect("a folder can be made");
    std::fs::write(folder.join("model.safetensors"), file).expect("a model can be written");
}

/// Opening a checkpoint: its header is read, parsed and checked.
fn headers(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut group = criterion.benchmark_group("header");
    for tensors in [300, 3000] {
        let path = folder.path().join(tensors.to_string());
        checkpoint(&path, tensors, [4, 4], 0);
        let spec = path.to_str().expect("a path that is text");
        group.throughput(Throughput::Elements(tensors));
        group.bench_function(BenchmarkId::from_parameter(tensors), |b| {
            b.iter(|| Checkpoint::open(black_box(spec), &[]).expect("a sound checkpoint"));
        });
    }
    group.finish();
}

/// The exact threshold of two experts' task vectors: a tensor of 4 Mi elements is read three times, or four.
fn selection(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (seed, name) in ["base", "a", "b"].into_iter().enumerate() {
        checkpoint(&folder.path().join(name), 1, [2048, 2048], seed as u64);
    }
    let text = "{merge_method: ties, base_model: base, models: [{model: a}, {model: b}], parameters: {density: 0.2}}";
    let recipe = Recipe::from_yaml(text, "bench").expect("a sound recipe");
    let wanted = Wanted { device: "cpu".to_owned(), ..Wanted::default() };
    let job = Job::new(recipe, Some(folder.path()), &wanted).expect("a sound job");
    let progress = Progress::default();
    let engine = Engine { checkpoints: &job.checkpoints, executor: &job.opened.executor, progress: &progress };
    let stream = Stream::new(&engine, &job.plan.tensors[0]);
    let elements = job.plan.tensors[0].elements;
    let mut group = criterion.benchmark_group("selection");
    group.throughput(Throughput::Elements(2 * elements)).sample_size(10);
    for part in [0.2, 0.8] {
        let kept = [(part * elements as f64) as u64; 2];
        group.bench_function(BenchmarkId::from_parameter(part), |b| {
            b.iter(|| cuts(&stream, Source::Experts, black_box(&kept)).expect("thresholds"));
        });
    }
    group.finish();
}

criterion_group!(benches, types, headers, selection);
criterion_main!(benches);
