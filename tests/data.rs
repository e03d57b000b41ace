//! Samples from data as people have it: what is read, what is refused, and how that is said.

#[path = "common/data.rs"]
mod common;

use std::fs;

use common::{Bed, IMAGES, TOKENS, Tensor, bpe, ids, pixels, png, word_piece};
use magic_merge::data::{Samples, Wants};

const SMALL: Wants = Wants::Pixels { channels: 3, height: 2, width: 2 };
const VIT: &str = r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 2, "width": 2}}"#;

#[test]
fn pixels_of_every_float_type() {
    let bed = Bed::new();
    for dtype in ["F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"] {
        let values: Vec<f32> = (0..24).map(|i| [0.5, -1.0, 0.0, 2.0, 0.25][i % 5]).collect();
        bed.tensors("x.safetensors", &[("pixel_values", Tensor::floats(dtype, &[2, 3, 2, 2], &values))]);
        let read = bed.load("x.safetensors", SMALL, None).unwrap();
        assert_eq!(pixels(&read), [&values[..12], &values[12..]], "{dtype}");
        assert_eq!((read.labels, read.warnings.len(), read.classes.len()), (None, 0, 0));
        assert!(read.name.ends_with("x.safetensors"));
    }
    // Three values of two bytes each: samples that begin in the middle of a word.
    let narrow = Wants::Pixels { channels: 3, height: 1, width: 1 };
    let values: Vec<f32> = (0..9u8).map(f32::from).collect();
    bed.tensors("x.safetensors", &[("pixel_values", Tensor::floats("BF16", &[3, 3, 1, 1], &values))]);
    assert_eq!(pixels(&bed.load("x.safetensors", narrow, None).unwrap()).concat(), values);
    bed.tensors("x.safetensors", &[("pixel_values", Tensor::floats("F16", &[3, 1, 1], &values[..3]))]);
    assert_eq!(pixels(&bed.load("x.safetensors", narrow, Some(7)).unwrap()), [&values[..3]]);
}

#[test]
fn labels_limit_and_what_is_not_used() {
    let bed = Bed::new();
    let tensors = [
        ("input_ids", Tensor::ints("I64", &[3, 2], &[1, 2, 3, 4, 5, 6])),
        ("labels", Tensor::ints("I32", &[3], &[7, 0, 9])),
        ("token_type_ids", Tensor::ints("I64", &[3, 2], &[0; 6])),
    ];
    bed.tensors("x.safetensors", &tensors);
    let read = bed.load("x.safetensors", TOKENS, Some(2)).unwrap();
    assert_eq!(ids(&read), [[1, 2], [3, 4]]);
    assert_eq!(read.labels.unwrap(), [7, 0]);
    assert_eq!(read.warnings.len(), 1);
    assert!(read.warnings[0].contains("`token_type_ids`"), "{:?}", read.warnings);
}

#[test]
fn ids_one_tensor_each() {
    let bed = Bed::new();
    let names: Vec<String> = (0..12).map(|i| format!("input_ids.{i}")).collect();
    let shape = |i: usize| if i.is_multiple_of(2) { vec![i + 1] } else { vec![1, i + 1] };
    let tensors: Vec<(&str, Tensor)> = names
        .iter()
        .enumerate()
        .map(|(i, name)| {
            let dtype = if i.is_multiple_of(3) { "I32" } else { "I64" };
            (name.as_str(), Tensor::ints(dtype, &shape(i), &vec![i as i64; i + 1]))
        })
        .collect();
    bed.tensors("x.safetensors", &tensors);
    let read = bed.load("x.safetensors", TOKENS, None).unwrap();
    // By number, not by name: 2 before 10.
    assert_eq!(ids(&read), (0..12).map(|i| vec![i as u32; i + 1]).collect::<Vec<_>>());
    assert!(read.warnings.is_empty());
    assert_eq!(bed.load("x.safetensors", TOKENS, Some(3)).unwrap().samples.len(), 3);
}

