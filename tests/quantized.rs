//! Stored numbers that stand for weights only together with scales are not merged as if they were weights.

#[allow(dead_code, reason = "each test uses its own part")]
#[path = "common/cli.rs"]
mod cli;

use cli::Sandbox;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// End of a name that gives a layer away, and what the layer has.
type Kind<'a> = (&'a str, Vec<(String, Dtype, &'a [usize])>);

/// A model in `name` of tensors of zeros.
fn model(sandbox: &Sandbox, name: &str, tensors: &[(&str, Dtype, &[usize])], config: &str) {
    let data: Vec<Vec<u8>> = tensors
        .iter()
        .map(|(_, dtype, shape)| vec![0; shape.iter().product::<usize>() * dtype.bitsize() / 8])
        .collect();
    let views = tensors.iter().zip(&data).map(|((name, dtype, shape), data)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), data).expect("data of the shape"))
    });
    sandbox.write(&format!("{name}/config.json"), config);
    serialize_to_file(views, None, &sandbox.path(&format!("{name}/model.safetensors"))).expect("a file");
}

#[test]
fn quantised_models_are_refused_by_name() {
    const UP: &str = "model.layers.0.mlp.up_proj";
    let plain = r#"{"model_type": "llama"}"#;
    let fp8 = r#"{"model_type": "deepseek_v3", "quantization_config": {"quant_method": "fp8"}}"#;
    let kinds: [Kind<'_>; 5] = [
        (
            "_scale_inv",
            vec![
                (format!("{UP}.weight"), Dtype::F8_E4M3, &[256, 128]),
                (format!("{UP}.weight_scale_inv"), Dtype::F32, &[2, 1]),
            ],
        ),
        (
            "_scale",
            vec![
                (format!("{UP}.weight"), Dtype::I8, &[256, 128]),
                (format!("{UP}.weight_scale"), Dtype::BF16, &[256, 1]),
            ],
        ),
        (
            ".qweight",
            vec![(format!("{UP}.qweight"), Dtype::I32, &[16, 128]), (format!("{UP}.scales"), Dtype::F16, &[2, 128])],
        ),
        (
            ".absmax",
            vec![(format!("{UP}.weight"), Dtype::U8, &[128, 1]), (format!("{UP}.weight.absmax"), Dtype::F32, &[4])],
        ),
        (".SCB", vec![(format!("{UP}.weight"), Dtype::I8, &[8, 8]), (format!("{UP}.SCB"), Dtype::F32, &[8])]),
    ];
    for (end, tensors) in kinds {
        let sandbox = Sandbox::empty();
        let tensors: Vec<_> = tensors.iter().map(|(name, dtype, shape)| (name.as_str(), *dtype, *shape)).collect();
        for name in ["base", "a", "b"] {
            model(&sandbox, name, &tensors, fp8);
        }
        let run = sandbox.merge(&["--method", "linear", "--out", "out"]);
        assert_eq!(run.code, Some(1), "{end}: {}", run.stderr);
        for said in ["`base` is quantised (fp8)", end, "hint: take the model in bfloat16"] {
            assert!(run.stderr.contains(said), "{end}: {}", run.stderr);
        }
        assert!(!sandbox.path("out").exists(), "{end}");
        assert_eq!(sandbox.run(&["inspect", "base"]).code, Some(0), "{end}: to look at it is no harm");
    }
    // 8-bit floats without scales are weights, and so is what merely has such a name.
    let sandbox = Sandbox::empty();
    for name in ["base", "a", "b"] {
        let up = format!("{UP}.weight");
        let tensors: [(&str, Dtype, &[usize]); 3] = [
            (&up, Dtype::F8_E4M3, &[8, 8]),
            ("model.logit", Dtype::F32, &[4]),
            ("model.logit_scale", Dtype::F32, &[1]),
        ];
        model(&sandbox, name, &tensors, plain);
    }
    sandbox.merge(&["--method", "linear", "--out", "out"]).good();
}
