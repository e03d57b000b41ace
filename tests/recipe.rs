//! Recipes: what is read, what is refused and in which words, and what a parameter is for one tensor.

use std::path::{Path, PathBuf};

use magic_merge::Error;
use magic_merge::error::Kind;
use magic_merge::recipe::{
    Calibrate, Depth, Fit, Manifold, ModelEntry, Norm, Params, Propagate, Quick, Recipe, Sensitive, Space, Value,
    resolve,
};

fn read(text: &str) -> Recipe {
    Recipe::from_yaml(text, "r.yml").unwrap_or_else(|error| panic!("{error} {:?}\n{text}", error.hints()))
}

/// The message and the hints, as one text.
fn words(error: &Error) -> String {
    assert_eq!(error.kind(), Kind::Usage, "{error}");
    format!("{error} | {}", error.hints().join(" | "))
}

fn refused(text: &str) -> String {
    match Recipe::from_yaml(text, "r.yml") {
        Ok(recipe) => panic!("accepted: {text}\n{recipe:?}"),
        Err(error) => words(&error),
    }
}

fn number(recipe: &Recipe, key: &str, model: Option<usize>, tensor: &str, t: f64) -> Option<f64> {
    recipe.number(key, model, tensor, t).unwrap()
}

fn near(got: Option<f64>, want: f64) {
    let got = got.expect("a value");
    assert!((got - want).abs() < 1e-12, "{got} is not {want}");
}

/// The recipes whose outputs by mergekit are recorded, as mergekit's own writer spells them (anchors and all).
const RECORDED: &[(&str, &str)] = &[
    (
        "breadcrumbs",
        "merge_method: breadcrumbs\nmodels:\n- model: ./models/expert0\n  parameters: &id001\n    weight: 0.4\n    density: 0.6\n    gamma: 0.05\n- model: ./models/expert1\n  parameters: *id001\n- model: ./models/expert2\n  parameters: *id001\ndtype: float32\nbase_model: ./models/base\n",
    ),
    (
        "breadcrumbs_ties",
        "merge_method: breadcrumbs_ties\nmodels:\n- model: ./models/expert0\n  parameters: &id001\n    weight: 0.4\n    density: 0.6\n    gamma: 0.05\n- model: ./models/expert1\n  parameters: *id001\n- model: ./models/expert2\n  parameters: *id001\ndtype: float32\nbase_model: ./models/base\n",
    ),
    (
        "gradient",
        "merge_method: task_arithmetic\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight:\n    - 0.1\n    - 0.9\n    - 0.4\n- model: ./models/expert1\n  parameters:\n    weight:\n    - filter: mlp\n      value:\n      - 0.2\n      - 0.8\n    - value: 0.1\n- model: ./models/expert2\n  parameters:\n    weight: 0.2\ndtype: float32\nbase_model: ./models/base\n",
    ),
    (
        "karcher",
        "merge_method: karcher\nmodels:\n- model: ./models/expert0\n- model: ./models/expert1\n- model: ./models/expert2\ndtype: float32\n",
    ),
    (
        "linear",
        "merge_method: linear\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\ndtype: float32\n",
    ),
    (
        "linear_raw",
        "merge_method: linear\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\ndtype: float32\nparameters:\n  normalize: false\n",
    ),
    (
        "model_stock",
        "merge_method: model_stock\nmodels:\n- model: ./models/expert0\n- model: ./models/expert1\n- model: ./models/expert2\ndtype: float32\nbase_model: ./models/base\n",
    ),
    (
        "multislerp",
        "merge_method: multislerp\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\ndtype: float32\nbase_model: ./models/base\n",
    ),
    (
        "nearswap",
        "merge_method: nearswap\nbase_model: ./models/base\nmodels:\n- model: ./models/expert1\ndtype: float32\nparameters:\n  t: 0.003\n",
    ),
    (
        "nuslerp",
        "merge_method: nuslerp\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.6\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\ndtype: float32\n",
    ),
    (
        "nuslerp_base",
        "merge_method: nuslerp\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.6\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\ndtype: float32\nbase_model: ./models/base\n",
    ),
    (
        "sce",
        "merge_method: sce\nmodels:\n- model: ./models/expert0\n- model: ./models/expert1\n- model: ./models/expert2\ndtype: float32\nbase_model: ./models/base\nparameters:\n  select_topk: 0.3\n",
    ),
    ("slerp", SLERP),
    (
        "task_arithmetic",
        "merge_method: task_arithmetic\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\ndtype: float32\nbase_model: ./models/base\nparameters:\n  lambda: 0.8\n",
    ),
    (
        "task_arithmetic_normalized",
        "merge_method: task_arithmetic\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\ndtype: float32\nbase_model: ./models/base\nparameters:\n  normalize: true\n",
    ),
    (
        "ties",
        "merge_method: ties\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n    density: 0.2\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n    density: 0.35\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\n    density: 0.5\ndtype: float32\nbase_model: ./models/base\nparameters:\n  lambda: 1.2\n",
    ),
    (
        "ties_sum",
        "merge_method: ties\nmodels:\n- model: ./models/expert0\n  parameters:\n    weight: 0.5\n    density: 0.2\n- model: ./models/expert1\n  parameters:\n    weight: 0.3\n    density: 0.35\n- model: ./models/expert2\n  parameters:\n    weight: 0.7\n    density: 0.5\ndtype: float32\nbase_model: ./models/base\nparameters:\n  normalize: false\n",
    ),
];

