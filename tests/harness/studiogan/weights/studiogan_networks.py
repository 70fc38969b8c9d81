"""Run by StudioGAN's interpreter: its own networks and loaders on exported files, and what comes out of them.

python studiogan_networks.py JOB.json       (src/ of the checkout is the working directory)
"""

import json
import sys
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


def networks_020(model: dict[str, Any]) -> tuple[Any, Any, Any]:
    """(Generator, another for the average, Discriminator) of 0.2.0."""
    misc = ModuleType("utils.misc")  # it would import training and evaluation
    misc.dummy_context_mgr = nullcontext  # type: ignore[attr-defined]
    sys.modules["utils.misc"] = misc
    from models import resnet  # type: ignore[import-not-found]

    same = {
        "img_size": model["size"], "attention": model["attention"], "activation_fn": "ReLU",
        "conditional_strategy": "ProjGAN" if model["classes"] else "no", "num_classes": model["classes"],
        "initialize": "ortho", "mixed_precision": False,
    }  # fmt: skip
    generators = [
        resnet.Generator(
            z_dim=model["z_dim"], shared_dim=None, g_conv_dim=model["g_conv_dim"], g_spectral_norm=model["g_sn"],
            attention_after_nth_gen_block=model["g_loc"], G_depth=None, **same,
        )
        for _ in range(2)
    ]  # fmt: skip
    discriminator = resnet.Discriminator(
        d_conv_dim=model["d_conv_dim"], d_spectral_norm=model["d_sn"], attention_after_nth_dis_block=model["d_loc"],
        hypersphere_dim=None, nonlinear_embed=False, normalize_embed=False, D_depth=None, **same,
    )  # fmt: skip
    return *generators, discriminator


