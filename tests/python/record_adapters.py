#!/usr/bin/env python3
"""Record what PEFT makes of adapters, for tests/lora.rs.

    python3 tests/python/record_adapters.py

Needs torch, transformers, peft and safetensors; recorded with torch 2.15, transformers 5.24, peft 0.21 on the CPU.
In tests/golden/adapters a base is a folder with `model.safetensors`; an adapter one with `adapter/`, as PEFT saves it,
and `merged.safetensors`, what `merge_and_unload` gives. Factors are random, and large enough to be seen.
"""

import json
import shutil
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

OUT = Path(__file__).parent.parent / "golden" / "adapters"
warnings.simplefilter("ignore")


def llama(tied=False):
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32, tie_word_embeddings=tied, attention_bias=True,
    )
    return LlamaForCausalLM(config)


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=24, n_positions=16, n_embd=8, n_layer=1, n_head=2))


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(6, 5, 3)
        self.point = nn.Conv2d(5, 4, 1)
        self.head = nn.Linear(4, 3)


def parameters(model):
    """Without the second name of a tied tensor."""
    seen, tensors = set(), {}
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() in seen or not tensor.is_floating_point():
            continue
        seen.add(tensor.data_ptr())
        tensors[name] = tensor.detach().clone().contiguous()
    return tensors


def record(name, make, seed, base=None, **config):
    """A base (once for each kind of model), an adapter of random factors and what `merge_and_unload` gives."""
    torch.manual_seed(7)
    model = make()
    kind = base or name
    if not (OUT / kind).exists():
        (OUT / kind).mkdir(parents=True)
        save_file(parameters(model), OUT / kind / "model.safetensors", {"format": "pt"})
        if hasattr(model, "config"):
            text = model.config.to_json_string()
            (OUT / kind / "config.json").write_text(text)
    torch.manual_seed(seed)
    model = get_peft_model(model, LoraConfig(**config))
    with torch.no_grad():
        for key, value in model.named_parameters():
            if "lora_" in key or value.requires_grad:
                value.add_(0.2 * torch.randn_like(value))
    folder = OUT / name
    model.save_pretrained(folder / "adapter")
    (folder / "adapter" / "README.md").unlink(missing_ok=True)
    config = folder / "adapter" / "adapter_config.json"
    kept = json.loads(config.read_text())
    kept["base_model_name_or_path"] = kind
    config.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    merged = model.merge_and_unload()
    save_file(parameters(merged), folder / "merged.safetensors", {"format": "pt"})
    print(name, sorted(parameters(merged))[:2])


def main():
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    all_linear = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    record("plain", llama, 1, base="llama", r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    record("second", llama, 2, base="llama", r=3, lora_alpha=3, target_modules=["q_proj", "down_proj"])
    record("rslora", llama, 3, base="llama", r=4, lora_alpha=6, use_rslora=True, target_modules=all_linear)
    record(
        "patterns", llama, 4, base="llama", r=4, lora_alpha=8, target_modules=all_linear,
        rank_pattern={"layers.1.self_attn.q_proj": 2, "up_proj": 5, r"^model.layers.\d.mlp.down_proj": 3},
        alpha_pattern={"self_attn.v_proj|k_proj": 3, "layers.0.mlp.up_proj": 1},
    )
    record(
        "embedding", llama, 5, base="llama", r=2, lora_alpha=5, target_modules=["embed_tokens", "q_proj", "lm_head"],
    )
    record(
        "saved", llama, 6, base="llama", r=2, lora_alpha=2, target_modules=["q_proj"], modules_to_save=["lm_head"],
        bias="lora_only",
    )
    record("fan", gpt2, 7, base="gpt2", r=2, lora_alpha=4, target_modules=["c_attn", "c_proj", "c_fc"], fan_in_fan_out=True)
    record("conv", Conv, 8, base="convs", r=2, lora_alpha=3, target_modules=["conv", "point", "head"])


main()