#[test]
fn padding_left_right_or_none_gives_the_same_samples() {
    let bed = Bed::new();
    let wanted: Vec<Vec<u32>> = (1..8).map(|n| (0..n).map(|i| (i * 5 + n) % 16).collect()).collect();
    for (left, width, dtype) in [(false, 7, "I64"), (true, 7, "I32"), (false, 11, "BOOL"), (true, 9, "U8")] {
        let (mut tokens, mut mask) = (Vec::new(), Vec::new());
        for sample in &wanted {
            let pad = width - sample.len();
            let before = if left { pad } else { 0 };
            // What stands in the padding must not matter, not even if it is no token.
            tokens.extend(vec![-100; before]);
            tokens.extend(sample.iter().map(|id| i64::from(*id)));
            tokens.extend(vec![99_999; pad - before]);
            mask.extend((0..width).map(|i| i64::from(i >= before && i < before + sample.len())));
        }
        let shape = [wanted.len(), width];
        bed.tensors(
            "x.safetensors",
            &[
                ("input_ids", Tensor::ints("I64", &shape, &tokens)),
                ("attention_mask", Tensor::ints(dtype, &shape, &mask)),
            ],
        );
        let read = bed.load("x.safetensors", TOKENS, None).unwrap();
        assert_eq!(ids(&read), wanted, "left {left}");
        assert!(read.warnings.is_empty());
    }
}

#[test]
fn text_through_the_tokenizer() {
    let bed = Bed::new();
    bed.side("tokenizer.json", &word_piece());
    bed.file("x.txt", "\u{feff}Hello world\r\n\n   \nworld unheard\nhello hello hello hello hello hello hello hello\n");
    let read = bed.load("x.txt", TOKENS, None).unwrap();
    // [CLS] = 2, [SEP] = 3; what is cut is the text, not what stands around it. The file's own padding and
    // truncation do not count.
    assert_eq!(ids(&read), [vec![2, 4, 5, 3], vec![2, 5, 1, 3], vec![2, 4, 4, 4, 4, 4, 4, 4, 4, 3]]);
    assert!(read.warnings.is_empty());

    let read = bed.load("x.txt", Wants::Tokens { vocab: 16, positions: 4 }, None).unwrap();
    assert_eq!(ids(&read), [[2, 4, 5, 3], [2, 5, 1, 3], [2, 4, 4, 3]]);
    assert_eq!(read.warnings.len(), 1);
    assert!(read.warnings[0].starts_with("1 of 3 samples of `"), "{:?}", read.warnings);
    assert!(read.warnings[0].contains("cut to 4 tokens"), "{:?}", read.warnings);
    assert_eq!(bed.load("x.txt", TOKENS, Some(1)).unwrap().samples.len(), 1);
}

#[test]
fn of_a_long_text_no_more_is_read_than_what_is_kept_can_take() {
    let bed = Bed::new();
    bed.side("tokenizer.json", &word_piece());
    let read = |text: &str, positions: u32| {
        bed.file("x.txt", text);
        let read = bed.load("x.txt", Wants::Tokens { vocab: 16, positions }, None).unwrap();
        (ids(&read).remove(0), read.warnings.len())
    };
    let long = "hello ".repeat(1 << 20);
    let kept = |words: usize| [vec![2], vec![4; words], vec![3]].concat();
    assert_eq!(read(&long, 10), (kept(8), 1));
    // 64 bytes are read for each token, and 16 KiB of every text.
    assert_eq!(read(&format!("{:64}", "hello").repeat(1000), 1002), (kept(1000), 0));
    assert_eq!(read(&format!("{}hello", " ".repeat(16_000)), 10), (kept(1), 0));
    assert_eq!(read(&format!("hello{}hello", " ".repeat(20_000)), 10), (kept(1), 1));
    // In the middle of a character.
    assert_eq!(read(&"é".repeat(20_000), 10).1, 1);
}

#[test]
fn a_text_that_a_tokenizer_blows_up_is_refused() {
    let bed = Bed::new();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&word_piece()).unwrap();
    let double = serde_json::json!({"type": "Replace", "pattern": {"String": " "}, "content": "  "});
    tokenizer["normalizer"] = serde_json::json!({"type": "Sequence", "normalizers": vec![double; 10]});
    bed.side("tokenizer.json", &tokenizer.to_string());
    bed.file("x.txt", "hello world");
    assert_eq!(ids(&bed.load("x.txt", TOKENS, None).unwrap()), [[2, 4, 5, 3]]);
    bed.file("x.txt", &format!("hello{}world", " ".repeat(16_000)));
    bed.refused("spaces", "x.txt", TOKENS, "its normalizer makes it more than 16 times as long");
}

#[test]
fn byte_pairs_keep_spaces() {
    let bed = Bed::new();
    bed.side("tokenizer.json", &bpe());
    bed.file("x.txt", "ab abab\n ab\n");
    // a = 0, b = 1, Ġ = 2, ab = 3, Ġab = 4.
    assert_eq!(ids(&bed.load("x.txt", TOKENS, None).unwrap()), [vec![3, 4, 3], vec![4]]);
}