const SLERP: &str = "\
merge_method: slerp
base_model: ./models/base
models:
- model: ./models/base
- model: ./models/expert0
dtype: float32
parameters:
  t:
  - filter: self_attn
    value:
    - 0
    - 0.5
    - 0.3
    - 0.7
    - 1
  - filter: mlp
    value:
    - 1
    - 0.5
    - 0.7
    - 0.3
    - 0
  - value: 0.5
";

const FULL: &str = r#"
merge_method: ties   # a comment
base_model: org/base
models:
  - model: ./a
    data: a.jsonl
    parameters: {weight: [0, 0.5, 1], density: 0.25}
  - model: ./b
    parameters:
      weight:
        - filter: mlp
          value: [1, -0.5]
        - filter: norm
          value: 0
        - value: 1e-7
      density:
        filter: attn
        value: 0.5
parameters:
  weight: 0.75
  normalize: true
  rescale: inverse_density
  int8_mask: true
  lambda: 1.2
dtype: float32
out_dtype: bfloat16
calibrate:
  space: dsc
  manifold: sphere
  norm: l2
  feature: {fit: projection, norm: linf, samples: 32}
  data: calib.jsonl
  sensitive: [model.a.weight, model.b.weight]
  exclude: ["*.classifier.*"]
seed: 18446744073709551615
exclude: ["lm_head.*", '*.bias']
"#;

fn recorded(name: &str) -> &'static str {
    RECORDED.iter().find(|(known, _)| *known == name).expect("a recorded recipe").1
}

fn entry(model: &str, weight: Option<f64>) -> ModelEntry {
    let params = weight.map(|w| ("weight".to_owned(), Value::Number(w))).into_iter().collect();
    ModelEntry { model: model.to_owned(), params, data: None }
}

#[test]
fn every_key_is_read() {
    let recipe = read(FULL);
    assert_eq!(recipe.method, "ties");
    assert_eq!(recipe.base.as_deref(), Some("org/base"));
    assert_eq!(recipe.models.iter().map(|entry| entry.model.as_str()).collect::<Vec<_>>(), ["./a", "./b"]);
    assert_eq!(recipe.models[0].data.as_deref(), Some("a.jsonl"));
    assert_eq!(recipe.models[0].params["weight"], Value::Gradient(vec![0.0, 0.5, 1.0]));
    let filters = vec![
        (Some("mlp".to_owned()), Value::Gradient(vec![1.0, -0.5])),
        (Some("norm".to_owned()), Value::Number(0.0)),
        (None, Value::Number(1e-7)),
    ];
    assert_eq!(recipe.models[1].params["weight"], Value::Filters(filters));
    let lone = vec![(Some("attn".to_owned()), Value::Number(0.5))];
    assert_eq!(recipe.models[1].params["density"], Value::Filters(lone), "a filter without its list");
    assert_eq!(recipe.params["rescale"], Value::Text("inverse_density".to_owned()));
    assert_eq!(recipe.dtype.as_deref(), Some("float32"));
    assert_eq!(recipe.output_dtype().unwrap(), Some("bfloat16"));
    let names = ["model.a.weight", "model.b.weight"].map(str::to_owned).to_vec();
    let calibrate = Calibrate {
        space: Space::Dsc,
        manifold: Manifold::Sphere,
        norm: Norm::L2,
        fit: Fit::Projection,
        feature_norm: Norm::Linf,
        samples: 32,
        propagate: Propagate::Merged,
        data: vec!["calib.jsonl".to_owned()],
        sensitive: Sensitive::Names(names),
        exclude: vec!["*.classifier.*".to_owned()],
    };
    assert_eq!(recipe.calibrate, calibrate);
    assert_eq!(recipe.seed, u64::MAX);
    assert_eq!(recipe.exclude, ["lm_head.*", "*.bias"]);
}

#[test]
fn what_is_left_out_has_defaults() {
    let recipe = read("merge_method: linear\nmodels: [{model: a, parameters: }]\ncalibrate:\nparameters: ~\n");
    let want = Recipe { method: "linear".to_owned(), models: vec![entry("a", None)], ..Recipe::default() };
    assert_eq!(recipe, want);
    assert_eq!(recipe.output_dtype().unwrap(), None);
    assert_eq!(recipe.calibrate.samples, 10);
    let calibrate = read("merge_method: linear\nmodels: [{model: a}]\ncalibrate: {space: wsc}\n").calibrate;
    assert_eq!(calibrate, Calibrate { space: Space::Wsc, ..Calibrate::default() });
    let file = read("merge_method: linear\nmodels: [{model: a}]\ncalibrate: {space: wsc, sensitive: s.json}\n");
    assert_eq!(file.calibrate.sensitive, Sensitive::File("s.json".to_owned()));
    let empty = read("merge_method: linear\nmodels: [{model: a}]\ncalibrate: {space: wsc, sensitive: []}\n");
    assert_eq!(empty.calibrate.sensitive, Sensitive::Names(Vec::new()));
}

