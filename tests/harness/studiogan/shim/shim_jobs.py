"""Working folders for the shim: random pictures, a tiny SNGAN + DiffAug (+ LeCam) in both dialects, JOB.json."""

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from tests.conftest import ROOT

SHIM = ROOT / "harness" / "studiogan" / "shim" / "main.py"
SIZE = 32
LECAM = {"type": "standard", "lambda": 0.3, "ema_decay": 0.9, "start_iter": 2}
OPTIMIZER = {"g_lr": 2e-4, "d_lr": 4e-4, "beta1": 0.0, "beta2": 0.9}
OTHER_OPTIMIZER = {"g_lr": 1e-5, "d_lr": 2e-5, "beta1": 0.5, "beta2": 0.99}

OFF_020 = (
    "pos_collected_numerator nonlinear_embed normalize_embed g_spectral_norm attention weight_clipping_for_dis "
    "gradient_penalty_for_dis deep_regret_analysis_for_dis cr bcr zcr ada latent_op"
).split()
UNUSED_020 = (
    "hypersphere_dim attention_after_nth_gen_block attention_after_nth_dis_block shared_dim G_depth D_depth momentum "
    "nesterov alpha contrastive_lambda margin tempering_type tempering_step start_temperature end_temperature "
    "weight_clipping_bound gradient_penalty_lambda regret_penalty_lambda cr_lambda real_lambda fake_lambda gen_lambda "
    "dis_lambda sigma_noise ada_target ada_length latent_op_rate latent_op_step latent_op_step4eval latent_op_alpha "
    "latent_op_beta latent_norm_reg_weight"
).split()
TRAIN_020 = {
    "architecture": "resnet", "conditional_strategy": "no", "d_spectral_norm": True, "activation_fn": "ReLU",
    "z_dim": 16, "g_conv_dim": 8, "d_conv_dim": 8, "optimizer": "Adam", "batch_size": 8, "accumulation_steps": 1,
    "g_lr": 2e-4, "d_lr": 4e-4, "beta1": 0, "beta2": 0.9, "g_steps_per_iter": 1, "d_steps_per_iter": 2,
    "total_step": 1000, "adv_loss": "hinge", "g_init": "ortho", "d_init": "ortho", "random_flip_preprocessing": True,
    "diff_aug": True, "prior": "gaussian", "truncated_factor": 1, "ema": True, "ema_decay": 0.9, "ema_start": 4,
}  # fmt: skip
SETTINGS_040 = {
    "DATA": {"name": "cars", "img_size": SIZE, "num_classes": 1},
    "MODEL": {
        "backbone": "resnet", "g_cond_mtd": "W/O", "d_cond_mtd": "W/O", "apply_d_sn": True, "z_dim": 16,
        "g_conv_dim": 8, "d_conv_dim": 8, "apply_g_ema": True, "g_ema_decay": 0.9, "g_ema_start": 4,
    },
    "LOSS": {
        "adv_loss": "hinge", "apply_lecam": True, "lecam_lambda": 0.3, "lecam_ema_start_iter": 2, "lecam_ema_decay": 0.9
    },
    "OPTIMIZATION": {
        "type_": "Adam", "batch_size": 8, "acml_steps": 1, "g_lr": 2e-4, "d_lr": 4e-4, "beta1": 0.0, "beta2": 0.9,
        "d_updates_per_step": 2, "total_steps": 1000,
    },
    "PRE": {"apply_rflip": True},
    "AUG": {"apply_diffaug": True, "diffaug_type": "diffaug"},
}  # fmt: skip


@dataclass
class Ran:
    """What one start of the shim left: stdout, stderr."""

    out: str
    err: str

    def events(self, word: str) -> list[dict[str, str]]:
        """The facts of every line `carforge: <word> key=value ...`."""
        lines = [line.split() for line in self.out.splitlines() if line.startswith(f"carforge: {word} ")]
        return [dict(pair.split("=", 1) for pair in line[2:]) for line in lines]

    def losses(self) -> dict[int, float]:
        """D's loss as logged, by step."""
        lines = [line.split() for line in self.out.splitlines() if " > Step: " in line]
        mark = "Discriminator_loss:" if lines and "Discriminator_loss:" in lines[0] else "Dis_loss:"
        return {int(line[line.index("Step:") + 1]): float(line[line.index(mark) + 1]) for line in lines}


