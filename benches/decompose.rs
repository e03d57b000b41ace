//! Merges that take matrices apart, on the CPU device and on every GPU:
//! `cargo bench --bench decompose [-- --repeat N --cpu]`.
//!
//! With `--file TAUS --shape ROWSxCOLS --rule RULE --out DELTA` it merges task vectors from a file of f32 once, on the CPU
//! device, and prints the seconds: what `benches/decompose.py` compares with PyTorch.
#![allow(clippy::print_stdout, reason = "a bench prints its results")]

#[path = "../tests/common/mod.rs"]
mod common;

use std::time::{Duration, Instant};

use common::values;
use magic_merge::cpu::Cpu;
use magic_merge::decompose::{Decomposed, Route, Rule, merge};
use magic_merge::executor::Executor;
use magic_merge::gpu::{Choice, Gpu, Options, adapter};

const RULES: [(&str, Rule); 3] =
    [("iso_c", Rule::IsoC), ("iso_cts", Rule::IsoCts { common_fraction: 0.8 }), ("tsv_m", Rule::TsvM)];
const EXPERTS: usize = 8;
const SHAPES: [(usize, usize); 2] = [(1024, 1024), (768, 3072)];

/// Device memory that a merge may take.
const BUDGET: u64 = 1 << 30;

fn timed(rule: Rule, executor: &Executor, shape: (usize, usize), taus: &[Vec<f32>]) -> (Duration, Decomposed) {
    // They are asked for once or twice; copying is not what is timed.
    let mut copies: Vec<Vec<Vec<f32>>> = taus.iter().map(|tau| vec![tau.clone(); 2]).collect();
    let mut next = |k: usize| copies[k].pop().expect("asked for twice");
    let start = Instant::now();
    let found = merge(rule, executor, BUDGET, shape, taus.len(), &mut |k| Ok(next(k))).expect("a merge");
    (start.elapsed(), found)
}

/// Task vectors with something in common and a spectrum that falls, as those of fine-tuning do.
fn taus((rows, cols): (usize, usize)) -> Vec<Vec<f32>> {
    let shared = values(rows * cols, 1.0, 1);
    let own = |k: usize| values(rows * cols, 1.0, 2 + k as u64);
    let falls = |i: usize| 1.0 / (1.0 + (i / cols) as f32 / 16.0);
    (0..EXPERTS)
        .map(|k| shared.iter().zip(own(k)).enumerate().map(|(i, (a, b))| (a + b) * falls(i)).collect())
        .collect()
}

fn table(name: &str, executor: &Executor, shapes: [(usize, usize); 2], repeat: usize) {
    for shape in shapes {
        let taus = taus(shape);
        for (label, rule) in RULES {
            let mut times = Vec::new();
            let mut route = Route::Products;
            for _ in 0..repeat {
                let (time, found) = timed(rule, executor, shape, &taus);
                times.push(time.as_secs_f64() * 1e3);
                route = found.route;
            }
            times.sort_by(f64::total_cmp);
            let (best, worst) = (times[0], times[times.len() - 1]);
            let route = match route {
                Route::Products => "products".to_owned(),
                Route::Host(why) => format!("host: {why}"),
            };
            println!("| {label} | {} × {} | {name} | {best:.0} | {worst:.0} | {route} |", shape.0, shape.1);
        }
    }
}

fn once(argument: &dyn Fn(&str) -> Option<String>, file: &str) {
    let shape = argument("--shape").expect("--shape ROWSxCOLS");
    let (rows, cols) = shape.split_once('x').expect("ROWSxCOLS");
    let shape: (usize, usize) = (rows.parse().expect("rows"), cols.parse().expect("columns"));
    let wanted = argument("--rule").expect("--rule RULE");
    let (_, rule) = RULES.into_iter().find(|(name, _)| *name == wanted).expect("a rule");
    let bytes = std::fs::read(file).expect("task vectors");
    let all: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let taus: Vec<Vec<f32>> = all.chunks_exact(shape.0 * shape.1).map(<[f32]>::to_vec).collect();
    let executor = Executor::Cpu(Cpu::default());
    if argument("--warm").is_some() {
        timed(rule, &executor, shape, &taus);
    }
    let (time, found) = timed(rule, &executor, shape, &taus);
    std::fs::write(argument("--out").expect("--out FILE"), bytemuck::cast_slice(&found.tau)).expect("the result");
    println!("{}", time.as_secs_f64());
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let argument = |name: &str| {
        let at = arguments.iter().position(|a| a == name)?;
        Some(arguments.get(at + 1).cloned().unwrap_or_default())
    };
    if let Some(file) = argument("--file") {
        return once(&argument, &file);
    }
    let repeat = argument("--repeat").and_then(|n| n.parse().ok()).unwrap_or(3);
    println!("| rule | eight of | device | best ms | worst ms | route |\n|---|---|---|--:|--:|---|");
    table("CPU", &Executor::Cpu(Cpu::default()), SHAPES, repeat);
    if argument("--cpu").is_none() {
        for adapter in adapter::list() {
            let options = Options { checks: false, ..Options::default() };
            // A software driver is no GPU: small matrices, not to be ranked.
            let shapes = if adapter.is_software() { [(256, 256), (192, 768)] } else { SHAPES };
            if let Ok(Some(gpu)) = Gpu::open(&Choice::Index(adapter.index), &options) {
                table(&adapter.name, &Executor::Gpu(Box::new(gpu)), shapes, repeat);
            }
        }
    }
}
