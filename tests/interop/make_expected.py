"""Writes `expected/*.json` with `transformers`, and prints how far our logits are from its: read, and exported.

PYTHONPATH=. python tests/interop/make_expected.py
"""

import json
import pathlib
import tempfile

import numpy as np
import safetensors
import torch
import transformers
from published_families import CASES, EXPECTED, TOKENS, case_arguments, our_logits, random_tensor, write_case
from safetensors.numpy import save_file

from plum_jax.interop.pretrained import export_hugging_face, read_pretrained


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


def differences(case):
    """Largest difference of our logits from those of `transformers`, on what it saved and on what we export."""
    with tempfile.TemporaryDirectory() as directory:
        theirs, exported = write_case(case, pathlib.Path(directory, "theirs")), pathlib.Path(directory, "exported")
        read = read_pretrained(theirs)
        ours = our_logits(read.config, read.params)
        export_hugging_face(exported, read.config, read.params)
        return [np.abs(ours - transformers_logits(path)).max() for path in (theirs, exported)]


if __name__ == "__main__":
    EXPECTED.mkdir(exist_ok=True)
    print(f"{'family':12}{'largest logit':>14}{'read':>10}{'exported':>10}")
    for case in CASES:
        made = make(case)
        (EXPECTED / f"{case}.json").write_text(json.dumps(made) + "\n")
        read, exported = differences(case)
        print(f"{case:12}{np.abs(made['logits']).max():14.1f}{read:10.1e}{exported:10.1e}")
