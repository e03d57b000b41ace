//! What lies beside the weights: `config.json`, `tokenizer.json`, image processors; and the data that goes through them.

use std::io::{Cursor, Write};
use std::path::Path;

use image::{ImageFormat, RgbImage};
use serde_json::{Value, json};

use crate::case::{Case, Thing, floats_file, tensors_file};

/// All cases; `outside` is where nobody may look.
pub fn cases(outside: &Path) -> Vec<Case> {
    let mut all = keys();
    all.extend(models());
    all.extend(documents(outside));
    all.extend(tokenizers(outside));
    all.extend(texts());
    all.extend(processors());
    all.extend(images(outside));
    all
}

const CONFIG: &str = "m/config.json";
const TOKENIZER: &str = "m/tokenizer.json";
const PROCESSOR: &str = "m/preprocessor_config.json";

fn llama_config() -> Value {
    json!({"model_type": "llama", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "vocab_size": 16,
           "num_attention_heads": 2, "max_position_embeddings": 32, "tie_word_embeddings": true})
}

fn vit_config() -> Value {
    json!({"model_type": "vit", "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "image_size": 4,
           "num_attention_heads": 2, "patch_size": 2, "num_channels": 3})
}

/// A network of one layer, evaluated on the ids in `d.safetensors`.
fn llama(name: impl std::fmt::Display) -> Case {
    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let square = ["q", "k", "v", "o"].map(|name| (layer(&format!("self_attn.{name}_proj")), vec![8, 8]));
    let norms = ["input_layernorm", "post_attention_layernorm"].map(|name| (layer(name), vec![8]));
    let mlp = [("gate", [16, 8]), ("up", [16, 8]), ("down", [8, 16])];
    let mlp = mlp.map(|(name, shape)| (layer(&format!("mlp.{name}_proj")), shape.to_vec()));
    let ends = [("model.embed_tokens.weight", vec![16, 8]), ("model.norm.weight", vec![8])];
    let ends = ends.map(|(name, shape)| (name.to_owned(), shape));
    let ids = r#"{"input_ids":{"dtype":"I64","shape":[1,4],"data_offsets":[0,32]}}"#;
    let mut data = tensors_file(ids, 0);
    data.extend([1u64, 2, 3, 4].iter().flat_map(|id| id.to_le_bytes()));
    model(name, ends.into_iter().chain(square).chain(norms).chain(mlp))
        .file(CONFIG, llama_config().to_string())
        .file("d.safetensors", data)
}