#[test]
fn lines_of_json() {
    let bed = Bed::new();
    bed.side("tokenizer.json", &word_piece());
    bed.file(
        "x.jsonl",
        "{\"text\": \"hello\", \"id\": [1]}\n\n{\"text\": \"world\", \"label\": null}\n{\"text\": \" \"}\n",
    );
    let read = bed.load("x.jsonl", TOKENS, None).unwrap();
    assert_eq!(ids(&read), [[2, 4, 3], [2, 5, 3]]);
    assert_eq!((read.labels, read.classes.len()), (None, 0));
    assert!(read.warnings[0].starts_with("1 line of `"), "{:?}", read.warnings);

    bed.file(
        "x.jsonl",
        "{\"text\": \"hello\", \"label\": 5}\n{\"text\": \"\", \"label\": 6}\n{\"text\": \"world\", \"label\": 0}",
    );
    let read = bed.load("x.jsonl", TOKENS, None).unwrap();
    assert_eq!(read.labels.unwrap(), [5, 0]);

    bed.file(
        "x.jsonl",
        "{\"text\": \"hello\", \"label\": \"ham\"}\n{\"text\": \"world\", \"label\": \"spam\"}\n{\"text\": \"a\", \"label\": \"bread\"}",
    );
    // Numbers of names do not depend on how many samples are used.
    for limit in [1, 2, 3] {
        let read = bed.load("x.jsonl", TOKENS, Some(limit)).unwrap();
        assert_eq!(read.classes, ["bread", "ham", "spam"]);
        assert_eq!(read.labels.unwrap(), [1, 2, 0][..limit]);
    }
}

#[test]
fn a_line_is_read_no_further_than_its_limit() {
    let bed = Bed::new();
    bed.side("tokenizer.json", &word_piece());
    let mut long = "hello\n".to_owned();
    long.extend(std::iter::repeat_n('x', (16 << 20) + 1));
    bed.file("x.txt", &long);
    assert_eq!(bed.load("x.txt", TOKENS, Some(1)).unwrap().samples.len(), 1);
    let error = bed.load("x.txt", TOKENS, None).unwrap_err().to_string();
    assert!(error.contains("line 2 of `") && error.contains("is longer than 16.8 MB"), "{error}");
}

#[test]
fn folders_of_images() {
    let bed = Bed::new();
    bed.side("preprocessor_config.json", VIT);
    for (name, value) in [("b.png", 51), ("a.PNG", 0), ("c.jpeg", 255)] {
        png(&bed.path(&format!("flat/{name}")), 3, 5, value);
    }
    bed.file("flat/notes.txt", "hello");
    bed.file("flat/.hidden", "hello");
    let read = bed.load("flat", SMALL, None).unwrap();
    assert_eq!(pixels(&read), [[-1.0; 12], [-0.6; 12], [1.0; 12]]);
    assert_eq!((read.labels, read.classes.len()), (None, 0));
    assert!(read.warnings.len() == 1 && read.warnings[0].contains("`notes.txt`"), "{:?}", read.warnings);

    // One image of each class, then the next of each that has more.
    for (class, values) in [("zebra", &[10, 11, 12][..]), ("ant", &[20]), ("cow", &[30, 31])] {
        for value in values {
            png(&bed.path(&format!("classes/{class}/{value}.png")), 2, 2, *value);
        }
    }
    let firsts = |read: &Samples| -> Vec<u8> {
        pixels(read).iter().map(|pixels| ((pixels[0] + 1.0) * 127.5).round() as u8).collect()
    };
    let read = bed.load("classes", SMALL, None).unwrap();
    assert_eq!(read.classes, ["ant", "cow", "zebra"]);
    assert_eq!(firsts(&read), [20, 30, 10, 31, 11, 12]);
    assert_eq!(read.labels.unwrap(), [0, 1, 2, 1, 2, 2]);
    let read = bed.load("classes", SMALL, Some(4)).unwrap();
    assert_eq!((firsts(&read), read.labels.unwrap()), (vec![20, 30, 10, 31], vec![0, 1, 2, 1]));
    assert_eq!(read.classes.len(), 3);
}

#[test]
fn grey_is_that_of_pil() {
    let bed = Bed::new();
    bed.side(
        "preprocessor_config.json",
        r#"{"image_processor_type": "ViTImageProcessor", "size": 1,
        "do_rescale": false, "do_normalize": false}"#,
    );
    let grey = Wants::Pixels { channels: 1, height: 1, width: 1 };
    for (rgb, luma) in [([255, 0, 0], 76.0), ([0, 255, 0], 150.0), ([0, 0, 255], 29.0), ([7, 7, 7], 7.0)] {
        fs::create_dir_all(bed.path("grey")).unwrap();
        image::RgbImage::from_pixel(1, 1, image::Rgb(rgb)).save(bed.path("grey/a.png")).unwrap();
        assert_eq!(pixels(&bed.load("grey", grey, None).unwrap()), [[luma]]);
    }
}