#[test]
fn recorded_recipes_are_read() {
    for (name, text) in RECORDED {
        let recipe = read(text);
        assert!(name.starts_with(&recipe.method) || *name == "gradient", "{name}");
        assert_eq!(recipe.output_dtype().unwrap(), Some("float32"), "{name}");
    }
    let anchored = read(recorded("breadcrumbs"));
    for model in 0..3 {
        assert_eq!(number(&anchored, "weight", Some(model), "x", 0.0), Some(0.4));
        assert_eq!(number(&anchored, "gamma", Some(model), "x", 0.0), Some(0.05));
    }
}

#[test]
fn anchors_merge_into_mappings() {
    let text = "merge_method: ties\nmodels:\n- model: a\n  parameters: &p {weight: 0.5, density: 0.2}\n- model: b\n  parameters: {<<: *p, weight: 0.7}\n";
    let recipe = read(text);
    assert_eq!(number(&recipe, "weight", Some(1), "x", 0.0), Some(0.7));
    assert_eq!(number(&recipe, "density", Some(1), "x", 0.0), Some(0.2));
    let many: String = (0..300).map(|i| format!("- model: m{i}\n  parameters: *p\n")).collect();
    let text = format!("merge_method: ties\nmodels:\n- model: a\n  parameters: &p {{weight: 0.5}}\n{many}");
    assert_eq!(read(&text).models.len(), 301, "one anchor may serve many models");
}