/// A vision transformer of one layer with a classifier.
fn vit(name: impl std::fmt::Display) -> Case {
    let layer = |name: &str| format!("encoder.layer.0.{name}.weight");
    let parts = ["query", "key", "value"].map(|name| (layer(&format!("attention.attention.{name}")), vec![8, 8]));
    let more = [
        (layer("attention.output.dense"), vec![8, 8]),
        (layer("intermediate.dense"), vec![16, 8]),
        (layer("output.dense"), vec![8, 16]),
        (layer("layernorm_before"), vec![8]),
        (layer("layernorm_after"), vec![8]),
        ("embeddings.patch_embeddings.projection.weight".into(), vec![8, 3, 2, 2]),
        ("embeddings.cls_token".into(), vec![1, 1, 8]),
        ("embeddings.position_embeddings".into(), vec![1, 5, 8]),
        ("layernorm.weight".into(), vec![8]),
        ("classifier.weight".into(), vec![2, 8]),
    ];
    model(name, parts.into_iter().chain(more))
        .file(CONFIG, vit_config().to_string())
        .file(PROCESSOR, r#"{"image_processor_type": "ViTImageProcessor", "size": 4}"#)
        .file("d/b/1.png", picture(ImageFormat::Png, 6, 6))
}

fn model(name: impl std::fmt::Display, tensors: impl Iterator<Item = (String, Vec<u64>)>) -> Case {
    let tensors: Vec<(String, Vec<u64>)> = tensors.collect();
    let tensors: Vec<(&str, &[u64])> = tensors.iter().map(|(name, shape)| (&**name, &**shape)).collect();
    Case::new(name.to_string()).file("m/model.safetensors", floats_file(&tensors))
}

fn eval(case: Case, data: &str) -> Case {
    case.run(&["eval", "m", "--device", "cpu", "--threads", "2", "--data", data])
}

/// With another value under a key of `config.json`.
fn with(config: &Value, key: &str, value: &Value) -> String {
    let mut config = config.clone();
    config[key] = value.clone();
    config.to_string()
}

/// Every number of a configuration as what it must not be.
fn keys() -> Vec<Case> {
    let wrong = [
        ("zero", json!(0)),
        ("negative", json!(-1)),
        ("half", json!(7.5)),
        ("huge", json!(u64::MAX)),
        ("28-bits", json!((1u64 << 28) - 1)),
        ("text", json!("8")),
        ("list", json!([8])),
    ];
    let llama_keys = ["hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "num_attention_heads"];
    let vit_keys = ["image_size", "patch_size", "num_channels", "hidden_size"];
    let mut all = Vec::new();
    for (what, value) in &wrong {
        for key in llama_keys.iter().chain(["max_position_embeddings", "head_dim", "num_key_value_heads"].iter()) {
            let case = eval(llama(format!("config/llama-{key}-{what}")), "d.safetensors");
            let case = case.file(CONFIG, with(&llama_config(), key, value));
            // Any number of positions will do, and samples stay short.
            let right = *what == "28-bits" && *key == "max_position_embeddings";
            all.push(if right { case } else { case.refused(if *what == "28-bits" { "config.json" } else { key }) });
        }
        for key in vit_keys {
            let case = eval(vit(format!("config/vit-{key}-{what}")), "d");
            all.push(case.file(CONFIG, with(&vit_config(), key, value)).refused("config.json"));
        }
    }
    all
}

fn models() -> Vec<Case> {
    let llama = |name: &str, key: &str, value: Value| {
        let case = eval(llama(format!("config/{name}")), "d.safetensors");
        case.file(CONFIG, with(&llama_config(), key, &value))
    };
    let long = "x".repeat(1_000_000);
    let rope = |kind: &str, key: &str, value: Value| json!({"rope_type": kind, "factor": 2.0, key: value});
    let no_vit = |name: &str, tensor: &str, shape: &[u64]| {
        let case = vit(format!("config/{name}"));
        let Some(Thing::Bytes(bytes)) = case.things.first().map(|(_, thing)| thing) else { unreachable!() };
        let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: serde_json::Map<String, Value> = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
        header.remove(tensor);
        let shapes: Vec<(String, Vec<u64>)> = header
            .iter()
            .map(|(name, entry)| (name.clone(), serde_json::from_value(entry["shape"].clone()).unwrap()))
            .chain([(tensor.to_owned(), shape.to_vec())])
            .collect();
        let shapes: Vec<(&str, &[u64])> = shapes.iter().map(|(name, shape)| (&**name, &**shape)).collect();
        eval(case.file("m/model.safetensors", floats_file(&shapes)), "d")
    };
    let open_clip = |name: &str, conv: &[u64], positions: &[u64], config: &str| {
        let tensors: [(&str, &[u64]); 4] = [
            ("visual.conv1.weight", conv),
            ("visual.positional_embedding", positions),
            ("visual.transformer.resblocks.0.attn.in_proj_weight", &[24, 8]),
            ("visual.transformer.resblocks.0.mlp.c_fc.weight", &[16, 8]),
        ];
        let case = Case::new(format!("config/open-clip-{name}")).file("m/model.safetensors", floats_file(&tensors));
        eval(case.file("m/open_clip_config.json", config).file("d/b/1.png", picture(ImageFormat::Png, 6, 6)), "d")
    };
    vec![
        eval(self::llama("config/right"), "d.safetensors"),
        llama("type-unknown", "model_type", json!("gpt2")).refused("no forward pass for `model_type` `gpt2`"),
        llama("type-of-control", "model_type", json!("\u{1b}[2J")).refused("`\\u{1b}[2J`"),
        llama("type-of-a-megabyte", "model_type", json!(long)).refused("no forward pass"),
        llama("type-number", "model_type", json!(1)).refused("no forward pass"),
        llama("act-unknown", "hidden_act", json!("\u{1b}]0;x\u{7}")).refused("\\u{1b}]0;x\\u{7}"),
        llama("act-of-a-megabyte", "hidden_act", json!(long)).refused("does not know"),
        llama("size-of-a-megabyte", "hidden_size", json!(long)).refused("not a size"),
        llama("layers-that-are-not-there", "num_hidden_layers", json!(2)).refused("model.layers.1."),
        llama("heads-that-do-not-divide", "num_attention_heads", json!(3)).refused("does not divide"),
        llama("heads-that-cannot-share", "num_key_value_heads", json!(3)).refused("cannot share"),
        llama("heads-odd", "num_attention_heads", json!(8)).refused("odd heads"),
        llama("eps-nan", "rms_norm_eps", json!("nan")).refused("not a number"),
        llama("eps-huge", "rms_norm_eps", json!(1e308)).refused("`rms_norm_eps` is inf"),
        llama("eps-negative", "rms_norm_eps", json!(-1e-5)).refused("`rms_norm_eps` is -0.00001"),
        llama("theta-zero", "rope_theta", json!(0)).refused("no rotation"),
        llama("theta-negative", "rope_theta", json!(-1e308)).refused("no rotation"),
        llama("theta-largest", "rope_theta", json!(1e308)),
        llama("rope-unknown", "rope_scaling", rope("yarn", "x", json!(1))).refused("`yarn`"),
        llama("rope-of-control", "rope_scaling", rope("\u{9b}2J", "x", json!(1))).refused("\\u{9b}2J"),
        llama("rope-factor-0", "rope_scaling", rope("linear", "factor", json!(0))).refused("no rotation"),
        llama("rope-factor-huge", "rope_scaling", rope("dynamic", "factor", json!(1e308))),
        llama("rope-factors-alike", "rope_scaling", rope("llama3", "high_freq_factor", json!(1.0))),
        llama("window-0", "sliding_window", json!(0)).refused("sliding_window"),
        no_vit("classifier-scalar", "classifier.weight", &[]).refused("is no weight"),
        no_vit("classifier-of-none", "classifier.weight", &[0, 8]).refused("is no weight"),
        no_vit("classifier-turned", "classifier.weight", &[8, 2]).refused("config.json"),
        no_vit("classifier-of-rank-3", "classifier.weight", &[2, 2, 4]),
        open_clip("empty", &[0, 3, 4, 4], &[5, 8], "{}").refused("is no weight"),
        open_clip("scalar-positions", &[8, 3, 4, 4], &[], "{}").refused("is no weight"),
        open_clip("no-square", &[8, 3, 4, 4], &[6, 8], "{}").refused("no square image"),
        open_clip("patches-of-gigabytes", &[8, 0, 1 << 16, 1 << 16], &[5, 8], "{}").refused("image_size"),
        open_clip("head-0", &[8, 3, 4, 4], &[5, 8], r#"{"model_cfg": {"vision_cfg": {"head_width": 0}}}"#)
            .refused("head_width"),
        open_clip(
            "head-that-does-not-divide",
            &[8, 3, 4, 4],
            &[5, 8],
            r#"{"model_cfg": {"vision_cfg": {"head_width": 3}}}"#,
        )
        .refused("head_width"),
    ]
}

/// `config.json` as a file.
fn documents(outside: &Path) -> Vec<Case> {
    let file = |name: &str, bytes: &[u8]| eval(llama(format!("config/{name}")), "d.safetensors").file(CONFIG, bytes);
    let thing = |name: &str, thing: Thing| {
        let mut case = eval(llama(format!("config/{name}")), "d.safetensors");
        case.things.retain(|(path, _)| path != Path::new(CONFIG));
        case.with(CONFIG, thing)
    };
    let out = "leads out of its folder";
    let twice = llama_config().to_string().replacen('{', r#"{"hidden_size":4,"#, 1);
    vec![
        file("empty", b"").refused("holds no JSON object"),
        file("cut", b"{\"model_type\": ").refused("holds no JSON object"),
        file("list", b"[]").refused("holds another value"),
        file("null", b"null").refused("holds another value"),
        file("not-utf-8", b"{\"a\": \"\xff\"}").refused("holds no JSON object"),
        file("lists-a-million-deep", "[".repeat(1_000_000).as_bytes()).refused("recursion limit"),
        file("objects-a-million-deep", "{\"a\":".repeat(1_000_000).as_bytes()).refused("recursion limit"),
        file("key-twice", twice.as_bytes()),
        thing("of-17-MB", Thing::Sparse(b"{".to_vec(), (16 << 20) + 1)).refused("more than the 16.8 MB"),
        thing("of-a-terabyte", Thing::Sparse(b"{".to_vec(), 1 << 40)).refused("more than the 16.8 MB"),
        thing("pipe", Thing::Pipe).refused("is a pipe"),
        thing("folder", Thing::Folder).refused("is a folder"),
        thing("link-out", Thing::Link(outside.join("config.json"))).refused(out),
        thing("link-up", Thing::Link("../../../outside/config.json".into())).refused(out),
        thing("link-to-zeros", Thing::Link("/dev/zero".into())).refused(out),
    ]
}

fn word_level(normalizer: Value, pre_tokenizer: Value, post_processor: Value) -> Value {
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": normalizer,
           "pre_tokenizer": pre_tokenizer, "post_processor": post_processor, "decoder": null,
           "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2}, "unk_token": "[UNK]"}})
}

/// Words in pieces of one character, which are found last.
fn word_piece(longest: u64) -> Value {
    json!({"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"},
           "model": {"type": "WordPiece", "unk_token": "b", "continuing_subword_prefix": "##",
                     "max_input_chars_per_word": longest, "vocab": {"a": 0, "##a": 1, "b": 2}}})
}

fn tokenizers(outside: &Path) -> Vec<Case> {
    let none = || Value::Null;
    let split = || json!({"type": "WhitespaceSplit"});
    let case = |name: &str| eval(llama(format!("tokenizer/{name}")), "d.txt").file("d.txt", "a b a\nb a b\n");
    let of = |name: &str, tokenizer: Value| case(name).file(TOKENIZER, tokenizer.to_string());
    let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "normalizers": steps});
    let replace = |from: Value, to: &str| json!({"type": "Replace", "pattern": from, "content": to});
    let normalized = |name: &str, normalizer: Value| of(name, word_level(normalizer, split(), Value::Null));
    // One step within the other, and the last one wrong: every level is read twice.
    let nested = |depth: usize| {
        (0..depth).fold(json!({"type": "Wrong"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}))
    };
    let regex = |pattern: &str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let post =
        |single: Vec<Value>| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}});
    let again = || json!({"Sequence": {"id": "A", "type_id": 0}});
    let vocabulary = |to: &mut dyn Write| {
        to.write_all(br#"{"version":"1.0","model":{"type":"WordLevel","unk_token":"a","vocab":{"a":0"#)?;
        (1..2_200_000).try_for_each(|i| write!(to, r#","{i}":{i}"#))?;
        to.write_all(b"}}}")
    };
    let thing = |name: &str, thing: Thing| case(name).with(TOKENIZER, thing);
    let charsmap = "BAAAAAAAAABh".to_owned() + &"YWFh".repeat(100_000);
    let doubling = (0..40).map(|_| replace(json!({"String": "a"}), "aa")).collect();
    let between = (0..20).map(|_| replace(json!({"Regex": ""}), "a")).collect();
    vec![
        of("right", word_level(none(), split(), none())),
        case("none").refused("and `m` has none"),
        normalized("bomb-of-doublings", sequence(doubling)).refused("times as long"),
        normalized("bomb-between-characters", sequence(between)).refused("times as long"),
        normalized("bomb-of-one-replacement", replace(json!({"String": "a"}), &"a".repeat(1_000_000)))
            .refused("times as long"),
        normalized("bomb-of-a-map", json!({"type": "Precompiled", "precompiled_charsmap": charsmap}))
            .refused("one character"),
        normalized("a-thousand-steps", sequence(vec![json!({"type": "NFC"}); 1000])).refused("more than 64 steps"),
        normalized("right-sixty-steps", sequence(vec![json!({"type": "NFC"}); 60])),
        normalized("nested-6", nested(6)).refused("not a tokenizer that can be used"),
        normalized("nested-40", nested(40)).refused("nested more than 16 deep"),
        normalized("nested-60", nested(60)).refused("nested more than 16 deep"),
        of("post-processor-a-million-times", word_level(none(), split(), post(vec![again(); 60_000])))
            .refused("`post_processor`"),
        of("post-processor-a-hundred-times", word_level(none(), split(), post(vec![again(); 100]))).refused("pieces"),
        of("regex-that-is-none", word_level(none(), regex("("), none())).refused("not a tokenizer that can be used"),
        of("regex-too-large", word_level(none(), regex(r"(\pL{1000}){1000}"), none())).refused("not a tokenizer"),
        of("regex-that-goes-back", word_level(none(), regex(r"(a|a)*(?=c)x"), none()))
            .file("d.txt", format!("{}\n", "a".repeat(10_000)))
            .refused(""),
        of("unknown-word", json!({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "[NO]"}})).refused(""),
        of(
            "id-beyond-the-model",
            json!({"model": {"type": "WordLevel", "vocab": {"a b a": 99}, "unk_token": "a b a"}}),
        )
        .refused("has the token 99"),
        of("type-unknown", json!({"model": {"type": "\u{1b}[2J"}})).refused("not a tokenizer that can be used"),
        of("a-list", json!([])).refused("not a tokenizer that can be used"),
        case("empty").file(TOKENIZER, "").refused("not a tokenizer that can be used"),
        case("deep").file(TOKENIZER, "[".repeat(1_000_000)).refused("nested more than 16 deep"),
        case("quotes-that-do-not-end")
            .file(TOKENIZER, "{\"".to_owned() + &"[".repeat(1_000_000))
            .refused("not a tokenizer"),
        case("not-utf-8").file(TOKENIZER, &b"{\"model\": \"\xff\"}"[..]).refused("not a tokenizer"),
        thing("two-million-tokens", Thing::Written(vocabulary)).refused("more than 2097152 values"),
        thing("of-65-MB", Thing::Sparse(b"{".to_vec(), (64 << 20) + 1)).refused("more than the 67.1 MB"),
        normalized("prefix-of-a-megabyte", json!({"type": "Prepend", "prepend": "a".repeat(1_000_000)}))
            .refused("characters before a text"),
        of("words-without-end", word_piece(1_000_000_000)).refused("`max_input_chars_per_word` is 1000000000"),
        of("words-of-256", word_piece(256)).file("d.txt", format!("{} ", "a".repeat(256)).repeat(300)),
        thing("of-64-MB-of-zeros", Thing::Sparse(b"{".to_vec(), 64 << 20)).refused("not a tokenizer"),
        thing("pipe", Thing::Pipe).refused("is a pipe"),
        thing("folder", Thing::Folder).refused("is a folder"),
        thing("link-out", Thing::Link(outside.join("tokenizer.json"))).refused("leads out of its folder"),
    ]
}

fn texts() -> Vec<Case> {
    let right = word_level(Value::Null, json!({"type": "WhitespaceSplit"}), Value::Null).to_string();
    let case = |name: &str, file: &str| eval(llama(format!("text/{name}")), file).file(TOKENIZER, right.clone());
    let jsonl = |name: &str, text: String| case(name, "d.jsonl").file("d.jsonl", text);
    let line = |to: &mut dyn Write| (0..17).try_for_each(|_| to.write_all(&[b'a'; 1 << 20]));
    vec![
        jsonl("right", r#"{"text": "a b a"}"#.into()),
        jsonl("deep", "[".repeat(1_000_000)).refused("recursion limit"),
        jsonl("objects-deep", r#"{"text":"#.repeat(1_000_000)).refused("recursion limit"),
        jsonl("label-of-control", r#"{"text": "a b", "label": "\u001b[2J"}"#.into()),
        jsonl("label-huge", r#"{"text": "a b", "label": 1e400}"#.into()).refused("line 1 of `d.jsonl`"),
        jsonl("label-long", format!(r#"{{"text": "a b", "label": [{}1]}}"#, "1,".repeat(100_000)))
            .refused("has the label"),
        case("line-of-17-MB", "d.txt").with("d.txt", Thing::Written(line)).refused("is longer than 16.8 MB"),
        case("line-of-a-terabyte", "d.txt")
            .with("d.txt", Thing::Sparse(b"a".to_vec(), 1 << 40))
            .refused("is longer than"),
        case("not-utf-8", "d.txt").file("d.txt", &b"a b\n\xff\n"[..]).refused("line 2 of `d.txt` is not UTF-8"),
        case("pipe", "d.txt").with("d.txt", Thing::Pipe).refused("is a pipe"),
        case("link-to-zeros", "d.txt").link("d.txt", "/dev/zero").refused("a device"),
        case("control", "\u{1b}[2J.txt").refused_with(2, "\\u{1b}[2J.txt"),
    ]
}

fn processors() -> Vec<Case> {
    let of = |name: &str, value: Value| {
        let mut processor = json!({"image_processor_type": "ViTImageProcessor", "size": 4});
        value.as_object().unwrap().iter().for_each(|(key, value)| processor[key] = value.clone());
        eval(vit(format!("processor/{name}")), "d").file(PROCESSOR, processor.to_string())
    };
    vec![
        of("right", json!({})),
        of("size-0", json!({"size": 0})).refused("which is not a size"),
        of("size-huge", json!({"size": u64::MAX})).refused("which is not a size"),
        of("size-of-16-bits", json!({"size": 65536})).refused("comes out 65536 × 65536"),
        of("size-of-a-line", json!({"size": {"height": 1, "width": 65536}})).refused("comes out 1 × 65536"),
        of("crop-huge", json!({"do_center_crop": true, "crop_size": 65536})).refused("comes out 65536 × 65536"),
        of("mean-of-a-million", json!({"image_mean": vec![0.5; 1_000_000]})).refused("which is not 3 finite numbers"),
        of("std-0", json!({"image_std": [0, 0, 0]})).refused("`image_std` of 0"),
        of("std-tiny", json!({"image_std": 1e-320})).refused(""),
        of("factor-huge", json!({"rescale_factor": 1e308})).refused("not finite"),
        of("type-of-control", json!({"image_processor_type": "\u{1b}[2J"})).refused("`\\u{1b}[2J`"),
        of("filter-huge", json!({"resample": 1e300})).refused("resample"),
        eval(vit("processor/deep"), "d").file(PROCESSOR, "[".repeat(1_000_000)).refused("recursion limit"),
    ]
}

fn picture(format: ImageFormat, width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    RgbImage::from_pixel(width, height, image::Rgb([9; 3])).write_to(&mut Cursor::new(&mut bytes), format).unwrap();
    bytes
}

/// A PNG image that says it has other sides.
fn lying(width: u32, height: u32, kind: [u8; 2]) -> Vec<u8> {
    let mut bytes = picture(ImageFormat::Png, 2, 2);
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    bytes[24..26].copy_from_slice(&kind);
    let crc = bytes[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

fn images(outside: &Path) -> Vec<Case> {
    let case = |name: &str| {
        let mut case = eval(vit(format!("image/{name}")), "d");
        case.things.retain(|(path, _)| path != Path::new("d/b/1.png"));
        case
    };
    let of = |name: &str, bytes: Vec<u8>| case(name).file("d/b/1.png", bytes);
    let (png, jpeg) = (picture(ImageFormat::Png, 6, 6), picture(ImageFormat::Jpeg, 6, 6));
    let bad = "cannot be decoded as an image";
    let mut long = png.clone();
    long[8..12].copy_from_slice(&u32::MAX.to_be_bytes());
    let mut sized = jpeg.clone();
    let frame = sized.windows(2).position(|pair| pair == [0xff, 0xc0]).expect("a frame");
    sized[frame + 5..frame + 9].copy_from_slice(&[0xff; 4]);
    let wide = picture(ImageFormat::Png, 2400, 2000);
    vec![
        of("png", png.clone()),
        of("jpeg", jpeg.clone()),
        of("large-and-right", wide),
        of("png-65535", lying(65535, 65535, [8, 2])).refused("65535 × 65535"),
        of("png-31-bits", lying(u32::MAX >> 1, u32::MAX >> 1, [16, 6])).refused(bad),
        of("png-32-bits", lying(u32::MAX, 1, [8, 2])).refused(bad),
        of("png-16384", lying(16384, 16384, [8, 2])).refused("16384 × 16384"),
        of("png-16384-bits", lying(16384, 16384, [1, 0])).refused(bad),
        of("png-of-no-rows", lying(4, 0, [8, 2])).refused(bad),
        of("png-of-a-kind-that-is-none", lying(2, 2, [7, 5])).refused(bad),
        of("png-10000-cut", lying(6000, 6000, [8, 2])).refused(bad),
        of("png-chunk-of-4-GB", long).refused(bad),
        of("jpeg-65535", sized).refused(bad),
        of("png-half", png[..png.len() / 2].to_vec()).refused(bad),
        of("jpeg-half", jpeg[..jpeg.len() / 2].to_vec()).refused(bad),
        of("png-front-only", png[..8].to_vec()).refused(bad),
        of("jpeg-front-only", jpeg[..4].to_vec()).refused(bad),
        of("empty", Vec::new()).refused(bad),
        of("gif", b"GIF89a\x01\0\x01\0\0\0\0;".to_vec()).refused(bad),
        of("svg", b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec()).refused(bad),
        of("bmp", b"BM\xff\xff\xff\xff\0\0\0\0\x36\0\0\0".to_vec()).refused(bad),
        case("pipe").with("d/b/1.png", Thing::Pipe).refused("is a pipe"),
        case("link-to-zeros").link("d/b/1.png", "/dev/zero").refused("leads out of its folder"),
        case("of-300-MB").with("d/b/1.png", Thing::Sparse(png, 300 << 20)).refused("more than the 268.4 MB"),
        case("name-of-control").file("d/b/\u{1b}[2J.png", "x").refused("\\u{1b}[2J.png"),
        case("class-of-control").file("d/\u{1b}[2J/1.png", "x").refused("\\u{1b}[2J"),
        case("folder-in-itself").link("d/b", "../d").refused(""),
        {
            let mut case = of("processor-link", picture(ImageFormat::Png, 6, 6));
            case.things.retain(|(path, _)| path != Path::new(PROCESSOR));
            case.link(PROCESSOR, outside.join("preprocessor_config.json")).refused("leads out of its folder")
        },
    ]
}
