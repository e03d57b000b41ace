#!/usr/bin/env python3
"""Record what PyTorch makes of small models of every variant that src/forward knows, for tests/architectures.rs.

    python3 tests/python/record_forward.py [CASE …]        (all cases without arguments)

Needs torch, transformers, numpy and safetensors; recorded with torch 2.15, transformers 5.23 on the CPU.
Every case is a folder in tests/golden/architectures:

  config.json            written by hand as files on the hub have it, old keys included
  model.safetensors      random parameters under the names that files on the hub have, mostly in bfloat16
  task.safetensors       `input_ids.I` or `pixel_values`, and `labels` for classifiers
  expected.safetensors   `I`: last hidden state of sample I, run alone in float32; `loss` and `accuracy` over all
                         samples where there is a head

The model is loaded from that folder, so that the configuration is read by both sides. Parameters are normal of
standard deviation 0.2, from numpy's PCG64 seeded with the CRC-32 of the case's name; those of normalisations have 1
added. The towers of open_clip are run by a reference in this file.
"""

import json
import shutil
import sys
import tempfile
import zlib
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_file, save_file

OUT = Path(__file__).resolve().parents[1] / "golden/architectures"
LENGTHS = [1, 5, 9, 14]
VOCAB, HIDDEN, INNER = 41, 40, 28


def decoder(model_type, **keys):
    config = {
        "model_type": model_type, "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 32, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "bos_token_id": 1, "eos_token_id": 2,
    }
    return {key: value for key, value in (config | keys).items() if value != "absent"}


def encoder(model_type, **keys):
    config = {
        "model_type": model_type, "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER,
        "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-12,
        "max_position_embeddings": 32, "type_vocab_size": 2, "pad_token_id": 0,
        "id2label": {str(i): f"LABEL_{i}" for i in range(5)}, "label2id": {f"LABEL_{i}": i for i in range(5)},
    }
    return {key: value for key, value in (config | keys).items() if value != "absent"}


def vision(model_type, **keys):
    config = {
        "model_type": model_type, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": 2,
        "num_attention_heads": 4, "image_size": 12, "patch_size": 4, "num_channels": 3,
    }
    return {key: value for key, value in (config | keys).items() if value != "absent"}


LABELS = {"id2label": {str(i): f"LABEL_{i}" for i in range(5)}, "label2id": {f"LABEL_{i}": i for i in range(5)}}
LM = {name: f"{name.capitalize()}ForCausalLM" for name in ("llama", "mistral", "qwen2", "qwen3")}
ORIGINAL = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16}

