//! A model and data for it, made on the spot.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use magic_merge::Result;
use magic_merge::checkpoint::{Checkpoint, Dtype};
use magic_merge::data::{Sample, Samples, Wants, load};
use magic_merge::kernels::convert::narrow;
use serde_json::{Value, json};

pub const TOKENS: Wants = Wants::Tokens { vocab: 16, positions: u32::MAX };
pub const IMAGES: Wants = Wants::Pixels { channels: 3, height: 4, width: 4 };

/// A folder with a model in `model/`, which goes with it.
pub struct Bed(tempfile::TempDir);

/// A tensor as its header name, shape and bytes.
pub struct Tensor(&'static str, Vec<usize>, Vec<u8>);

impl Tensor {
    pub fn floats(dtype: &'static str, shape: &[usize], values: &[f32]) -> Self {
        let own = Dtype::from_header(dtype);
        let mut words = vec![0u64; values.len()];
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
        narrow(own, values, bytes, 0);
        Self(dtype, shape.to_vec(), bytes[..values.len() * own.size()].to_vec())
    }

    pub fn ints(dtype: &'static str, shape: &[usize], values: &[i64]) -> Self {
        let size = Dtype::from_header(dtype).bits() as usize / 8;
        Self(dtype, shape.to_vec(), values.iter().flat_map(|value| value.to_le_bytes()[..size].to_vec()).collect())
    }
}

impl Bed {
    pub fn new() -> Self {
        let bed = Self(tempfile::tempdir().unwrap());
        bed.tensors("model/model.safetensors", &[("x", Tensor::floats("F32", &[1], &[1.0]))]);
        bed
    }

    pub fn path(&self, name: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    pub fn file(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// A file of the model.
    pub fn side(&self, name: &str, text: &str) {
        self.file(&format!("model/{name}"), text);
    }

    /// Writes a safetensors file.
    pub fn tensors(&self, name: &str, tensors: &[(&str, Tensor)]) {
        let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
        for (name, Tensor(dtype, shape, bytes)) in tensors {
            let begin = data.len();
            data.extend(bytes);
            let about = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert((*name).to_owned(), about);
        }
        let header = Value::Object(header).to_string();
        let mut file = fs::File::create(self.path(name)).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&data).unwrap();
    }

    pub fn load(&self, name: &str, wants: Wants, limit: Option<usize>) -> Result<Samples> {
        self.load_at(&self.path(name), wants, limit)
    }

    pub fn load_at(&self, path: &Path, wants: Wants, limit: Option<usize>) -> Result<Samples> {
        let model = Checkpoint::open(self.path("model").to_str().unwrap(), &[])?;
        load(path, &wants, &model, limit)
    }

    /// The data is refused with a phrase that says why.
    pub fn refused(&self, what: &str, name: &str, wants: Wants, phrase: &str) {
        let error = self.load(name, wants, None).expect_err(what);
        assert!(error.to_string().contains(phrase), "{what}: {error}");
        assert_eq!(error.exit_code(), 1, "{what}");
    }
}

pub fn ids(read: &Samples) -> Vec<Vec<u32>> {
    let of = |sample: &Sample| match sample {
        Sample::Tokens(ids) => ids.clone(),
        Sample::Pixels(_) => panic!("pixels"),
    };
    read.samples.iter().map(of).collect()
}

pub fn pixels(read: &Samples) -> Vec<Vec<f32>> {
    let of = |sample: &Sample| match sample {
        Sample::Pixels(pixels) => pixels.clone(),
        Sample::Tokens(_) => panic!("tokens"),
    };
    read.samples.iter().map(of).collect()
}

/// A grey image of one value, PNG or JPEG by its name.
pub fn png(path: &Path, height: u32, width: u32, value: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    image::RgbImage::from_pixel(width, height, image::Rgb([value; 3])).save(path).unwrap();
}

/// The beginning of a PNG image that says it is large.
pub fn bomb(height: u32, width: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    image::RgbImage::new(1, 1).write_to(&mut std::io::Cursor::new(&mut bytes), image::ImageFormat::Png).unwrap();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let crc = bytes[12..29].iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 })
    });
    bytes[29..33].copy_from_slice(&(!crc).to_be_bytes());
    bytes
}

/// A tokenizer like that of BERT, which asks for padding and truncation of its own.
pub fn word_piece() -> String {
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
               "normalized": false, "special": true})
    };
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                    "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [special(0, "[PAD]"), special(1, "[UNK]"), special(2, "[CLS]"), special(3, "[SEP]")],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [3], "tokens": ["[SEP]"]}}
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100,
                  "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "hello": 4, "world": 5, ",": 6, "##s": 7}}
    })
    .to_string()
}

/// A tokenizer like that of GPT-2: bytes, split by a pattern that needs a look ahead.
pub fn bpe() -> String {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": " ?\\p{L}+|\\s+(?!\\S)|\\s+"}, "behavior": "Isolated",
             "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}]},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "",
                  "end_of_word_suffix": "", "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": {"a": 0, "b": 1, "Ġ": 2, "ab": 3, "Ġab": 4}, "merges": [["a", "b"], ["Ġ", "ab"]]}
    })
    .to_string()
}

/// Puts one of `pieces` somewhere into `value`, or takes a key out.
pub fn spoil(value: &mut Value, next: &mut impl FnMut(usize) -> usize, pieces: &[&str]) {
    let down = next(5) > 0;
    match value {
        Value::Object(keys) if !keys.is_empty() && down => {
            let key = keys.keys().nth(next(keys.len())).cloned().unwrap();
            match next(6) {
                0 => drop(keys.remove(&key)),
                _ => spoil(&mut keys[&key], next, pieces),
            }
        }
        Value::Array(values) if !values.is_empty() && down => {
            let at = next(values.len());
            spoil(&mut values[at], next, pieces);
        }
        other => *other = serde_json::from_str(pieces[next(pieces.len())]).unwrap(),
    }
}