def config_text(version: str) -> str:
    if version == "0.4.0":
        return json.dumps(SETTINGS_040)  # which is YAML too
    data = {"dataset_name": "custom", "data_path": "./data/CUSTOM", "img_size": SIZE, "num_classes": 1}
    data |= {"batch_size4prcsing": 64, "chunk_size": 64, "compression": False}
    train = dict.fromkeys(OFF_020, False) | dict.fromkeys(UNUSED_020, "N/A") | TRAIN_020
    # main.py reads two keys by their section; everything else is flattened.
    return json.dumps({"data_processing": data, "train": {"model": train, "optimization": train}})


def write_pictures(folder: Path, version: str, count: int = 48) -> None:
    data = folder / "data" / "CUSTOM"
    (data / "valid" / "car").mkdir(parents=True)
    imgs = np.random.default_rng(0).integers(0, 256, (count, 3, SIZE, SIZE), dtype=np.uint8)
    name = f"custom_{SIZE}_train.hdf5" if version == "0.2.0" else f"cars_{SIZE}_wo_resize_train.hdf5"
    with h5py.File(data / name, "w") as file:
        file["imgs"] = imgs if version == "0.2.0" else imgs.transpose(0, 2, 3, 1)
        file["labels"] = np.zeros(count, dtype=np.int64)
    for i in range(2):
        Image.fromarray(imgs[i].transpose(1, 2, 0)).save(data / "valid" / "car" / f"{i}.png")


def make_job(folder: Path, checkout: Path, version: str = "0.2.0", source: Path | None = None, **changes: Any) -> Path:
    """A working folder with everything the shim wants. `source`: a saved folder, copied as the engine does."""
    folder.mkdir(parents=True)
    write_pictures(folder, version)
    config = "config.json" if version == "0.2.0" else "config.yaml"
    (folder / config).write_text(config_text(version))
    if source is not None:
        shutil.copytree(source, folder / "source")
    job = {
        "checkout": str(checkout), "version": version, "config": config, "device": "cpu",
        "processes": 1, "threads": 1, "seed": 42, "checkpoint": "source" if source else None, "freeze_layers": None,
        "first_step": 0, "last_step": 6, "save_every": 4, "print_every": 1, "optimizer": OPTIMIZER, "lecam": LECAM,
        "evaluate": False, "num_workers": 0, "sync_bn": False,
    } | changes  # fmt: skip
    (folder / "JOB.json").write_text(json.dumps(job))
    return folder


def make_checked_folder(tmp_path: Path) -> Path:
    """A working folder with a job of steps 4 to 7 that goes on from a checkpoint; the checkout is not one to be run."""
    checkout, source = tmp_path / "StudioGAN", tmp_path / "saved"
    (checkout / "src").mkdir(parents=True)
    (checkout / "src" / "main.py").write_text("raise AssertionError('not to be run')\n")
    source.mkdir()
    (source / "model=D-current-weights-step=4.pth").touch()
    return make_job(tmp_path / "work", checkout, source=source, first_step=4, last_step=7)


def change_job(folder: Path, **changes: Any) -> Path:
    path = folder / "JOB.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return path


def start_shim(python: Path, folder: Path) -> "subprocess.Popen[str]":
    """stdout is read by the caller; stderr goes to a file."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder / "stderr").open("w") as stderr:
        return subprocess.Popen(
            [str(python), "-u", str(SHIM), "JOB.json"], cwd=folder, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
        )  # fmt: skip


def run_shim(python: Path, folder: Path, code: int = 0) -> Ran:
    """A start that ends with this exit code."""
    process = start_shim(python, folder)
    out, _ = process.communicate()
    ran = Ran(out, (folder / "stderr").read_text())
    assert process.returncode == code, ran.err
    return ran