# case -> (class, config.json, how the parameters are stored)
CASES = {
    "mistral_window": (LM["mistral"], decoder("mistral", sliding_window=4), "bf16"),
    "mistral_null_window": (LM["mistral"], decoder("mistral", sliding_window=None), "bf16"),
    "llama_linear": (LM["llama"], decoder("llama", rope_scaling={"type": "linear", "factor": 3.0}), "bf16"),
    "llama_dynamic": (
        LM["llama"],
        decoder("llama", rope_scaling={"type": "dynamic", "factor": 4.0}, max_position_embeddings=10), "bf16",
    ),
    "llama_rope_llama3": (
        LM["llama"], decoder("llama", rope_scaling={"rope_type": "llama3"} | ORIGINAL, rope_theta=5e3), "bf16",
    ),
    # A base of its own, wide heads, biases everywhere, as many keys left out as can be.
    "llama_bias": (
        LM["llama"],
        decoder("llama", attention_bias=True, mlp_bias=True, head_dim=16, rope_theta=500.0, rope_scaling=None,
                num_key_value_heads=1, tie_word_embeddings="absent", rms_norm_eps="absent"), "f16",
    ),
    "llama_all_heads": (
        LM["llama"], decoder("llama", num_key_value_heads="absent", rope_theta="absent", hidden_act="gelu"), "bf16",
    ),
    "qwen2_max_window_layers": (
        LM["qwen2"], decoder("qwen2", use_sliding_window=True, sliding_window=5, max_window_layers=1), "bf16",
    ),
    "qwen2_unused_window": (
        LM["qwen2"], decoder("qwen2", use_sliding_window=False, sliding_window=5, max_window_layers=0), "bf16",
    ),
    "qwen2_layer_types": (
        LM["qwen2"],
        decoder("qwen2", use_sliding_window=True, sliding_window=3, max_window_layers=2,
                layer_types=["sliding_attention", "full_attention"]), "bf16",
    ),
    "qwen3_tied": (LM["qwen3"], decoder("qwen3", head_dim=12, attention_bias=False), "bf16"),
    "bert_classifier": ("BertForSequenceClassification", encoder("bert", position_embedding_type="absolute"), "bf16"),
    "bert_masked_lm": (
        "BertForMaskedLM", encoder("bert", hidden_act="gelu_new", type_vocab_size="absent"), "bf16",
    ),
    # The names of normalisations in the first files of BERT.
    "bert_gamma_beta": ("BertModel", encoder("bert", hidden_act="relu"), "bf16"),
    "roberta_classifier": (
        "RobertaForSequenceClassification", encoder("roberta", pad_token_id=1, type_vocab_size=1), "bf16",
    ),
    # Positions count from another padding token; the file has a pooler that the classifier passes by.
    "roberta_pooler": (
        "RobertaForSequenceClassification",
        encoder("roberta", pad_token_id=3, max_position_embeddings=30, hidden_act="gelu_fast"), "f16",
    ),
    "bert_tokens": ("BertForTokenClassification", encoder("bert"), "bf16"),
    "vit_classifier": ("ViTForImageClassification", vision("vit", hidden_act="gelu") | LABELS, "bf16"),
    "vit_rectangle": (
        "ViTForImageClassification",
        vision("vit", image_size=[14, 9], qkv_bias=False, hidden_act="gelu_new", layer_norm_eps=1e-6) | LABELS, "bf16",
    ),
    "clip": (
        "CLIPModel",
        {"model_type": "clip", "projection_dim": 12, "logit_scale_init_value": 2.6592,
         "text_config": {"model_type": "clip_text_model", "vocab_size": 20, "hidden_size": 16, "intermediate_size": 8,
                         "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 8,
                         "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1, "hidden_act": "relu"},
         "vision_config": vision("clip_vision_model", hidden_act="quick_gelu", num_channels="absent")}, "f16",
    ),
    "clip_projection": (
        "CLIPVisionModelWithProjection",
        vision("clip_vision_model", projection_dim=12, hidden_act="gelu", layer_norm_eps=1e-3), "bf16",
    ),
    "clip_classifier": (
        "CLIPForImageClassification",
        {"model_type": "clip", "vision_config": vision("clip_vision_model")} | LABELS, "bf16",
    ),
    "open_clip_quick": ("open_clip", None, "bf16"),
    "open_clip_gelu": (
        "open_clip",
        {"model_cfg": {"embed_dim": 12, "vision_cfg": {"image_size": 12, "layers": 2, "width": 40, "head_width": 10,
                                                       "patch_size": 4}, "text_cfg": {"width": 16}}}, "f16",
    ),
}
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def random(rng, shape):
    return torch.from_numpy(rng.normal(0.0, 0.2, tuple(shape)).astype(np.float32))


def parameters(rng, shapes, dtype):
    def one(name, shape):
        is_norm = "norm" in name.lower() or "layrnorm" in name or ".ln_" in name
        around = 1.0 if is_norm and name.endswith((".weight", ".gamma")) else 0.0
        return (random(rng, shape) + around).to(dtype).contiguous()

    return {name: one(name, shape) for name, shape in sorted(shapes.items())}


class ResidualAttentionBlock(torch.nn.Module):
    def __init__(self, width, heads, inner, act):
        super().__init__()
        self.attn = torch.nn.MultiheadAttention(width, heads, batch_first=True)
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        self.mlp = torch.nn.ModuleDict({"c_fc": torch.nn.Linear(width, inner), "c_proj": torch.nn.Linear(inner, width)})
        self.act = act

    def forward(self, x):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp["c_proj"](self.act(self.mlp["c_fc"](self.ln_2(x))))


class Tower(torch.nn.Module):
    """The vision tower of CLIP as OpenAI's code and open_clip's have it, without what comes after the blocks."""

    def __init__(self, layers, width, heads, inner, rows, act):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, width, 4, 4, bias=False)
        self.class_embedding = torch.nn.Parameter(torch.zeros(width))
        self.positional_embedding = torch.nn.Parameter(torch.zeros(rows, width))
        self.ln_pre, self.ln_post = torch.nn.LayerNorm(width), torch.nn.LayerNorm(width)
        blocks = [ResidualAttentionBlock(width, heads, inner, act) for _ in range(layers)]
        self.transformer = torch.nn.ModuleDict({"resblocks": torch.nn.ModuleList(blocks)})
        self.proj = torch.nn.Parameter(torch.zeros(width, 12))

    def forward(self, pixels):
        x = self.conv1(pixels).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(x.shape[0], 1, -1)
        x = self.ln_pre(torch.cat([first, x], 1) + self.positional_embedding)
        for block in self.transformer["resblocks"]:
            x = block(x)
        return x


