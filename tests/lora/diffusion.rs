//! Files of diffusion tools, merged with each other module by module.

use super::*;

/// A LoRA of a diffusion tool: for each module its down and up names, shapes, alpha.
pub type Module<'a> = (&'a str, [usize; 2], usize, Option<f32>);

pub fn kohya(path: &Path, modules: &[Module<'_>], seed: u64) -> Vec<(String, Vec<f32>)> {
    single(path, modules, seed, (".lora_down.weight", ".lora_up.weight"))
}

/// Writes the file, and gives each module's ΔW.
pub fn single(path: &Path, modules: &[Module<'_>], seed: u64, ends: (&str, &str)) -> Vec<(String, Vec<f32>)> {
    let mut file = Vec::new();
    let mut deltas = Vec::new();
    for (i, (module, [outputs, inputs], rank, alpha)) in modules.iter().enumerate() {
        let down: Vec<f32> = noise(seed * 100 + i as u64).take(rank * inputs).collect();
        let up: Vec<f32> = noise(seed * 100 + 50 + i as u64).take(outputs * rank).collect();
        let scale = alpha.map_or(1.0, |alpha| alpha / *rank as f32);
        let delta = (0..outputs * inputs).map(|e| {
            scale * (0..*rank).map(|k| up[e / inputs * rank + k] * down[k * inputs + e % inputs]).sum::<f32>()
        });
        deltas.push(((*module).to_owned(), delta.collect()));
        let conv = module.contains("conv");
        let (a, b) = match conv {
            true => (vec![*rank, inputs / 9, 3, 3], vec![*outputs, *rank, 1, 1]),
            false => (vec![*rank, *inputs], vec![*outputs, *rank]),
        };
        file.push((format!("{module}{}", ends.0), a, down));
        file.push((format!("{module}{}", ends.1), b, up));
        file.extend(alpha.map(|alpha| (format!("{module}.alpha"), Vec::new(), vec![alpha])));
    }
    write(path, &file);
    deltas
}

/// ΔW of a module of a written file.
fn delta(file: &Tensors, module: &str, ends: (&str, &str)) -> Vec<f32> {
    let ((_, down), (_, up)) = (&file[&format!("{module}{}", ends.0)], &file[&format!("{module}{}", ends.1)]);
    let rank = file[&format!("{module}{}", ends.0)].0[0];
    let scale = file.get(&format!("{module}.alpha")).map_or(1.0, |(_, alpha)| alpha[0] / rank as f32);
    let inputs = down.len() / rank;
    let sum = |e: usize| (0..rank).map(|k| up[e / inputs * rank + k] * down[k * inputs + e % inputs]).sum::<f32>();
    (0..up.len() / rank * inputs).map(|e| scale * sum(e)).collect()
}

pub const A: &[Module<'_>] = &[
    ("lora_unet_mid_attn1_to_q", [12, 10], 3, Some(1.5)),
    ("lora_unet_mid_conv", [6, 18], 2, Some(2.0)),
    ("lora_te_text_model_q_proj", [8, 8], 2, None),
];
const B: &[Module<'_>] =
    &[("lora_unet_mid_attn1_to_q", [12, 10], 2, Some(4.0)), ("lora_unet_mid_conv", [6, 18], 3, None)];

#[test]
fn files_of_diffusion_tools_are_merged_pair_by_pair() {
    let sandbox = Sandbox::empty();
    let a = kohya(&sandbox.path("a.safetensors"), A, 1);
    let b = kohya(&sandbox.path("b.safetensors"), B, 2);
    let run = merge(&sandbox, &["a.safetensors=0.75", "b.safetensors=0.25"], &["--method", "linear"], "out").good();
    assert!(run.stdout.contains("adapter of 3 tensors"), "{}", run.stdout);
    let file = tensors(&sandbox.path("out/pytorch_lora_weights.safetensors"));
    let ends = (".lora_down.weight", ".lora_up.weight");
    assert_eq!(file.len(), 9);
    for (i, (module, own)) in a.iter().enumerate() {
        let other = b.get(i).map(|(_, delta)| delta.clone()).unwrap_or(vec![0.0; own.len()]);
        let expected: Vec<f32> = own.iter().zip(&other).map(|(a, b)| 0.75 * a + 0.25 * b).collect();
        let d = distance(&delta(&file, module, ends), &expected);
        assert!(d < 2e-6, "{module}: {d:.1e}");
    }
    assert_eq!(file["lora_unet_mid_conv.lora_down.weight"].0, [5, 2, 3, 3]);
    assert_eq!(file["lora_unet_mid_conv.lora_up.weight"].0, [6, 5, 1, 1]);
    assert_eq!(file["lora_unet_mid_attn1_to_q.alpha"].1, [5.0]);
    // Calibrated: row by row as the formula says, and at a rank of choice.
    let args = ["--method", "linear", "--calibrate", "wsc", "--manifold", "sphere", "--norm", "l2"];
    merge(&sandbox, &["a.safetensors", "b.safetensors"], &args, "wsc").good();
    let file = tensors(&sandbox.path("wsc/pytorch_lora_weights.safetensors"));
    let got = delta(&file, "lora_unet_mid_attn1_to_q", ends);
    for row in 0..12 {
        let norm = |x: &[f32]| recorded::norm(x[row * 10..][..10].iter().copied());
        let mean = (norm(&a[0].1) + norm(&b[0].1)) / 2.0;
        assert!((norm(&got) / mean - 1.0).abs() < 1e-5);
    }
    merge(&sandbox, &["a.safetensors", "b.safetensors"], &[&args[..], &["--lora-out", "2"]].concat(), "two").good();
    let file = tensors(&sandbox.path("two/pytorch_lora_weights.safetensors"));
    assert_eq!(file["lora_unet_mid_attn1_to_q.alpha"].1, [2.0]);
    assert!(sandbox.path("two/magic.json").exists() && !sandbox.path("two/adapter_config.json").exists());
}

#[test]
fn naming_schemes_meet() {
    let sandbox = Sandbox::empty();
    let a = kohya(&sandbox.path("a.safetensors"), A, 1);
    let ends = (".lora_A.weight", ".lora_B.weight");
    let modules: &[Module<'_>] =
        &[("unet.mid.attn1.to_q", [12, 10], 2, None), ("unet.mid.attn1.to_k", [12, 10], 2, None)];
    let b = single(&sandbox.path("b.safetensors"), modules, 2, ends);
    merge(&sandbox, &["a.safetensors", "b.safetensors"], &["--method", "task_arithmetic"], "out").good();
    let file = tensors(&sandbox.path("out/pytorch_lora_weights.safetensors"));
    let down = (".lora_down.weight", ".lora_up.weight");
    let expected: Vec<f32> = a[0].1.iter().zip(&b[0].1).map(|(a, b)| a + b).collect();
    assert!(distance(&delta(&file, "lora_unet_mid_attn1_to_q", down), &expected) < 2e-6);
    assert!(distance(&delta(&file, "lora_unet_mid_attn1_to_k", down), &b[1].1) < 2e-6);
    // The other way round, kohya's names cannot be spelled with points.
    let run = merge(&sandbox, &["b.safetensors", "a.safetensors"], &["--method", "task_arithmetic"], "bad");
    assert_eq!(run.code, Some(1));
    assert!(run.stderr.contains("kohya's names first"), "{}", run.stderr);
    single(&sandbox.path("c.safetensors"), &modules[..1], 3, (".lora.down.weight", ".lora.up.weight"));
    merge(&sandbox, &["b.safetensors", "c.safetensors"], &["--method", "task_arithmetic"], "dots").good();
    let file = tensors(&sandbox.path("dots/pytorch_lora_weights.safetensors"));
    assert_eq!(file["unet.mid.attn1.to_q.lora_A.weight"].0, [4, 10]);
    assert!(!file.keys().any(|name| name.ends_with("alpha")));
}

#[test]
fn kohya_alphas_and_names_of_blocks() {
    let sandbox = Sandbox::empty();
    kohya(&sandbox.path("a.safetensors"), &[("lora_unet_input_blocks_1_to_q", [4, 4], 2, Some(2.0))], 1);
    let b = kohya(&sandbox.path("b.safetensors"), &[("lora_unet_down_blocks_0_to_q", [4, 4], 2, Some(1.0))], 2);
    let run = merge(&sandbox, &["a.safetensors", "b.safetensors"], &["--method", "linear"], "out").good();
    for words in ["`a.safetensors` and `b.safetensors` share no module", "not translated"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    // The same with alpha as an integer.
    let bytes = fs::read(sandbox.path("b.safetensors")).unwrap();
    let old = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    for (kind, alpha, good) in [
        (safetensors::Dtype::I64, &1i64.to_le_bytes()[..], true),
        (safetensors::Dtype::U8, &[1], true),
        (safetensors::Dtype::BOOL, &[1], false),
    ] {
        let views = old.iter().map(|(name, view)| match name.ends_with(".alpha") {
            true => (name, safetensors::tensor::TensorView::new(kind, Vec::new(), alpha).unwrap()),
            false => (name, view),
        });
        safetensors::serialize_to_file(views, None, &sandbox.path("c.safetensors")).unwrap();
        let run = merge(&sandbox, &["c.safetensors"], &["--method", "linear", "--overwrite"], "int");
        if !good {
            assert!(run.stderr.contains("is stored as BOOL"), "{}", run.stderr);
            continue;
        }
        run.good();
        let file = tensors(&sandbox.path("int/pytorch_lora_weights.safetensors"));
        let got = delta(&file, "lora_unet_down_blocks_0_to_q", (".lora_down.weight", ".lora_up.weight"));
        assert!(distance(&got, &b[0].1) < 2e-6);
    }
}
