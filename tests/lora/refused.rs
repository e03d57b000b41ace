//! Adapters that cannot be used: each is refused with a remedy, or warned of.

use super::diffusion::{A, Module, kohya, single};
use super::*;

/// An adapter that cannot be used, and what the program has to say to it.
struct Bad {
    what: &'static str,
    /// Keys of `adapter_config.json` to change.
    config: &'static str,
    /// Tensors of the file: name, shape.
    tensors: &'static [(&'static str, &'static [usize])],
    phrase: &'static str,
    hint: &'static str,
}

const Q: &str = "base_model.model.model.layers.0.self_attn.q_proj";
const PAIR: &[(&str, &[usize])] = &[("+.lora_A.weight", &[2, 16]), ("+.lora_B.weight", &[16, 2])];

const BAD: &[Bad] = &[
    Bad { what: "DoRA", config: r#"{"use_dora": true}"#, tensors: PAIR, phrase: "DoRA", hint: "merge_and_unload" },
    Bad {
        what: "a magnitude",
        config: "{}",
        tensors: &[("+.lora_magnitude_vector", &[16])],
        phrase: "is part of DoRA",
        hint: "merge_and_unload",
    },
    Bad {
        what: "LoHa",
        config: r#"{"peft_type": "LOHA"}"#,
        tensors: PAIR,
        phrase: "of type LOHA",
        hint: "merge_and_unload",
    },
    Bad { what: "a prompt", config: r#"{"peft_type": 7}"#, tensors: PAIR, phrase: "type nothing", hint: "merge_and" },
    Bad {
        what: "PiSSA",
        config: r#"{"init_lora_weights": "pissa_niter_4"}"#,
        tensors: PAIR,
        phrase: "initialised by pissa",
        hint: "path_initial_model_for_weight_conversion",
    },
    Bad {
        what: "copied layers",
        config: r#"{"layer_replication": [[0, 1], [0, 1]]}"#,
        tensors: PAIR,
        phrase: "`layer_replication`",
        hint: "merge_and_unload",
    },
    Bad { what: "a flag", config: r#"{"lora_bias": true}"#, tensors: PAIR, phrase: "`lora_bias`", hint: "merge_and" },
    Bad {
        what: "a bias",
        config: "{}",
        tensors: &[("+.lora_B.bias", &[16])],
        phrase: "a bias of a factor",
        hint: "merge_and_unload",
    },
    Bad {
        what: "parameters",
        config: r#"{"target_parameters": ["experts.w1"]}"#,
        tensors: PAIR,
        phrase: "no modules",
        hint: "merge_and_unload",
    },
    Bad {
        what: "tokens",
        config: r#"{"trainable_token_indices": [1]}"#,
        tensors: PAIR,
        phrase: "single trained tokens",
        hint: "merge_and_unload",
    },
    Bad {
        what: "no B",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 16])],
        phrase: "lacks its factor B (up)",
        hint: "incomplete",
    },
    Bad {
        what: "no A",
        config: "{}",
        tensors: &[("+.lora_B.weight", &[16, 2])],
        phrase: "lacks its factor A (down)",
        hint: "incomplete",
    },
    Bad {
        what: "factors of other ranks",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 16]), ("+.lora_B.weight", &[16, 3])],
        phrase: "A is [2, 16] and B [16, 3]",
        hint: "[r, in]",
    },
    Bad {
        what: "no elements",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 0]), ("+.lora_B.weight", &[16, 2])],
        phrase: "do not fit",
        hint: "[r, in]",
    },
    Bad {
        what: "another base",
        config: "{}",
        tensors: &[("+.lora_A.weight", &[2, 12]), ("+.lora_B.weight", &[16, 2])],
        phrase: "changes a weight of [16, 12], and `model.layers.0.self_attn.q_proj.weight` is [16, 16]",
        hint: "another base",
    },
    Bad {
        what: "another rank",
        config: r#"{"r": 4}"#,
        tensors: PAIR,
        phrase: "has rank 2, and `adapter_config.json` says 4",
        hint: "`rank_pattern`",
    },
    Bad { what: "alpha", config: r#"{"lora_alpha": 0}"#, tensors: PAIR, phrase: "`lora_alpha` is 0", hint: "leave" },
    Bad { what: "text", config: r#"{"lora_alpha": "x"}"#, tensors: PAIR, phrase: "is no number", hint: "" },
    Bad { what: "no rank", config: r#"{"r": -1}"#, tensors: PAIR, phrase: "`r` is no rank: -1", hint: "" },
    Bad { what: "null", config: r#"{"r": null}"#, tensors: PAIR, phrase: "`r` is no rank", hint: "" },
    Bad {
        what: "no pattern",
        config: r#"{"rank_pattern": {"(": 2}}"#,
        tensors: PAIR,
        phrase: "`(`, no regular expression",
        hint: "",
    },
    Bad {
        what: "a pattern without end",
        config: r#"{"rank_pattern": {"(?=x*)(\\w*\\w*\\w*\\w*\\w*\\w*\\w*)*\\1#": 2}}"#,
        tensors: PAIR,
        phrase: "takes too long",
        hint: "write the module names out",
    },
    Bad { what: "a list", config: r#"{"alpha_pattern": [1]}"#, tensors: PAIR, phrase: "is no object", hint: "" },
    Bad {
        what: "a module too many",
        config: "{}",
        tensors: &[
            ("base_model.model.model.layers.0.self_attn.q_prox.lora_A.weight", &[2, 16]),
            ("base_model.model.model.layers.0.self_attn.q_prox.lora_B.weight", &[16, 2]),
        ],
        phrase: "module `model.layers.0.self_attn.q_prox` of `bad` is not in",
        hint: "`model.layers.0.self_attn.q_proj.weight`",
    },
    Bad {
        what: "a name that several have",
        config: "{}",
        tensors: &[
            ("base_model.model.q_proj.lora_A.weight", &[2, 16]),
            ("base_model.model.q_proj.lora_B.weight", &[16, 2]),
        ],
        phrase: "could be any of",
        hint: "",
    },
    Bad {
        what: "a head of other labels",
        config: "{}",
        tensors: &[("base_model.model.lm_head.weight", &[9, 16])],
        phrase: "`lm_head.weight` is [24, 16] in",
        hint: "--exclude",
    },
    Bad { what: "nothing", config: "{}", tensors: &[], phrase: "holds no tensor", hint: "" },
];

#[test]
fn what_cannot_be_used_is_refused_with_a_remedy() {
    let base = base("llama");
    for Bad { what, config, tensors, phrase, hint } in BAD {
        let sandbox = Sandbox::empty();
        let mut document = serde_json::json!({"peft_type": "LORA", "r": 2, "lora_alpha": 4});
        let changes: serde_json::Value = serde_json::from_str(config).unwrap();
        changes.as_object().unwrap().iter().for_each(|(key, value)| document[key] = value.clone());
        sandbox.write("bad/adapter_config.json", &document.to_string());
        let file: Vec<_> = tensors
            .iter()
            .map(|(name, shape)| {
                (name.replace('+', Q), shape.to_vec(), noise(1).take(shape.iter().product()).collect())
            })
            .collect();
        write(&sandbox.path("bad/adapter_model.safetensors"), &file);
        let run = merge(&sandbox, &["bad"], &["--base", &base, "--method", "linear"], "out");
        assert_eq!(run.code, Some(1), "{what}: {}", run.stderr);
        for words in [phrase, hint] {
            assert!(run.stderr.contains(words), "{what}: no `{words}` in {}", run.stderr);
        }
        assert!(run.stderr.contains("`bad`"), "{what}: {}", run.stderr);
        assert!(!sandbox.path("out").exists(), "{what}");
    }
}

#[test]
fn an_adapter_in_the_wrong_place() {
    let sandbox = Sandbox::empty();
    let (base, plain) = (base("llama"), adapter("plain"));
    let refused = |models: &[&str], args: &[&str], code: i32, phrases: &[&str]| {
        let run = merge(&sandbox, models, args, "out");
        assert_eq!(run.code, Some(code), "{}", run.stderr);
        phrases.iter().for_each(|phrase| assert!(run.stderr.contains(phrase), "no `{phrase}` in {}", run.stderr));
        assert!(!sandbox.path("out").exists());
    };
    let linear = ["--method", "linear"];
    refused(&[&plain], &linear, 2, &["is an adapter, not a whole model", "--base", "--lora-out"]);
    refused(
        &[&base],
        &["--method", "linear", "--base", &plain],
        2,
        &["cannot be the base", "it was trained on `llama`"],
    );
    refused(&[&plain, &base], &linear, 2, &["others are whole models", "--base"]);
    refused(&[&base, &base], &["--method", "linear", "--lora-out", "4"], 2, &["none is named", "--base"]);
    refused(&[&plain], &["--method", "linear", "--lora-out", "0"], 2, &["`--lora-out` is 0"]);
    refused(&[&plain], &["--method", "passthrough", "--lora-out", "4"], 2, &["no adapter comes of it"]);
    refused(&[&plain], &["--method", "linear", "--lora-out", "4", "--calibrate", "fsc", "--data", "x"], 2, &["--base"]);
    refused(&[&adapter("saved")], &["--method", "linear", "--lora-out", "4"], 1, &["whole tensors", "--base"]);
    refused(&[&base], &["--method", "linear", "--base", &base, "--lora-out", "4"], 1, &["changes nothing"]);
    refused(&[&format!("{base}+{base}")], &linear, 2, &["is a whole model, not an adapter"]);
    refused(&[&format!("{base}+nowhere")], &linear, 2, &["`nowhere`"]);
    let run = sandbox.run(&["eval", &plain, "--data", "x"]);
    assert!(run.stderr.contains("BASE+ADAPTER"), "{}", run.stderr);

    sandbox.write("bin/adapter_config.json", "{}");
    sandbox.write("bin/adapter_model.bin", "");
    refused(&["bin"], &["--method", "linear", "--base", &base], 1, &["`bin/adapter_model.bin` is 0 bytes long"]);
    sandbox.write("none/adapter_config.json", "{}");
    refused(
        &["none"],
        &["--method", "linear", "--base", &base],
        1,
        &["`adapter_model.safetensors`", "download it again"],
    );
    for text in ["", "[]", "{", r#"{"r": 1e99999}"#] {
        sandbox.write("odd/adapter_config.json", text);
        fs::copy(format!("{plain}/adapter_model.safetensors"), sandbox.path("odd/adapter_model.safetensors")).unwrap();
        refused(&["odd"], &["--method", "linear", "--base", &base], 1, &["adapter_config.json", "odd"]);
    }
}

#[test]
fn files_that_are_no_plain_lora() {
    let sandbox = Sandbox::empty();
    let refused = |models: &[&str], args: &[&str], phrases: &[&str]| {
        let run = merge(&sandbox, models, &[&["--method", "linear"], args].concat(), "out");
        assert!(matches!(run.code, Some(1 | 2)), "{}", run.stderr);
        phrases.iter().for_each(|phrase| assert!(run.stderr.contains(phrase), "no `{phrase}` in {}", run.stderr));
        assert!(!sandbox.path("out").exists());
    };
    kohya(&sandbox.path("a.safetensors"), A, 1);
    for (name, kind) in [
        ("lora_unet_x.hada_w1_a", "LoHa"),
        ("lora_unet_x.lokr_w1", "LoKr"),
        ("lora_unet_x.lora_mid.weight", "Tucker"),
        ("lora_unet_x.dora_scale", "DoRA"),
    ] {
        let mut file = vec![(name.to_owned(), vec![2, 2], vec![0.0; 4])];
        file.push(("lora_unet_x.lora_down.weight".into(), vec![2, 4], vec![0.0; 8]));
        write(&sandbox.path("b.safetensors"), &file);
        refused(&["a.safetensors", "b.safetensors"], &[], &[kind, name, "plain LoRA"]);
    }
    let of = |modules: &[Module<'_>]| drop(kohya(&sandbox.path("b.safetensors"), modules, 2));
    of(&[("lora_unet_mid_attn1_to_q", [12, 8], 2, None)]);
    refused(&["a.safetensors", "b.safetensors"], &[], &["`lora_unet_mid_attn1_to_q`", "[12, 8]", "[12, 10]"]);
    of(&[("lora_unet_mid_attn1_to_q", [12, 10], 2, Some(0.0))]);
    refused(&["a.safetensors", "b.safetensors"], &[], &["alpha of `lora_unet_mid_attn1_to_q`", "is 0"]);
    of(&[("lora_unet_mid_attn1_to_q", [12, 10], 2, Some(f32::NAN))]);
    refused(&["a.safetensors", "b.safetensors"], &[], &["is not finite"]);
    refused(&["a.safetensors"], &["--base", &base("llama")], &["merged without a base", "--base"]);
    refused(&["a.safetensors", &adapter("plain")], &["--lora-out", "4"], &["cannot be merged with each other"]);
    let modules: &[Module<'_>] = &[("unet.other.to_q", [12, 10], 2, None)];
    single(&sandbox.path("c.safetensors"), modules, 3, (".lora_A.weight", ".lora_B.weight"));
    refused(&["a.safetensors", "c.safetensors"], &[], &["name their modules differently"]);
    // NaN goes into a merge like any number, but not through a decomposition.
    write(
        &sandbox.path("b.safetensors"),
        &[
            ("lora_unet_x.lora_down.weight".into(), vec![1, 2], vec![f32::NAN; 2]),
            ("lora_unet_x.lora_up.weight".into(), vec![2, 1], vec![1.0; 2]),
        ],
    );
    refused(&["b.safetensors"], &[], &["NaN", "lora_unet_x"]);
    assert_eq!(sandbox.listing().len(), 3);
}

/// Adapter `name`: a pair of rank 1 for each module of `[16, 16]`, and changes of its configuration.
fn small(sandbox: &Sandbox, name: &str, modules: &[&str], changes: serde_json::Value) {
    let mut config = serde_json::json!({"peft_type": "LORA", "r": 1, "lora_alpha": 1});
    changes.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    sandbox.write(&format!("{name}/adapter_config.json"), &config.to_string());
    let pair = |module: &&str| {
        let factor = |end: &str, shape| (format!("base_model.model.{module}.{end}.weight"), shape, vec![0.5; 16]);
        [factor("lora_A", vec![1, 16]), factor("lora_B", vec![16, 1])]
    };
    let file: Vec<_> = modules.iter().flat_map(pair).collect();
    write(&sandbox.path(&format!("{name}/adapter_model.safetensors")), &file);
}

#[test]
fn adapters_that_do_not_belong_together_are_warned_of() {
    let sandbox = Sandbox::empty();
    let (q, o) = ("model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.o_proj");
    let on = |base: &str| serde_json::json!({"base_model_name_or_path": base, "fan_in_fan_out": true});
    small(&sandbox, "a", &[q], on("org/one"));
    small(&sandbox, "b", &[o], on("two/"));
    let args = ["--method", "linear", "--lora-out", "4"];
    let config = |out: &str| -> serde_json::Value {
        serde_json::from_slice(&sandbox.read(&format!("{out}/adapter_config.json"))).unwrap()
    };
    let run = merge(&sandbox, &["a", "b"], &args, "out").good();
    for words in ["`a` was trained on `org/one`, and `b` on `two/`", "`a` and `b` share no module"] {
        assert!(run.stderr.contains(words), "{}", run.stderr);
    }
    assert_eq!(
        (&config("out")["fan_in_fan_out"], &config("out")["base_model_name_or_path"]),
        (&true.into(), &"org/one".into())
    );
    // A base that was given is the one that is recorded, unless an adapter names it.
    let base = base("llama");
    merge(&sandbox, &["a", "b"], &[&args[..], &["--base", &base]].concat(), "given").good();
    assert_eq!(config("given")["base_model_name_or_path"], base.as_str());
    small(&sandbox, "c", &[q], on("org/llama"));
    let run = merge(&sandbox, &["a", "c"], &[&args[..], &["--base", &base]].concat(), "known").good();
    assert_eq!(config("known")["base_model_name_or_path"], "org/llama");
    assert!(!run.stderr.contains("share no module"), "{}", run.stderr);
    // Names that newer versions of transformers do not have.
    small(&sandbox, "vit", &["vit.encoder.layer.0.attention.attention.query"], on("vit"));
    let run = merge(&sandbox, &["vit"], &args, "vit-out").good();
    assert!(run.stderr.contains("transformers 5 names them differently"), "{}", run.stderr);
    let run = merge(&sandbox, &["vit"], &["--method", "linear", "--base", &base], "bad");
    assert!(run.stderr.contains("versions of transformers name modules differently"), "{}", run.stderr);
    let both = format!("{base}+a+b");
    let run = merge(&sandbox, &[&both], &["--method", "linear"], "bad");
    assert!(run.stderr.contains("only one adapter per model"), "{}", run.stderr);
    // Without its configuration, an adapter is neither a model nor a base.
    fs::remove_file(sandbox.path("a/adapter_config.json")).unwrap();
    for (models, base) in [(["a"], &*base), (["c"], "a")] {
        let run = merge(&sandbox, &models, &["--method", "linear", "--base", base], "bad");
        assert!(
            run.stderr.contains("`a` has `adapter_model.safetensors`, but no `adapter_config.json`"),
            "{}",
            run.stderr
        );
    }
    sandbox.write("r.yml", "merge_method: linear\nmodels: [{model: c}]\nlora_out: big\n");
    let run = sandbox.run(&["merge", "r.yml", "--out", "bad"]);
    assert!(run.stderr.contains("a whole number from 1\n"), "{}", run.stderr);
    // What only vectors hold.
    fs::create_dir(sandbox.path("norm")).unwrap();
    let mut model: Vec<_> = tensors(Path::new(&format!("{base}/model.safetensors")))
        .into_iter()
        .map(|(name, (shape, values))| (name, shape, values))
        .collect();
    let norm = model.iter_mut().find(|(name, ..)| name == "model.norm.weight").unwrap();
    norm.2[0] += 1.0;
    write(&sandbox.path("norm/model.safetensors"), &model);
    let run = merge(&sandbox, &["norm"], &[&args[..], &["--base", &base]].concat(), "bad");
    assert!(run.stderr.contains("nothing that it changes can be held by an adapter"), "{}", run.stderr);
}