def open_clip(case, config, folder, rng, dtype):
    quick = config is None
    act = (lambda x: x * torch.sigmoid(1.702 * x)) if quick else torch.nn.functional.gelu
    # Heads are of 64 where nothing says otherwise: two of them.
    model = Tower(1, 128, 2, 12, 5, act) if quick else Tower(2, HIDDEN, 4, INNER, 10, act)
    model = torch.nn.ModuleDict({"visual": model})
    stored = parameters(rng, {name: value.shape for name, value in model.state_dict().items()}, dtype)
    # A text tower beside it, of the same names.
    text = {"transformer.resblocks.0.attn.in_proj_weight": (48, 16), "positional_embedding": (8, 16)}
    save_file(stored | parameters(rng, text, dtype), folder / "model.safetensors", {"format": "pt"})
    model.load_state_dict({name: value.float() for name, value in stored.items()})
    if config:
        (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    side = 8 if quick else 12
    pixels = torch.from_numpy(rng.normal(0.0, 1.0, (3, 3, side, side)).astype(np.float32))
    save_file({"pixel_values": pixels}, folder / "task.safetensors")
    return {str(i): model["visual"](pixels[i : i + 1])[0] for i in range(3)}


def hub_names(case, tensors):
    """What save_pretrained wrote, after a look that it wrote the names that files on the hub have."""
    wanted = {"vit": "vit.encoder.layer.0.attention.attention.query.weight",
              "clip": "vision_model.encoder.layers.0.mlp.fc1.weight"}.get(case.split("_")[0])
    assert wanted is None or wanted in tensors, list(tensors)
    if case == "bert_gamma_beta":
        swap = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        for new, old in swap.items():
            tensors = {name.replace(new, old): value for name, value in tensors.items()}
    return tensors


def hugging_face(case, kind, config, folder, rng, dtype):
    architecture = getattr(transformers, kind)
    (folder / "config.json").write_text(json.dumps({"architectures": [kind]} | config, indent=2) + "\n")
    with tempfile.TemporaryDirectory() as scratch:
        made = architecture.config_class.from_pretrained(folder)
        architecture(made).save_pretrained(scratch)
        names = hub_names(case, load_file(Path(scratch) / "model.safetensors"))
    shapes = {name: value.shape for name, value in names.items()}
    stored = parameters(rng, shapes, dtype)
    extra = {}
    if case == "roberta_pooler":
        pooler = {"roberta.pooler.dense.weight": (HIDDEN, HIDDEN), "roberta.pooler.dense.bias": (HIDDEN,)}
        extra = parameters(rng, pooler, dtype)
    save_file(stored | extra, folder / "model.safetensors", {"format": "pt"})
    model, report = architecture.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    assert set(report["unexpected_keys"]) <= set(extra), report
    model.eval()

    expected, task, logits = {}, {}, []
    images = "pixel_values" in model.main_input_name or "clip" in case
    if images:
        vision = config.get("vision_config", config)
        size = vision["image_size"]
        height, width = size if isinstance(size, list) else (size, size)
        pixels = torch.from_numpy(rng.normal(0.0, 1.0, (3, 3, height, width)).astype(np.float32))
        task["pixel_values"] = pixels
        samples = list(pixels.split(1))
    else:
        samples = [torch.from_numpy(rng.integers(4, VOCAB, (1, length))) for length in LENGTHS]
        if case == "roberta_pooler":  # elsewhere no padding token is in a sample
            samples[2][0, [2, 3, 8]] = config["pad_token_id"]
        task |= {f"input_ids.{i}": sample[0] for i, sample in enumerate(samples)}
    run = model.vision_model if kind == "CLIPModel" else model
    for i, sample in enumerate(samples):
        hidden = {}
        parts = ("model", "bert", "roberta", "vit", "vision_model")
        inner = run if run is not model else next((getattr(model, p) for p in parts if hasattr(model, p)), model)
        hook = inner.register_forward_hook(lambda _, __, out: hidden.update(last=out.last_hidden_state))
        out = run(sample)
        hook.remove()
        expected[str(i)] = hidden["last"][0]
        logits.append(getattr(out, "logits", None))

    if kind.endswith("ForCausalLM"):
        rows = torch.cat([of[0, :-1] for of in logits]).double()
        targets = torch.cat([sample[0, 1:] for sample in samples])
    elif kind.endswith(("SequenceClassification", "ImageClassification")):
        rows = torch.cat(logits).double()
        targets = rows.argmax(1)
        targets[1] = (targets[1] + 1) % rows.shape[1]
        task["labels"] = targets
    else:
        rows = None
    if rows is not None:
        expected["loss"] = torch.nn.functional.cross_entropy(rows, targets).float().reshape(1)
        expected["accuracy"] = (rows.argmax(1) == targets).float().mean().reshape(1)
    save_file(task, folder / "task.safetensors")
    return expected


@torch.no_grad()
def main():
    torch.manual_seed(0)
    for case in sys.argv[1:] or CASES:
        kind, config, stored = CASES[case]
        folder = OUT / case
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rng = np.random.default_rng(zlib.crc32(case.encode()))
        if kind == "open_clip":
            expected = open_clip(case, config, folder, rng, DTYPES[stored])
        else:
            expected = hugging_face(case, kind, config, folder, rng, DTYPES[stored])
        assert all(value.isfinite().all() for value in expected.values())
        save_file({name: value.contiguous() for name, value in expected.items()}, folder / "expected.safetensors")
        print(case, {name: float(value) for name, value in expected.items() if value.numel() == 1})


if __name__ == "__main__":
    main()