def networks_040(model: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The same of 0.4.0, whose own config class makes the layers."""
    kornia = ModuleType("kornia.filters")
    kornia.get_gaussian_kernel2d = kornia.filter2d = None  # type: ignore[attr-defined]
    sys.modules |= {"kornia": ModuleType("kornia"), "kornia.filters": kornia, "wandb": ModuleType("wandb")}
    config = import_module("config")
    from models import resnet  # type: ignore[import-not-found]

    path = Path("config-of-the-test.yaml")
    cfgs = config.Configurations.__new__(config.Configurations)
    cfgs.cfg_file = str(path)
    cfgs.load_base_cfgs()
    m = cfgs.MODEL
    m.apply_g_sn, m.apply_d_sn, m.info_type, m.g_info_injection = model["g_sn"], model["d_sn"], "N/A", "N/A"
    m.g_cond_mtd, m.d_cond_mtd = ("cBN", "PD") if model["classes"] else ("W/O", "W/O")
    cfgs.define_modules()
    same = {
        "img_size": model["size"], "apply_attn": model["attention"], "num_classes": max(1, model["classes"]),
        "mixed_precision": False, "MODULES": cfgs.MODULES, "MODEL": m,
    }  # fmt: skip
    generators = [
        resnet.Generator(
            z_dim=model["z_dim"], g_shared_dim="N/A", g_conv_dim=model["g_conv_dim"], attn_g_loc=[model["g_loc"]],
            g_cond_mtd=m.g_cond_mtd, g_init="ortho", g_depth="N/A", **same,
        )
        for _ in range(2)
    ]  # fmt: skip
    discriminator = resnet.Discriminator(
        d_conv_dim=model["d_conv_dim"], apply_d_sn=model["d_sn"], attn_d_loc=[model["d_loc"]],
        d_cond_mtd=m.d_cond_mtd, aux_cls_type="W/O", d_embed_dim="N/A", normalize_d_embed=False, d_init="ortho",
        d_depth="N/A", **same,
    )  # fmt: skip
    return *generators, discriminator


def load_020(g: Any, average: Any, d: Any, adams: list[Any], files: Path) -> dict[str, Any]:
    from utils.load_checkpoint import load_checkpoint  # type: ignore[import-not-found]

    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]  # it moves the moments there
    first = {
        letter: next(files.glob(f"model={letter}-current-weights-step*.pth"), None) for letter in ("G", "G_ema", "D")
    }
    _, _, seed, run_name, step, _ = load_checkpoint(g, adams[0], first["G"])
    _, _, seed, run_name, step, ada_p, best_step, best_fid, _ = load_checkpoint(d, adams[1], first["D"], metric=True)
    if first["G_ema"]:
        load_checkpoint(average, None, first["G_ema"], ema=True)
    return {"seed": seed, "run_name": run_name, "step": step, "best_step": best_step, "best_fid": best_fid}


def load_040(g: Any, average: Any, d: Any, adams: list[Any], files: Path) -> dict[str, Any]:
    from utils import ckpt  # type: ignore[import-not-found]

    torch.Tensor.cuda = lambda self, *_, **__: self  # type: ignore[method-assign]
    has_average = any(files.glob("model=G_ema-*"))
    run = SimpleNamespace(freezeD=-1, seed=42)
    run_name, step, _, _, _, best_step, best_fid, _, lecam, _ = ckpt.load_StudioGAN_ckpts(
        str(files), False, g, d, adams[0], adams[1], "new", has_average, average, SimpleNamespace(), True, run, None, 0,
        "cpu", "",
    )  # fmt: skip
    return {
        "seed": run.seed, "run_name": run_name, "step": step, "best_step": best_step, "best_fid": best_fid,
        "lecam": {key: lecam[key] for key in ("D_real", "D_fake")},
    }  # fmt: skip


def moments_by_name(network: Any, adam: Any) -> dict[str, Any]:
    state = {name: adam.state[parameter] for name, parameter in network.named_parameters()}
    return {
        f"{name}/{key}": s[key].clone() for name, s in state.items() for key in ("step", "exp_avg", "exp_avg_sq") if s
    }


def update(g: Any, d: Any, adams: list[Any], z: Any, y: Any) -> None:
    """One joint update in training mode: a number for every parameter of both."""
    g.train()
    d.train()
    logits = d(g(z, y), y)
    logits = logits["adv_output"] if isinstance(logits, dict) else logits
    logits.square().mean().backward()
    for adam in adams:
        adam.step()


def save_040(g: Any, average: Any, d: Any, adams: list[Any], facts: dict[str, Any], folder: Path) -> None:
    """As its worker saves."""
    one = {"state_dict": g.state_dict(), "optimizer": adams[0].state_dict()}
    other = {
        "state_dict": d.state_dict(), "optimizer": adams[1].state_dict(), **facts, "epoch": 0, "topk": 4, "aa_p": "N/A",
        "best_fid_ckpt": str(folder), "lecam_emas": {"D_real": 0.5, "D_fake": -0.5},
    }  # fmt: skip
    for letter, content in (("G", one), ("D", other), ("G_ema", {"state_dict": average.state_dict()})):
        torch.save(content, folder / f"model={letter}-current-weights-step={facts['step']}.pth")


def save_020(g: Any, average: Any, d: Any, adams: list[Any], facts: dict[str, Any], folder: Path) -> None:
    import numpy as np

    general = {**{key: facts[key] for key in ("seed", "run_name", "step", "best_step")}, "ada_p": "No"}
    one = {**general, "state_dict": g.state_dict(), "optimizer": adams[0].state_dict()}
    other = {
        **general, "state_dict": d.state_dict(), "optimizer": adams[1].state_dict(), "best_fid": np.float64(9.5),
        "best_fid_checkpoint_path": str(folder),
    }  # fmt: skip
    for letter, content in (("G", one), ("D", other), ("G_ema", {"state_dict": average.state_dict()})):
        torch.save(content, folder / f"model={letter}-current-weights-step={facts['step']}.pth")


def work(job: dict[str, Any]) -> None:
    torch.manual_seed(1)
    is_020, model, out = job["version"] == "0.2.0", job["model"], Path(job["out"])
    g, average, d = (networks_020 if is_020 else networks_040)(model)
    adams = [torch.optim.Adam(n.parameters(), 2e-4, (0.0, 0.9), eps=1e-6) for n in (g, d)]
    given = torch.load(job["inputs"], weights_only=True)
    facts = (load_020 if is_020 else load_040)(g, average, d, adams, Path(job["files"]))
    result: dict[str, Any] = {"facts": facts}
    result["moments"] = {"G": moments_by_name(g, adams[0]), "D": moments_by_name(d, adams[1])}
    with torch.no_grad():
        for network in (g, average, d):
            network.eval()
        result["pictures"], result["average"] = g(given["z"], given["y"]), average(given["z"], given["y"])
        logits = d(given["x"], given["y"])
        result["logits"] = logits["adv_output"] if isinstance(logits, dict) else logits
    update(g, d, adams, given["z"], given["y"])
    result["after"] = {"G": g.state_dict(), "D": d.state_dict()}
    saved = {**{key: facts[key] for key in ("seed", "run_name", "best_step", "best_fid")}, "step": facts["step"] + 1}
    (save_020 if is_020 else save_040)(g, average, d, adams, saved, out)
    result["moments_after"] = {"G": moments_by_name(g, adams[0]), "D": moments_by_name(d, adams[1])}
    torch.save(result, out / "result.pt")


def main() -> None:
    sys.path.insert(0, ".")
    torch.set_num_threads(1)
    for job in json.loads(Path(sys.argv[1]).read_text()):
        work(job)


if __name__ == "__main__":
    main()
