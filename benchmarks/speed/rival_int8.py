"""sentence-transformers' OpenVINO backend in int8, for `benchmarks.speed.ways`, if it installs.

It needs ``optimum-intel`` and ``datasets``; optimum-intel 2.2 needs transformers below 5.6, so that it has no place in
the environment that this project is tested in. One with it:

    pip install sentence-transformers==6.2.0 optimum-intel==2.2.0 datasets nncf 'transformers<5.6' '.[demo,train]'
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

CALIBRATION_TOKENS = 384  # what sentence-transformers' own export pads to


def sentence_transformers_int8(
    folder: Path, calibration: list[tuple[str, str]]
) -> Callable[[list[str], list[str]], np.ndarray] | None:
    """``CrossEncoder(backend="openvino")`` on its statically quantised export; None where it does not install.

    ``export_static_quantized_openvino_model`` takes its calibration from a data set on the hub. This does what it does
    (sentence-transformers 6.2), with the pairs that our own int8 is calibrated on.
    """
    if missing := [name for name in ("optimum", "datasets") if importlib.util.find_spec(name) is None]:
        print(f"sentence-transformers' int8 is left out: no {' and no '.join(missing)} here", file=sys.stderr)
        return None
    os.environ["HF_DATASETS_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] = "1"
    import datasets
    from optimum.intel.openvino import OVConfig, OVQuantizationConfig, OVQuantizer
    from sentence_transformers import CrossEncoder

    with tempfile.TemporaryDirectory() as name:
        exported = CrossEncoder(str(folder), backend="openvino", model_kwargs={"export": True})
        exported.save_pretrained(name)
        padded = {"padding": "max_length", "max_length": CALIBRATION_TOKENS, "truncation": True}
        encoded = [dict(exported.tokenizer(*pair, **padded, return_token_type_ids=False)) for pair in calibration]
        OVQuantizer.from_pretrained(exported.transformers_model).quantize(
            datasets.Dataset.from_list(encoded),
            save_directory=Path(name) / "int8",
            ov_config=OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(calibration))),
        )
        for suffix in ("xml", "bin"):
            target = Path(name) / "openvino" / f"openvino_model_qint8_quantized.{suffix}"
            (Path(name) / "int8" / "openvino" / f"openvino_model.{suffix}").rename(target)
        model = CrossEncoder(
            name,
            backend="openvino",
            model_kwargs={"file_name": "openvino_model_qint8_quantized.xml"},
            activation_fn=torch.nn.Identity(),
        )

    def score(queries: list[str], texts: list[str]) -> np.ndarray:
        pairs = list(zip(queries, texts, strict=True))
        return np.asarray(model.predict(pairs, show_progress_bar=False), dtype=np.float32)

    return score