#[test]
fn bad_recipes_say_what_is_wrong_and_where() {
    let body = "merge_method: linear\nmodels:\n- model: ./a\n";
    let beside = |lines: &str| format!("merge_method: linear\nmodels:\n- model: ./a\n  {lines}\n");
    let top = |lines: &str| format!("{body}{lines}\n");
    let params = |lines: &str| beside(&format!("parameters: {lines}"));
    let cases: &[(String, &[&str])] = &[
        // The shape of the file.
        (String::new(), &["`r.yml` is empty", "`merge_method` and `models`"]),
        ("# only a comment\n".to_owned(), &["`r.yml` is empty"]),
        ("- merge_method: linear\n".to_owned(), &["`r.yml:1`", "the recipe is a list, not a mapping"]),
        ("linear\n".to_owned(), &["the recipe is text, not a mapping"]),
        ("models: [{model: a}]\n".to_owned(), &["`r.yml` has no `merge_method`"]),
        ("merge_method: linear\n".to_owned(), &["`r.yml` has no `models`"]),
        ("merge_method:\nmodels: [{model: a}]\n".to_owned(), &["has no `merge_method`"]),
        ("merge_method: linear\nmodels: []\n".to_owned(), &["`r.yml:2`", "`models` is an empty list"]),
        ("merge_method: linear\nmodels: a\n".to_owned(), &["`models` is text, not a list", "- model: PATH"]),
        ("merge_method: linear\nmodels:\n- ./a\n".to_owned(), &["`r.yml:3`", "model 1", "write `- model: ./a`"]),
        ("merge_method: linear\nmodels: [{data: a}]\n".to_owned(), &["model 1 of `models` has no `model`"]),
        ("merge_method: linear\nmodels: [{model: 7}]\n".to_owned(), &["`model` is a number, not text", "quotes"]),
        ("merge_method: 1\nmodels: [{model: a}]\n".to_owned(), &["`merge_method` is a number"]),
        ("merge_method: linear\nmodels: [\n".to_owned(), &["`r.yml:2`", "unclosed bracket"]),
        (top("---\nseed: 1"), &["single YAML document"]),
        (top("? [1, 2]\n: 3"), &["a key is not text"]),
        (top("seed: *nowhere"), &["`r.yml:4`", "alias of an anchor that is not above it"]),
        // Duplicates.
        (top("merge_method: ties"), &["`r.yml:4`", "duplicate", "`merge_method`"]),
        (params("{weight: 1, weight: 2}"), &["duplicate", "`weight`"]),
        // Unknown keys.
        (
            top("basemodel: ./b"),
            &["`r.yml:4`", "unknown key `basemodel` at the top level", "did you mean `base_model`?"],
        ),
        (top("normalize: false"), &["unknown key `normalize` at the top level", "put it under `parameters`"]),
        (top("normalise: false"), &["unknown key `normalise`", "did you mean `normalize`, under `parameters`?"]),
        (top("zzz: 1"), &["unknown key `zzz`", "known are `merge_method`, `base_model`"]),
        (beside("weight: 0.5"), &["`r.yml:4`", "unknown key `weight` beside model `./a`", "under `parameters`"]),
        (beside("parameter: {weight: 1}"), &["unknown key `parameter`", "did you mean `parameters`?"]),
        (beside("dtype: float32"), &["unknown key `dtype` beside model `./a`", "at the top level"]),
        (params("\n    weight: 1\n    wieght: 1"), &["`r.yml:6`", "`wieght` under `parameters` of `./a`", "`weight`"]),
        (params("{dtype: float32}"), &["unknown key `dtype` under `parameters` of `./a`", "top level"]),
        (top("parameters: {k: 1}"), &["unknown key `k` under `parameters`", "known are `weight`"]),
        (params("{weight: [{filtre: mlp, value: 1}]}"), &["`filtre` in a filter of `weight` of `./a`", "`filter`"]),
        (top("calibrate: {space: wsc, manifld: mixed}"), &["`manifld` in `calibrate`", "did you mean `manifold`?"]),
        (top("calibrate: {space: fsc, feature: {sample: 3}}"), &["`sample` in `calibrate.feature`", "`samples`"]),
        (top("calibrate: {space: fsc, samples: 3}"), &["unknown key `samples` in `calibrate`", "known are `space`"]),
        // Parameters in a place where they would mean nothing.
        (params("{normalize: true}"), &["`normalize` has no meaning beside one model", "recipe's own `parameters`"]),
        (params("{lambda: 2}"), &["`r.yml:4`", "`lambda` has no meaning"]),
        // What only mergekit has.
        ("merge_method: linear\nslices: []\n".to_owned(), &["`slices`", "a key of mergekit that magic does not have"]),
        (top("modules: {}"), &["`modules`", "mergekit", "under `models`"]),
        (top("tokenizer_source: union"), &["`r.yml:4`", "`tokenizer_source`", "mergekit", "copied"]),
        (top("tokenizer: {source: base}"), &["`tokenizer`", "mergekit"]),
        (top("chat_template: auto"), &["`chat_template`", "mergekit"]),
        (beside("layer_range: [0, 4]"), &["`layer_range`", "mergekit"]),
        (beside("override_architecture: X"), &["`override_architecture`", "mergekit", "leave it out"]),
        ("merge_method: linear\nmodels: [{model: {path: a}}]\n".to_owned(), &["`model` is a mapping", "mergekit"]),
        // Values of parameters.
        (params("{weight: much}"), &["`r.yml:4`", "`weight` of `./a` is text", "a number"]),
        (params("{weight: '0.5'}"), &["`weight` of `./a` is text", "without quotes"]),
        (params("{weight: .nan}"), &["`weight` of `./a` is not a finite number"]),
        (params("{weight: [0, -.inf]}"), &["`weight` of `./a` is not a finite number"]),
        (params("{weight: 1e999}"), &["`weight` of `./a` is not a finite number"]),
        (params("{weight: 1e39}"), &["`weight` of `./a` is 1.0e+39, above 3.4028"]),
        (params("{weight: []}"), &["`weight` of `./a` is an empty list"]),
        (params("{weight: }"), &["`weight` of `./a` has no value"]),
        (params("{weight: [1, two]}"), &["`weight` of `./a` holds text among numbers"]),
        (params("{weight: [1, {value: 2}]}"), &["a filter of `weight` of `./a` is a number, not a mapping"]),
        (params("{weight: [{filter: mlp}]}"), &["a filter of `weight` of `./a` has no `value`"]),
        (params("{weight: [{filter: 7, value: 1}]}"), &["`filter` of `weight` of `./a` is a number, not text"]),
        (params("{weight: [{value: [{value: 1}]}]}"), &["holds filters of its own"]),
        (params("{weight: {value: {value: 1}}}"), &["holds filters of its own"]),
        (params("[weight, 1]"), &["`parameters` is a list, not a mapping"]),
        (params("{density: 1.5}"), &["`density` of `./a` is 1.5, above 1"]),
        (params("{density: -0.1}"), &["`density` of `./a` is -0.1, below 0"]),
        (params("{density: [{filter: mlp, value: [0.5, 2]}]}"), &["`density` of `./a` is 2, above 1"]),
        (top("parameters: {density: 2}"), &["`density` is 2, above 1"]),
        (top("parameters: {select_topk: 1.1}"), &["`select_topk` is 1.1, above 1"]),
        (top("parameters: {normalize: maybe}"), &["`normalize` is text", "`true` or `false`"]),
        (top("parameters: {normalize: 2}"), &["`normalize` is a number", "`true` or `false`"]),
        (top("parameters: {normalize: [0, 1]}"), &["`normalize` is a gradient"]),
        (top("parameters: {rescale: l2}"), &["`rescale` is `l2`", "`l1`, `inverse_density`"]),
        (top("parameters: {max_iter: 2.5}"), &["`max_iter` is 2.5", "whole number"]),
        (top("parameters: {max_iter: 0}"), &["`max_iter` is 0"]),
        (top("parameters: {tol: -1}"), &["`tol` is -1, below 0"]),
        // Values of other keys.
        (top("dtype: bfloat6"), &["`r.yml:4`", "`bfloat6` is no output dtype", "did you mean `bfloat16`?"]),
        (top("dtype: int64"), &["`int64` is no output dtype", "`float32`, `bfloat16`, `float16`"]),
        (top("out_dtype: [float32]"), &["`out_dtype` is a list, not text"]),
        (top("seed: -1"), &["`seed` is not a whole number"]),
        (top("seed: 1.5"), &["`seed` is not a whole number"]),
        (top("exclude: {a: b}"), &["`exclude` is a mapping, not text"]),
        (top("exclude: [1]"), &["an entry of `exclude` is a number"]),
        (top("calibrate: wsc"), &["`calibrate` is text, not a mapping"]),
        (top("calibrate: {manifold: mixed}"), &["`calibrate` has no `space`"]),
        (top("calibrate: {space: wcs}"), &["`r.yml:4`", "unknown calibration space `wcs`", "did you mean `wsc`?"]),
        (top("calibrate: {space: weights}"), &["known are `none`, `wsc`, `fsc`, `dsc`, `auto`"]),
        (top("calibrate: {space: wsc, manifold: MIXED}"), &["unknown manifold `MIXED`", "did you mean `mixed`?"]),
        (top("calibrate: {space: wsc, norm: 2}"), &["`norm` is a number, not text"]),
        (top("calibrate: {space: fsc, feature: {fit: both}}"), &["unknown fit `both`", "`magnitude`, `projection`"]),
        (top("calibrate: {space: fsc, feature: {samples: 0}}"), &["`samples` is 0"]),
        (top("calibrate: {space: fsc, data: [a, b]}"), &["2 calibration data sets for 1 experts"]),
    ];
    for (text, phrases) in cases {
        let words = refused(text);
        for phrase in *phrases {
            assert!(words.contains(phrase), "no `{phrase}` in: {words}\n{text}");
        }
    }
}

