"""Makes metrics.json: what torch-fidelity 0.4.0 and StudioGAN 0.2.0 compute of metrics_case.py. Only numbers are kept.

From the repository's root, with what `make studiogan` leaves, and torch-fidelity in a folder of its own
(`.venv-studiogan/bin/python -m pip install --no-deps --target FOLDER torch-fidelity==0.4.0`):
    python -m tests.golden.make_metrics_golden FOLDER
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from harness.studiogan.checkout import find_checkout, find_python
from tests.golden import metrics_case as case
from tests.harness.features.inception_weights import write_weights

TORCH_FIDELITY = f"""
import importlib.metadata, json, sys, numpy as np, torch
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import isc_features_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
given = {{name: torch.tensor(array) for name, array in np.load(sys.argv[1]).items()}}
real, fake = given["real"], given["fake"]
out = {{"version": importlib.metadata.version("torch-fidelity")}}
out |= fid_statistics_to_metric(fid_features_to_statistics(fake), fid_features_to_statistics(real), False)
out |= kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=len(real), verbose=False)
out |= isc_features_to_metric(given["logits"], splits=1, shuffle=False)
for k in {case.PRC_NEIGHBOURS}:
    out[f"prc_{{k}}"] = prc_features_to_metric(fake, real, prc_neighborhood=k, verbose=False)
print(json.dumps(out))
"""

# Arguments: checkout, weights, pictures.npy, out.npz. Pictures as its data loader hands them on: floats in [-1, 1].
STUDIOGAN_INCEPTION = """
import sys, numpy as np, torch
checkout, weights, pictures, out = sys.argv[1:]
sys.path.insert(0, checkout + "/src")
from metrics import inception_network
inception_network.load_state_dict_from_url = lambda url, progress: torch.load(weights, weights_only=True)
network = inception_network.InceptionV3().eval()
x = (torch.tensor(np.load(pictures)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.5
with torch.no_grad():
    features, logits = network(x)
np.savez(out, features=features.numpy(), logits=logits.numpy())
"""


def studiogan_inception(weights: Path, pictures: np.ndarray, python: Path, folder: Path) -> dict[str, np.ndarray]:
    """features (N, 2048) and logits (N, 1008) of StudioGAN's own network with these weights."""
    np.save(folder / "pictures.npy", pictures)
    arguments = [find_checkout(), weights, folder / "pictures.npy", folder / "out.npz"]
    _run([str(python), "-c", STUDIOGAN_INCEPTION, *map(str, arguments)])
    with np.load(folder / "out.npz") as out:
        return {name: out[name] for name in ("features", "logits")}


def main(torch_fidelity: Path) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, python = Path(name), find_python()
        np.savez(folder / "given.npz", **case.feature_sets())  # type: ignore[arg-type]
        command = [str(python), "-c", TORCH_FIDELITY, str(folder / "given.npz")]
        golden = {"torch_fidelity": json.loads(_run(command, PYTHONPATH=str(torch_fidelity)))}
        weights = write_weights(folder / "drawn.pth", case.WEIGHTS_SEED)
        seen = studiogan_inception(weights, case.pictures(), python, folder)
        golden["studiogan_inception"] = {
            "features": seen["features"][:, case.SHOWN_FEATURES].tolist(),
            "logits": seen["logits"][:, case.SHOWN_LOGITS].tolist(),
        }
    golden = {"note": "made by make_metrics_golden.py of metrics_case.py", **golden}
    Path(__file__).with_name("metrics.json").write_text(json.dumps(golden, indent=1) + "\n")


def _run(command: list[str], **env: str) -> str:
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env})
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


if __name__ == "__main__":
    main(Path(sys.argv[1]))