#[test]
fn defaults_are_those_of_the_processor() {
    let bed = Bed::new();
    png(&bed.path("images/a.png"), 300, 260, 255);
    let size = |side| Wants::Pixels { channels: 3, height: side, width: side };
    let clip = (1.0 - 0.481_454_66) / 0.268_629_54;
    for (config, side, first) in [
        (r#"{"image_processor_type": "ViTImageProcessor"}"#, 224, 1.0),
        (r#"{"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "do_center_crop": null}"#, 32, 1.0),
        (r#"{"feature_extractor_type": "CLIPFeatureExtractor", "size": 40, "crop_size": 32}"#, 32, clip),
        (r#"{"image_processor_type": "CLIPImageProcessorFast"}"#, 224, clip),
        (r#"{"image_processor_type": "BlipImageProcessor"}"#, 384, clip),
        (r#"{"image_processor_type": "ViTImageProcessor", "size": [8, 8], "image_mean": 0, "image_std": 2}"#, 8, 0.5),
        (r#"{"image_processor_type": "ViTImageProcessor", "size": 8, "do_normalize": false}"#, 8, 1.0),
    ] {
        bed.side("preprocessor_config.json", config);
        let read = bed.load("images", size(side), None).unwrap();
        assert!((pixels(&read)[0][0] - first).abs() < 1e-6, "{config}: {}", pixels(&read)[0][0]);
        assert!(read.warnings.is_empty(), "{:?}", read.warnings);
    }
    // Without a name it is the model's that counts, else ViT's, which is said.
    bed.side("preprocessor_config.json", "{}");
    let read = bed.load("images", size(224), None).unwrap();
    assert!(read.warnings[0].contains("read as that of ViT"), "{:?}", read.warnings);
    bed.side("config.json", r#"{"model_type": "clip_vision_model"}"#);
    let read = bed.load("images", size(224), None).unwrap();
    assert!((pixels(&read)[0][0] - clip).abs() < 1e-6 && read.warnings.is_empty());
    // Newer models with a text side keep it in another file.
    fs::remove_file(bed.path("model/preprocessor_config.json")).unwrap();
    bed.side("processor_config.json", &format!(r#"{{"image_processor": {VIT}}}"#));
    assert_eq!(pixels(&bed.load("images", SMALL, None).unwrap()), [[1.0; 12]]);
}

/// In steps of a byte: PNG images must be the same; JPEG decoders differ (by up to 4 in the image
/// here), which resizing evens out to 2, or to 3 where it sharpens.
#[test]
fn images_come_out_as_in_hugging_face() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/data");
    let recorded = fs::read(golden.join("expected.safetensors")).unwrap();
    let recorded = safetensors::SafeTensors::deserialize(&recorded).unwrap();
    let bed = Bed::new();
    for name in ["vit", "clip", "padded", "bytes"] {
        let config = fs::read_to_string(golden.join(format!("{name}.json"))).unwrap();
        bed.side("preprocessor_config.json", &config);
        let config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let tensor = |image: &str| recorded.tensor(&format!("{name}.{image}")).unwrap();
        let shape: Vec<u32> = tensor("a").shape().iter().map(|n| *n as u32).collect();
        let wants = Wants::Pixels { channels: shape[0], height: shape[1], width: shape[2] };
        let read = bed.load_at(&golden.join("images"), wants, None).unwrap();
        let jpeg = if name == "bytes" { 3.0 } else { 2.0 };
        for ((image, most), got) in [("a", 0.0), ("b", jpeg)].into_iter().zip(pixels(&read)) {
            let data = tensor(image).data().to_vec();
            let want: Vec<f32> = match name {
                "bytes" => data.iter().map(|byte| f32::from(*byte)).collect(),
                _ => bytemuck::pod_collect_to_vec(&data),
            };
            assert_eq!(got.len(), want.len());
            let step = |i: usize| match name {
                "bytes" => 1.0,
                _ => config["image_std"][i / (got.len() / 3)].as_f64().unwrap() as f32 * 255.0,
            };
            let apart = (0..got.len()).map(|i| (got[i] - want[i]).abs() * step(i)).fold(0.0, f32::max);
            // Half a thousandth for the rounding of f32 on the way back to steps.
            assert!(apart <= most + 5e-4, "{name} of {image}: {apart} steps apart");
        }
    }
}

#[test]
fn what_cannot_be_tensors_is_refused() {
    let bed = Bed::new();
    let nan = Tensor::floats("F32", &[1, 3, 2, 2], &[[0.0; 11].as_slice(), &[f32::NAN]].concat());
    let inf = Tensor::floats("F64", &[1, 3, 2, 2], &[f32::NEG_INFINITY; 12]);
    let image = || Tensor::floats("F32", &[2, 3, 2, 2], &[0.0; 24]);
    let rows = |shape: &[usize], values: &[i64]| Tensor::ints("I64", shape, values);
    let four = || rows(&[2, 2], &[1, 2, 3, 4]);
    let wide = Wants::Tokens { vocab: 16, positions: 2 };
    type Case = (&'static str, Wants, Vec<(&'static str, Tensor)>, &'static str);
    let cases: Vec<Case> = vec![
        ("no pixels", SMALL, vec![("x", image())], "has no `pixel_values`"),
        ("ids for images", SMALL, vec![("input_ids", four())], "takes images [3, 2, 2]"),
        ("listed ids for images", SMALL, vec![("input_ids.0", rows(&[1], &[1]))], "is token ids, but the model"),
        ("images for ids", TOKENS, vec![("pixel_values", image())], "is images, but the model"),
        ("nothing", TOKENS, vec![], "has neither `input_ids` nor `input_ids.0`"),
        ("size", IMAGES, vec![("pixel_values", image())], "of shape [2, 3, 2, 2], but the model"),
        ("rank", SMALL, vec![("pixel_values", Tensor::floats("F32", &[12], &[0.0; 12]))], "of shape [12]"),
        ("type", SMALL, vec![("pixel_values", rows(&[1, 3, 2, 2], &[0; 12]))], "of type I64, which is not a float"),
        ("empty pixels", SMALL, vec![("pixel_values", Tensor::floats("F32", &[0, 3, 2, 2], &[]))], "has no sample"),
        ("nan", SMALL, vec![("pixel_values", nan)], "has the value NaN at place 11 of `pixel_values[0]`"),
        ("inf", SMALL, vec![("pixel_values", inf)], "has the value -inf"),
        ("float ids", TOKENS, vec![("input_ids", Tensor::floats("F32", &[1, 1], &[1.0]))], "of type F32, not of I64"),
        ("flat ids", TOKENS, vec![("input_ids", rows(&[4], &[1, 2, 3, 4]))], "of shape [4], not [samples, length]"),
        ("no rows", TOKENS, vec![("input_ids", rows(&[0, 4], &[]))], "has no sample"),
        ("empty rows", TOKENS, vec![("input_ids", rows(&[4, 0], &[]))], "`input_ids[0]` of `"),
        ("large id", TOKENS, vec![("input_ids", rows(&[1, 2], &[1, 16]))], "has the token 16, but those of the model"),
        ("negative id", TOKENS, vec![("input_ids", rows(&[1, 2], &[1, -1]))], "has the token -1"),
        ("too long", wide, vec![("input_ids", rows(&[1, 3], &[1, 2, 3]))], "has 3 tokens, but the model"),
        ("two of a kind", TOKENS, vec![("input_ids", four()), ("input_ids.0", rows(&[1], &[1]))], "has both"),
        (
            "a gap",
            TOKENS,
            vec![("input_ids.0", rows(&[1], &[1])), ("input_ids.2", rows(&[1], &[1]))],
            "has 2 samples, but none of them is `input_ids.1`",
        ),
        ("a square", TOKENS, vec![("input_ids.0", rows(&[2, 1], &[1, 2]))], "`input_ids.0` of shape [2, 1]"),
        (
            "another mask",
            TOKENS,
            vec![("input_ids", four()), ("attention_mask", rows(&[2, 1], &[1, 1]))],
            "`attention_mask` of shape [2, 1] for `input_ids` of shape [2, 2]",
        ),
        (
            "a hole",
            TOKENS,
            vec![("input_ids", rows(&[1, 4], &[1; 4])), ("attention_mask", rows(&[1, 4], &[0, 1, 0, 1]))],
            "`attention_mask[0]` of `",
        ),
        (
            "all padding",
            TOKENS,
            vec![("input_ids", four()), ("attention_mask", rows(&[2, 2], &[1, 1, 0, 0]))],
            "is 0 everywhere",
        ),
        (
            "a weight",
            TOKENS,
            vec![("input_ids", four()), ("attention_mask", rows(&[2, 2], &[1, 1, 1, 2]))],
            "is 2 at position 1, neither 0 nor 1",
        ),
        ("few labels", TOKENS, vec![("input_ids", four()), ("labels", rows(&[1], &[1]))], "of shape [1] for 2 samples"),
        ("token labels", TOKENS, vec![("input_ids", four()), ("labels", four())], "of shape [2, 2] for 2 samples"),
        ("negative labels", SMALL, vec![("pixel_values", image()), ("labels", rows(&[2], &[0, -100]))], "label -100"),
        (
            "large labels",
            SMALL,
            vec![("pixel_values", image()), ("labels", rows(&[2], &[0, 1 << 40]))],
            "numbers no class",
        ),
    ];
    for (what, wants, tensors, phrase) in cases {
        bed.tensors("x.safetensors", &tensors);
        bed.refused(what, "x.safetensors", wants, phrase);
    }
    bed.file("x.safetensors", "no header");
    bed.refused("no safetensors", "x.safetensors", SMALL, "x.safetensors");
}

#[test]
fn what_cannot_be_text_is_refused() {
    let bed = Bed::new();
    bed.file("x.txt", "hello");
    bed.refused("no tokenizer", "x.txt", TOKENS, "text needs `tokenizer.json`, and `");
    bed.side("vocab.json", "{}");
    bed.side("merges.txt", "");
    let error = bed.load("x.txt", TOKENS, None).unwrap_err();
    assert!(error.hints()[0].contains("`vocab.json`, `merges.txt`"), "{:?}", error.hints());
    assert!(error.hints()[0].contains("save_pretrained"), "{:?}", error.hints());
    let single = magic_merge::checkpoint::Checkpoint::open(bed.path("model/model.safetensors").to_str().unwrap(), &[]);
    let error = magic_merge::data::load(&bed.path("x.txt"), &TOKENS, &single.unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("is a single file"), "{error}");
    bed.side("tokenizer.json", "{\"version\": 1");
    bed.refused("half a tokenizer", "x.txt", TOKENS, "model/tokenizer.json` is not a tokenizer that can be used");

    let panics = word_piece().replacen(r#"{"SpecialToken":{"id":"[SEP]""#, r#"{"SpecialToken":{"id":"[NONE]""#, 1);
    assert_ne!(panics, word_piece());
    bed.side("tokenizer.json", &panics);
    bed.refused("a tokenizer that panics", "x.txt", TOKENS, "its tokenizer is broken: `");

    bed.side("tokenizer.json", &word_piece());
    bed.refused("text for images", "x.txt", IMAGES, "is text, but the model");
    let few = Wants::Tokens { vocab: 5, positions: 8 };
    bed.file("x.txt", "hello\nhello world");
    bed.refused("another tokenizer", "x.txt", few, "model/tokenizer.json`, has the token 5, but those of the model");
    let short = Wants::Tokens { vocab: 16, positions: 2 };
    bed.refused("no room", "x.txt", short, "it adds 2 special tokens, and the model takes 2 in all");
    for (what, text) in [("empty", ""), ("blank", "\n \r\n\t\n")] {
        bed.file("x.txt", text);
        bed.refused(what, "x.txt", TOKENS, "has no sample");
    }
    fs::write(bed.path("x.txt"), b"hello\n\xff\xfeh\0").unwrap();
    bed.refused("UTF-16", "x.txt", TOKENS, "line 2 of `");

    for (what, text, phrase) in [
        ("no JSON", "{\"text\": \"a\"}\nhello", "line 2 of `"),
        ("no object", "[1]", "is not a JSON object"),
        ("no text", "{\"txt\": \"a\"}", "has no `text`"),
        ("no string", "{\"text\": 1}", "has a `text` that is not a string"),
        ("a negative label", "{\"text\": \"a\", \"label\": -1}", "has the label `-1`"),
        ("half a label", "{\"text\": \"a\", \"label\": 0.5}", "has the label `0.5`"),
        ("a huge label", "{\"text\": \"a\", \"label\": 4294967296}", "neither a name nor a number"),
        ("some labels", "{\"text\": \"a\"}\n\n{\"text\": \"b\", \"label\": 1}", "line 3 of `"),
        (
            "mixed labels",
            "{\"text\": \"a\", \"label\": \"x\"}\n{\"text\": \"b\", \"label\": 1}",
            "but line 1 has a name",
        ),
        ("deep", &"[".repeat(100_000), "recursion limit"),
    ] {
        bed.file("x.jsonl", text);
        bed.refused(what, "x.jsonl", TOKENS, phrase);
    }
}

#[test]
fn what_cannot_be_images_is_refused() {
    let bed = Bed::new();
    png(&bed.path("images/a.png"), 3, 3, 7);
    bed.refused("no processor", "images", SMALL, "images need `preprocessor_config.json`, and `");
    bed.refused("images for ids", "images", TOKENS, "is a folder of images, but the model");
    for (what, config, phrase) in [
        ("no object", "[]", "holds no JSON object"),
        ("no JSON", "{", "holds no JSON object"),
        (
            "unknown",
            r#"{"image_processor_type": "ConvNextImageProcessor"}"#,
            "`ConvNextImageProcessor`, which is not known",
        ),
        ("a flag", r#"{"image_processor_type": "ViTImageProcessor", "do_resize": 3}"#, "which is not true or false"),
        ("no size", r#"{"image_processor_type": "ViTImageProcessor", "size": 0}"#, "`size`: `0`, which is not a size"),
        (
            "huge",
            r#"{"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 1e99}}"#,
            "which is not a size",
        ),
        (
            "edges",
            r#"{"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 2, "longest_edge": 3}}"#,
            "which is not a size",
        ),
        ("large", r#"{"image_processor_type": "ViTImageProcessor", "size": 65536}"#, "comes out 65536 × 65536"),
        ("filter", r#"{"image_processor_type": "ViTImageProcessor", "resample": 0}"#, "which is not 1 (Lanczos)"),
        (
            "mean",
            r#"{"image_processor_type": "ViTImageProcessor", "image_mean": [1, 2]}"#,
            "which is not 3 finite numbers",
        ),
        ("std", r#"{"image_processor_type": "ViTImageProcessor", "image_std": [1, 2, 0]}"#, "has an `image_std` of 0"),
        (
            "factor",
            r#"{"image_processor_type": "ViTImageProcessor", "size": 2, "rescale_factor": 1e300}"#,
            "not finite",
        ),
        (
            "order",
            r#"{"image_processor_type": "ViTImageProcessor", "do_flip_channel_order": true}"#,
            "`do_flip_channel_order`",
        ),
        (
            "crop",
            r#"{"image_processor_type": "CLIPImageProcessor", "crop_size": {"shortest_edge": 2}}"#,
            "`crop_size` without",
        ),
        (
            "other",
            r#"{"image_processor_type": "ViTImageProcessor", "size": {"height": 3, "width": 4}}"#,
            "comes out 3 × 4",
        ),
    ] {
        bed.side("preprocessor_config.json", config);
        bed.refused(what, "images", SMALL, phrase);
    }

    bed.side("preprocessor_config.json", VIT);
    bed.refused("channels", "images", Wants::Pixels { channels: 4, height: 2, width: 2 }, "takes 4");
    let grey = Wants::Pixels { channels: 1, height: 2, width: 2 };
    bed.refused("grey without a mean", "images", grey, "has no `image_mean`");
    bed.file("images/b.png", "hello");
    bed.refused("no image", "images", SMALL, "images/b.png` cannot be decoded as an image");
    let whole = fs::read(bed.path("images/a.png")).unwrap();
    fs::write(bed.path("images/b.png"), &whole[..whole.len() / 2]).unwrap();
    bed.refused("half an image", "images", SMALL, "images/b.png` cannot be decoded as an image");
    fs::write(bed.path("images/b.png"), common::bomb(20_000, 20_000)).unwrap();
    bed.refused("a bomb", "images", SMALL, "it is 20000 × 20000 pixels");
    fs::write(bed.path("images/b.png"), common::bomb(16_000, 16_000)).unwrap();
    bed.refused("a smaller bomb", "images", SMALL, "it is 16000 × 16000 pixels (768.0 MB)");
    fs::remove_file(bed.path("images/b.png")).unwrap();

    fs::create_dir_all(bed.path("images/more")).unwrap();
    bed.refused("both", "images", SMALL, "the image `a.png` and the folder `more`");
    fs::create_dir_all(bed.path("empty")).unwrap();
    bed.refused("empty", "empty", SMALL, "has no PNG or JPEG image");
    png(&bed.path("classes/ant/a.png"), 3, 3, 7);
    fs::create_dir_all(bed.path("classes/bee")).unwrap();
    bed.refused("an empty class", "classes", SMALL, "classes/bee` has no PNG or JPEG image");

    bed.side(
        "preprocessor_config.json",
        r#"{"image_processor_type": "CLIPImageProcessor", "size": 4096, "crop_size": 2}"#,
    );
    png(&bed.path("long/a.png"), 1, 16_000, 7);
    bed.refused("a line", "long", SMALL, "would become 4096 × 65536000");
    let single = magic_merge::checkpoint::Checkpoint::open(bed.path("model/model.safetensors").to_str().unwrap(), &[]);
    let error = magic_merge::data::load(&bed.path("long"), &SMALL, &single.unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("is a single file"), "{error}");
}

#[test]
fn other_paths_are_refused() {
    let bed = Bed::new();
    let missing = bed.load("nothing.txt", TOKENS, None).expect_err("nothing is there");
    assert!(missing.exit_code() == 2 && missing.to_string().contains("nothing.txt` does not exist"), "{missing}");
    for name in ["x.json", "x.csv", "x.png", "x"] {
        bed.file(name, "hello");
        bed.refused(name, name, TOKENS, "is not of a kind that samples are read from");
    }
    bed.file("x.txt", "hello");
    let error = bed.load("x.txt", TOKENS, Some(0)).unwrap_err();
    assert_eq!(error.exit_code(), 2);
}

#[cfg(unix)]
#[test]
fn links_out_of_the_model_are_refused() {
    let bed = Bed::new();
    bed.file("elsewhere.json", &word_piece());
    bed.file("x.txt", "hello");
    std::os::unix::fs::symlink(bed.path("elsewhere.json"), bed.path("model/tokenizer.json")).unwrap();
    bed.refused("a link", "x.txt", TOKENS, "is a link that leads out of its folder");
}

#[cfg(unix)]
#[test]
fn links_out_of_a_folder_of_images_are_refused() {
    use std::os::unix::fs::symlink;
    let bed = Bed::new();
    bed.side("preprocessor_config.json", VIT);
    png(&bed.path("elsewhere/a.png"), 3, 3, 7);
    png(&bed.path("images/a.png"), 3, 3, 7);
    symlink("a.png", bed.path("images/b.png")).unwrap();
    assert_eq!(bed.load("images", SMALL, None).unwrap().samples.len(), 2);
    symlink("images", bed.path("all")).unwrap();
    assert_eq!(bed.load("all", SMALL, None).unwrap().samples.len(), 2);
    symlink("../elsewhere/a.png", bed.path("images/c.png")).unwrap();
    bed.refused("a file", "images", SMALL, "images/c.png` is a link that leads out of its folder");
    png(&bed.path("classes/a/a.png"), 3, 3, 7);
    symlink("a", bed.path("classes/b")).unwrap();
    assert_eq!(bed.load("classes", SMALL, None).unwrap().classes, ["a", "b"]);
    symlink("../elsewhere", bed.path("classes/c")).unwrap();
    bed.refused("a class", "classes", SMALL, "classes/c` is a link that leads out of its folder");
    fs::remove_file(bed.path("classes/c")).unwrap();
    symlink("../../elsewhere/a.png", bed.path("classes/a/b.png")).unwrap();
    bed.refused("a file of a class", "classes", SMALL, "classes/a/b.png` is a link that leads out of its folder");
}

/// Whatever is in the files of a model: an error or samples, never the end of the process.
#[test]
fn damaged_files_of_a_model_do_not_end_the_process() {
    let bed = Bed::new();
    bed.file("x.txt", "hello world, unheard of\nhello");
    png(&bed.path("images/a.png"), 3, 3, 7);
    let bytes = fs::read(bed.path("images/a.png")).unwrap();
    let mut state = 1u64;
    let mut next = move |most: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % most
    };
    let (pieces, mut read) = (["0", "-1", "null", "[]", "{}", "\"\"", "4294967296", "\"[UNK]\"", "true"], 0);
    for round in 0..600 {
        let whole = if round % 2 == 0 { word_piece() } else { bpe() };
        let mut value: serde_json::Value = serde_json::from_str(&whole).unwrap();
        for _ in 0..=next(2) {
            common::spoil(&mut value, &mut next, &pieces);
        }
        bed.side("tokenizer.json", &value.to_string());
        read += usize::from(bed.load("x.txt", TOKENS, None).is_ok());

        let mut image = bytes.clone();
        let at = next(image.len());
        image[at] ^= 1 << next(8);
        fs::write(bed.path("images/a.png"), image).unwrap();
        bed.side("preprocessor_config.json", VIT);
        let _ = bed.load("images", SMALL, None);
    }
    assert!(read > 60, "{read}");
}