#[test]
fn data_stands_in_one_place() {
    let both =
        "merge_method: linear\nmodels: [{model: a, data: x}, {model: b}]\ncalibrate: {space: fsc, data: [y, z]}\n";
    assert!(refused(both).contains("beside a model"));
}

#[test]
fn attacks_are_refused() {
    let mut bomb = String::from("merge_method: linear\na0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..10 {
        let aliases = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb.push_str(&format!("a{level}: &a{level} [{aliases}]\n"));
    }
    assert!(refused(&bomb).contains("once its aliases are written out"));
    assert!(refused("merge_method: &a [*a]\n").contains("an anchor holds itself"));
    let flow = format!("merge_method: {}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(refused(&flow).starts_with("`r.yml:1`"));
    let block: String = (0..200).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
    assert!(refused(&block).contains("too deeply nested"));
    assert!(refused(&"#".repeat(5 << 20)).contains("larger than a recipe can be"));
}

#[test]
fn gradients_run_along_the_depth() {
    let recipe = read(recorded("gradient"));
    let weight = |model, tensor, t| number(&recipe, "weight", Some(model), tensor, t);
    // [0.1, 0.9, 0.4]
    near(weight(0, "model.embed_tokens.weight", 0.0), 0.1);
    near(weight(0, "x", 0.25), 0.5);
    near(weight(0, "x", 0.5), 0.9);
    near(weight(0, "x", 0.75), 0.65);
    near(weight(0, "x", 1.0), 0.4);
    // [0.2, 0.8] on the MLP, 0.1 elsewhere
    near(weight(1, "model.layers.1.mlp.up_proj.weight", 1.0 / 3.0), 0.4);
    near(weight(1, "model.layers.1.self_attn.q_proj.weight", 1.0 / 3.0), 0.1);
    near(weight(2, "x", 0.7), 0.2);
    // One point is a constant.
    let one = read("merge_method: linear\nmodels: [{model: a, parameters: {weight: [0.3]}}]\n");
    near(number(&one, "weight", Some(0), "x", 0.5), 0.3);
    near(number(&one, "weight", Some(0), "x", 1.0), 0.3);
}

#[test]
fn the_first_filter_that_matches_wins() {
    let slerp = read(SLERP);
    let t = |tensor, depth| number(&slerp, "t", None, tensor, depth);
    // Layers of a model of 4: t = 0, 1/3, 2/3, 1.
    near(t("model.layers.1.self_attn.q_proj.weight", 1.0 / 3.0), 0.5 * 2.0 / 3.0 + 0.3 / 3.0);
    near(t("model.layers.1.mlp.up_proj.weight", 1.0 / 3.0), 0.5 * 2.0 / 3.0 + 0.7 / 3.0);
    near(t("model.layers.3.mlp.up_proj.weight", 1.0), 0.0);
    near(t("model.norm.weight", 0.0), 0.5);
    near(t("model.layers.1.MLP.weight", 0.0), 0.5);

    let text = "merge_method: linear\nmodels: [{model: a, parameters: {weight: [{filter: '*', value: 1}, {filter: mlp, value: 2}]}}]\n";
    assert_eq!(number(&read(text), "weight", Some(0), "mlp", 0.0), Some(1.0));
}

#[test]
fn a_models_own_parameters_come_first() {
    let recipe = read(FULL);
    let weight = |model, tensor, t| number(&recipe, "weight", model, tensor, t);
    near(weight(Some(0), "x", 0.5), 0.5);
    near(weight(Some(1), "layers.0.mlp", 0.5), 0.25);
    near(weight(Some(1), "layers.0.norm", 0.5), 0.0);
    near(weight(Some(1), "head", 0.5), 1e-7);
    near(weight(None, "head", 0.5), 0.75);
    // A filter list that matches nothing falls through to the recipe's own, which here has none.
    near(number(&recipe, "density", Some(1), "attn", 0.0), 0.5);
    assert_eq!(number(&recipe, "density", Some(1), "mlp", 0.0), None);
    assert_eq!(number(&recipe, "epsilon", Some(1), "mlp", 0.0), None);
    let falls = "merge_method: linear\nmodels: [{model: a, parameters: {weight: [{filter: mlp, value: 2}]}}]\nparameters: {weight: 3}\n";
    assert_eq!(number(&read(falls), "weight", Some(0), "mlp", 0.0), Some(2.0));
    assert_eq!(number(&read(falls), "weight", Some(0), "attn", 0.0), Some(3.0));
}

#[test]
fn flags_words_and_numbers() {
    let recipe = read(
        "merge_method: ties\nmodels: [{model: a, parameters: {weight: true}}]\nparameters: {normalize: 0, rescale: l1, nuslerp_flatten: [{filter: mlp, value: false}, {value: true}]}\n",
    );
    assert_eq!(number(&recipe, "weight", Some(0), "x", 0.0), Some(1.0));
    assert_eq!(recipe.flag("normalize", None, "x").unwrap(), Some(false));
    assert_eq!(recipe.flag("nuslerp_flatten", None, "mlp").unwrap(), Some(false));
    assert_eq!(recipe.flag("nuslerp_flatten", None, "x").unwrap(), Some(true));
    assert_eq!(recipe.flag("filter_wise", None, "x").unwrap(), None);
    let yes = read("merge_method: no\nmodels: [{model: y}]\nparameters: {normalize: Yes, filter_wise: off}\n");
    assert_eq!((yes.method.as_str(), yes.models[0].model.as_str()), ("no", "y"), "names stay names");
    assert_eq!(yes.flag("normalize", None, "x").unwrap(), Some(true));
    assert_eq!(yes.flag("filter_wise", None, "x").unwrap(), Some(false));
    assert_eq!(recipe.text("rescale", None, "x").unwrap().as_deref(), Some("l1"));
    assert_eq!(recipe.text("normalize", None, "x").unwrap().as_deref(), Some("false"));
    assert!(words(&recipe.flag("rescale", None, "x").unwrap_err()).contains("`rescale` is text, not true or false"));
    assert!(words(&recipe.number("rescale", None, "x", 0.0).unwrap_err()).contains("`rescale` is text, not a number"));
    let mut by_hand = recipe;
    by_hand.models[0].params.insert("weight".to_owned(), Value::Text("x".to_owned()));
    let error = by_hand.number("weight", Some(0), "x", 0.0).unwrap_err();
    assert!(words(&error).contains("`weight` of `a` is text, not a number"));
}

#[test]
fn given_lists_every_parameter_that_can_matter() {
    let recipe = read(FULL);
    let given: Vec<_> = recipe.given().collect();
    let want = [
        ("lambda", None),
        ("normalize", None),
        ("rescale", None),
        ("weight", None),
        ("density", Some(0)),
        ("weight", Some(0)),
        ("density", Some(1)),
        ("weight", Some(1)),
    ];
    assert_eq!(given, want);
}

#[test]
fn depth_counts_layers_by_name() {
    let names = [
        "model.embed_tokens.weight",
        "model.layers.0.mlp.up_proj.weight",
        "model.layers.10.mlp.up_proj.weight",
        "model.layers.4.experts.63.weight",
        "vision.blocks.0.weight",
        "0.weight",
        "0.stack.2.weight",
        "odd..3.weight",
        "huge.99999999999999999999.weight",
        "lm_head.weight",
    ];
    let depth = Depth::new(names.into_iter());
    assert_eq!(depth.t("model.layers.0.mlp.up_proj.weight"), 0.0);
    assert_eq!(depth.t("model.layers.5.anything"), 0.5);
    assert_eq!(depth.t("model.layers.4.experts.63.weight"), 0.4);
    assert_eq!(depth.t("model.layers.10.mlp.up_proj.weight"), 1.0);
    assert_eq!(depth.t("vision.blocks.0.weight"), 1.0, "a lone layer");
    assert_eq!(depth.t("0.stack.1.weight"), 0.5, "an index needs something before it");
    assert_eq!(depth.t("odd..3.weight"), 1.0);
    for outside in ["model.embed_tokens.weight", "lm_head.weight", "0.weight", "other.3.weight", "", "..."] {
        assert_eq!(depth.t(outside), 0.0, "{outside}");
    }
    assert_eq!(depth.t("huge.99999999999999999999.weight"), 0.0);
}

#[test]
fn what_is_written_reads_back_the_same() {
    for text in RECORDED.iter().map(|(_, text)| *text).chain([FULL]) {
        let recipe = read(text);
        let written = recipe.to_yaml();
        assert_eq!(read(&written), recipe, "{written}");
        assert_eq!(read(&written).to_yaml(), written);
    }
    // Names and numbers that YAML likes to take for something else.
    let odd = [
        "no",
        "Yes",
        "null",
        "~",
        "1e5",
        "007",
        ".5",
        ".inf",
        "-",
        "a b",
        "a: b",
        "#x",
        "*x",
        "&x",
        "!x",
        "{",
        "a\"\\b",
        "tab\t",
        "new\nline",
        "\u{7f}\u{85}\u{2028}\u{feff}",
        "ü/名",
        "\u{1f600}",
        " lead",
        "0x10",
        "C:\\models",
        "a#b",
        "<<",
        "=",
        "--- x",
    ];
    let numbers = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.1,
        1e-7,
        -1.5e-300,
        1e15,
        1e16,
        2.5e20,
        f64::from(f32::MAX),
        f64::MIN_POSITIVE,
        1.0 / 3.0,
    ];
    let filters = odd.iter().map(|s| (Some((*s).to_owned()), Value::Number(0.5))).collect();
    let mut params = Params::new();
    params.insert("weight".to_owned(), Value::Filters(filters));
    params.insert("scale".to_owned(), Value::Gradient(numbers.to_vec()));
    let recipe = Recipe {
        method: "linear".to_owned(),
        models: odd.iter().map(|s| ModelEntry { model: (*s).to_owned(), params: params.clone(), data: None }).collect(),
        exclude: odd.map(str::to_owned).to_vec(),
        ..Recipe::default()
    };
    let back = read(&recipe.to_yaml());
    assert_eq!(back, recipe);
    let Value::Gradient(points) = &back.models[0].params["scale"] else { panic!("a gradient") };
    assert_eq!(points.iter().map(|x| x.to_bits()).collect::<Vec<_>>(), numbers.map(f64::to_bits));
}

