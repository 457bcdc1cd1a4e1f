"""Writes `expected/*.json` with `transformers`: python tests/interop/make_expected.py"""

import json
import pathlib
import tempfile

import safetensors
import torch
import transformers
from published_families import CASES, EXPECTED, TOKENS, case_arguments, random_tensor
from safetensors.numpy import save_file


def make(case):
    """What `transformers` saves of the family, and the logits of the directory with our weights in it."""
    arguments = case_arguments(case)
    config = transformers.AutoConfig.for_model(**arguments)
    with tempfile.TemporaryDirectory() as directory:
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(directory)
        file = f"{directory}/model.safetensors"
        with safetensors.safe_open(file, "numpy") as tensors:
            shapes = {name: tensors.get_slice(name).get_shape() for name in tensors.keys()}  # noqa: SIM118
        save_file({n: random_tensor(n, s) for n, s in shapes.items()}, file, metadata={"format": "pt"})
        logits = transformers_logits(directory)
        saved = json.loads(pathlib.Path(directory, "config.json").read_text())
    return {"config": saved, "shapes": shapes, "logits": logits.round(6).tolist()}


def transformers_logits(directory):
    """float32 `[B, T, V]`, with the plain attention, which has every family's soft caps and windows."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        directory, attn_implementation="eager", dtype=torch.float32
    )
    with torch.no_grad():
        return model.eval()(torch.as_tensor(TOKENS)).logits.double().numpy()


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    for case in CASES:
        (EXPECTED / f"{case}.json").write_text(json.dumps(make(case)) + "\n")
        print(case)