#[test]
fn the_written_form_is_plain() {
    let want = "\
merge_method: ties
base_model: org/base
models:
  - model: ./a
    data: a.jsonl
    parameters:
      density: 0.25
      weight: [0, 0.5, 1]
  - model: ./b
    parameters:
      density:
        - filter: attn
          value: 0.5
      weight:
        - filter: mlp
          value: [1, -0.5]
        - filter: norm
          value: 0
        - value: 1.0e-7
parameters:
  int8_mask: true
  lambda: 1.2
  normalize: true
  rescale: inverse_density
  weight: 0.75
dtype: float32
out_dtype: bfloat16
calibrate:
  space: dsc
  manifold: sphere
  norm: l2
  feature: {fit: projection, norm: linf, samples: 32}
  data: calib.jsonl
  sensitive: [model.a.weight, model.b.weight]
  exclude: [\"*.classifier.*\"]
seed: 18446744073709551615
exclude: [\"lm_head.*\", \"*.bias\"]
";
    assert_eq!(read(FULL).to_yaml(), want);
    assert_eq!(
        read("merge_method: karcher\nmodels: [{model: a}]\nseed: 0\ncalibrate: {space: none}\nexclude: []\n").to_yaml(),
        "merge_method: karcher\nmodels:\n  - model: a\n"
    );
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|s| (*s).to_owned()).collect()
}

#[test]
fn the_quick_form_is_the_same_recipe() {
    let quick = Quick {
        base: Some("./base".to_owned()),
        models: strings(&["./a=0.5", "./lr=3e-5/run", "./lr=3e-5=-2"]),
        method: Some("dare_ties".to_owned()),
        params: strings(&[
            "density=[0.25, 1]",
            "normalize=true",
            "rescale=inverse_density",
            "lambda=0.8",
            "epsilon=0,0.5",
        ]),
        calibrate: Some("fsc".to_owned()),
        manifold: Some("tensor".to_owned()),
        norm: Some("linf".to_owned()),
        fit: Some("projection".to_owned()),
        samples: Some(5),
        propagate: Some("calibrated".to_owned()),
        data: strings(&["x", "y", "z"]),
        sensitive: Some("s.json".to_owned()),
        dtype: Some("bfloat16".to_owned()),
        seed: Some(7),
        exclude: strings(&["lm_head.*"]),
        non_finite: Some("propagate".to_owned()),
        lora_out: Some(8),
    };
    let file = read(
        "merge_method: dare_ties\nbase_model: ./base\nmodels:\n- model: ./a\n  parameters: {weight: 0.5}\n- model: ./lr=3e-5/run\n- model: ./lr=3e-5\n  parameters: {weight: -2}\nparameters: {density: [0.25, 1], normalize: true, rescale: inverse_density, lambda: 0.8, epsilon: [0, 0.5]}\ndtype: bfloat16\ncalibrate: {space: fsc, manifold: tensor, norm: linf, feature: {fit: projection, samples: 5, propagate: calibrated}, data: [x, y, z], sensitive: s.json}\nseed: 7\nexclude: [lm_head.*]\nnon_finite: propagate\nlora_out: 8\n",
    );
    assert_eq!(quick.recipe().unwrap(), file);
    assert_eq!(file.data_of(0), Some("x"));
    assert_eq!(file.data_of(2), Some("z"));
}

fn quick() -> Quick {
    Quick { models: strings(&["./a"]), method: Some("linear".to_owned()), ..Quick::default() }
}

#[test]
fn bad_quick_forms_say_what_is_wrong() {
    let flag = |s: &str| Some(s.to_owned());
    let cases: Vec<(Quick, &[&str])> = vec![
        (Quick::default(), &["nothing to merge", "`--model PATH`"]),
        (Quick { method: None, ..quick() }, &["no merge method", "`--method task_arithmetic`"]),
        (Quick { models: strings(&["=0.5"]), ..quick() }, &["names no path", "PATH=WEIGHT"]),
        (Quick { models: strings(&["./a=nan"]), ..quick() }, &["`weight` of `./a` is not a finite number"]),
        (Quick { models: strings(&["./a=inf"]), ..quick() }, &["not a finite number"]),
        (Quick { params: strings(&["lambda"]), ..quick() }, &["`--param lambda` has no value", "KEY=VALUE"]),
        (Quick { params: strings(&["lamda=1"]), ..quick() }, &["unknown parameter `lamda`", "did you mean `lambda`?"]),
        (Quick { params: strings(&["lambda=1", "lambda=2"]), ..quick() }, &["`--param lambda` is given twice"]),
        (Quick { params: strings(&["lambda=much"]), ..quick() }, &["`lambda` is text"]),
        (Quick { params: strings(&["lambda=[1,x]"]), ..quick() }, &["`lambda` holds `x` among numbers"]),
        (Quick { params: strings(&["lambda=[]"]), ..quick() }, &["among numbers"]),
        (Quick { params: strings(&["density=7"]), ..quick() }, &["`density` is 7, above 1"]),
        (Quick { calibrate: flag("wcs"), ..quick() }, &["`--calibrate`", "`wcs`", "did you mean `wsc`?"]),
        (Quick { manifold: flag("sphere"), ..quick() }, &["`--manifold` does nothing without calibration"]),
        (Quick { data: strings(&["x"]), ..quick() }, &["`--data` does nothing without calibration"]),
        (Quick { calibrate: flag("fsc"), data: strings(&["x", "y"]), ..quick() }, &["2 calibration data sets"]),
        (Quick { dtype: flag("fp8"), ..quick() }, &["`--dtype`", "`fp8` is no output dtype", "`bfloat16`"]),
    ];
    for (quick, phrases) in cases {
        let words = words(&quick.recipe().expect_err("refused"));
        for phrase in phrases {
            assert!(words.contains(phrase), "no `{phrase}` in: {words}");
        }
    }
    let looped = Quick { calibrate: flag("none"), manifold: flag("sphere"), ..quick() };
    assert_eq!(looped.recipe().unwrap().calibrate.manifold, Manifold::Sphere);
}

#[test]
fn flags_override_a_file() {
    let mut recipe = read(FULL);
    let flags = Quick {
        calibrate: Some("fsc".to_owned()),
        data: strings(&["p", "q"]),
        sensitive: Some("s.json".to_owned()),
        dtype: Some("float16".to_owned()),
        seed: Some(3),
        exclude: strings(&["x"]),
        ..Quick::default()
    };
    flags.override_recipe(&mut recipe).unwrap();
    assert_eq!(recipe.calibrate.space, Space::Fsc);
    assert_eq!(recipe.calibrate.manifold, Manifold::Sphere, "what no flag names stays");
    assert_eq!((recipe.data_of(0), recipe.data_of(1)), (Some("p"), Some("q")), "also in place of a model's own");
    assert_eq!(recipe.calibrate.sensitive, Sensitive::File("s.json".to_owned()));
    assert_eq!(recipe.output_dtype().unwrap(), Some("float16"));
    assert_eq!((recipe.seed, recipe.exclude.as_slice()), (3, strings(&["x"]).as_slice()));

    let before = recipe.clone();
    Quick::default().override_recipe(&mut recipe).unwrap();
    assert_eq!(recipe, before);

    let wrong = Quick { base: Some("b".to_owned()), params: strings(&["lambda=1"]), ..quick() };
    let words = words(&wrong.override_recipe(&mut recipe).unwrap_err());
    assert!(words.contains("`--base`, `--model`, `--method`, `--param` cannot be used with a recipe file"), "{words}");
}

#[test]
fn data_follows_the_experts() {
    let slerp = format!("{SLERP}calibrate: {{space: fsc, data: [x]}}\n");
    assert_eq!(read(&slerp).data_of(1), Some("x"));
    let listed = "merge_method: slerp\nbase_model: b\nmodels: [{model: b}, {model: e}, {model: f}]\ncalibrate: {space: fsc, data: [x, y]}\n";
    let recipe = read(listed);
    assert_eq!(recipe.experts().collect::<Vec<_>>(), [1, 2]);
    assert_eq!((recipe.data_of(0), recipe.data_of(1), recipe.data_of(2)), (None, Some("x"), Some("y")));
    let own = "merge_method: linear\nmodels: [{model: a, data: x}, {model: b}]\ncalibrate: {space: fsc, data: y}\n";
    assert_eq!((read(own).data_of(0), read(own).data_of(1)), (Some("x"), Some("y")));
    assert_eq!(read("merge_method: linear\nmodels: [{model: a}]\n").data_of(0), None);
}

#[test]
fn paths_start_here_or_beside_the_recipe() {
    let dir = std::env::temp_dir().join(format!("magic-recipe-{}", std::process::id()));
    std::fs::create_dir_all(dir.join("odd+name")).unwrap();
    assert_eq!(resolve("odd+name", Some(&dir)), dir.join("odd+name"));
    assert_eq!(resolve("odd+name", None), PathBuf::from("odd+name"));
    assert_eq!(resolve("Cargo.toml", Some(&dir)), PathBuf::from("Cargo.toml"), "the working directory comes first");
    assert_eq!(resolve("org/name", Some(&dir)), PathBuf::from("org/name"));
    assert_eq!(resolve("/nowhere", Some(Path::new("/x"))), PathBuf::from("/nowhere"));
    // A folder that is there is a model, whatever mergekit would read into its name.
    let file = dir.join("r.yml");
    let text = "merge_method: linear\nmodels: [{model: odd+name}]\n";
    assert!(Recipe::from_yaml(text, file.to_str().unwrap()).is_ok());
    std::fs::remove_dir_all(&dir).unwrap();
}
