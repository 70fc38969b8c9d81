"""Our config ↔ StudioGAN 0.4.0's (one YAML file).

Every key of its src/config.py is written, unused ones with its default, so that nothing depends on the checkout's
defaults. The dataset is `custom`; num_classes 1 means unconditional.
"""

from typing import Any

from harness.config.experiment import Config
from harness.studiogan.dialects.table import (
    UNUSED,
    Fixed,
    ForeignConfig,
    Row,
    refuse_unsupported,
    render,
    shown,
)

VERSION = "0.4.0"
WITHOUT = "W/O"

# As in src/config.py, except the name of the data.
TEMPLATE: dict[str, Any] = {
    "DATA": {"name": "custom", "img_size": 32, "num_classes": 10, "img_channels": 3},
    "MODEL": {
        "backbone": "resnet",
        "g_cond_mtd": WITHOUT,
        "d_cond_mtd": WITHOUT,
        "aux_cls_type": WITHOUT,
        "normalize_d_embed": False,
        "d_embed_dim": UNUSED,
        "apply_g_sn": False,
        "apply_d_sn": False,
        "g_act_fn": "ReLU",
        "d_act_fn": "ReLU",
        "apply_attn": False,
        "attn_g_loc": [UNUSED],
        "attn_d_loc": [UNUSED],
        "z_prior": "gaussian",
        "z_dim": 128,
        **dict.fromkeys(("w_dim", "g_shared_dim"), UNUSED),
        "g_conv_dim": 64,
        "d_conv_dim": 64,
        **dict.fromkeys(("g_depth", "d_depth"), UNUSED),
        "apply_g_ema": False,
        **dict.fromkeys(("g_ema_decay", "g_ema_start"), UNUSED),
        "g_init": "ortho",
        "d_init": "ortho",
        **dict.fromkeys(("info_type", "g_info_injection", "info_num_discrete_c", "info_num_conti_c"), UNUSED),
        "info_dim_discrete_c": UNUSED,
    },
    "LOSS": {
        "adv_loss": "vanilla",
        **dict.fromkeys(("cond_lambda", "tac_gen_lambda", "tac_dis_lambda", "mh_lambda"), UNUSED),
        "apply_fm": False,
        "fm_lambda": UNUSED,
        "apply_r1_reg": False,
        **dict.fromkeys(("r1_place", "r1_lambda", "m_p", "temperature"), UNUSED),
        "apply_wc": False,
        "wc_bound": UNUSED,
        "apply_gp": False,
        "gp_lambda": UNUSED,
        "apply_dra": False,
        "dra_lambda": UNUSED,
        "apply_maxgp": False,
        "maxgp_lambda": UNUSED,
        "apply_cr": False,
        "cr_lambda": UNUSED,
        "apply_bcr": False,
        **dict.fromkeys(("real_lambda", "fake_lambda"), UNUSED),
        "apply_zcr": False,
        **dict.fromkeys(("radius", "g_lambda", "d_lambda"), UNUSED),
        "apply_lo": False,
        **dict.fromkeys(("lo_alpha", "lo_beta", "lo_rate", "lo_lambda", "lo_steps4train", "lo_steps4eval"), UNUSED),
        "apply_topk": False,
        **dict.fromkeys(("topk_gamma", "topk_nu"), UNUSED),
        **dict.fromkeys(("infoGAN_loss_discrete_lambda", "infoGAN_loss_conti_lambda"), UNUSED),
        "apply_lecam": False,
        **dict.fromkeys(("lecam_lambda", "lecam_ema_start_iter", "lecam_ema_decay"), UNUSED),
    },
    "OPTIMIZATION": {
        "type_": "Adam",
        "batch_size": 64,
        "acml_steps": 1,
        "g_lr": 0.0002,
        "d_lr": 0.0002,
        "g_weight_decay": 0.0,
        "d_weight_decay": 0.0,
        **dict.fromkeys(("momentum", "nesterov", "alpha"), UNUSED),
        "beta1": 0.5,
        "beta2": 0.999,
        "d_first": True,
        "g_updates_per_step": 1,
        "d_updates_per_step": 5,
        "total_steps": 100000,
    },
    "PRE": {"apply_rflip": True},
    "AUG": {
        "apply_diffaug": False,
        "apply_ada": False,
        **dict.fromkeys(("ada_initial_augment_p", "ada_target", "ada_kimg", "ada_interval"), UNUSED),
        "apply_apa": False,
        **dict.fromkeys(("apa_initial_augment_p", "apa_target", "apa_kimg", "apa_interval"), UNUSED),
        **dict.fromkeys(("cr_aug_type", "bcr_aug_type", "diffaug_type", "ada_aug_type"), WITHOUT),
    },
    "STYLEGAN": {
        "stylegan3_cfg": UNUSED,
        "cond_type": ["PD", "SPD", "2C", "D2DCE"],
        **dict.fromkeys(("g_reg_interval", "d_reg_interval", "mapping_network", "style_mixing_p"), UNUSED),
        **dict.fromkeys(("g_ema_kimg", "g_ema_rampup"), UNUSED),
        "apply_pl_reg": False,
        **dict.fromkeys(("pl_weight", "d_architecture", "d_epilogue_mbstd_group_size", "blur_init_sigma"), UNUSED),
    },
}

ROWS = (
    Row("MODEL.apply_g_sn", "model.apply_g_sn", "bool"),
    Row("MODEL.apply_d_sn", "model.apply_d_sn", "bool"),
    Row("MODEL.apply_attn", "model.apply_attn", "bool"),
    Row("MODEL.attn_g_loc", "model.attn_g_loc", "place", "model.apply_attn"),
    Row("MODEL.attn_d_loc", "model.attn_d_loc", "place", "model.apply_attn"),
    Row("MODEL.z_dim", "model.z_dim", "int"),
    Row("MODEL.g_conv_dim", "model.g_conv_dim", "int"),
    Row("MODEL.d_conv_dim", "model.d_conv_dim", "int"),
    Row("MODEL.g_init", "model.g_init", "text"),
    Row("MODEL.d_init", "model.d_init", "text"),
    Row("MODEL.apply_g_ema", "model.apply_g_ema", "bool"),
    Row("MODEL.g_ema_decay", "model.g_ema_decay", "float", "model.apply_g_ema"),
    Row("MODEL.g_ema_start", "model.g_ema_start", "int", "model.apply_g_ema"),
    Row("LOSS.adv_loss", "loss.adv_loss", "text"),
    Row("LOSS.apply_gp", "loss.apply_gp", "bool"),
    Row("LOSS.gp_lambda", "loss.gp_lambda", "float", "loss.apply_gp"),
    Row("LOSS.apply_lecam", "loss.apply_lecam", "bool"),
    Row("LOSS.lecam_lambda", "loss.lecam_lambda", "float", "loss.apply_lecam"),
    Row("LOSS.lecam_ema_start_iter", "loss.lecam_ema_start_iter", "int", "loss.apply_lecam"),
    Row("LOSS.lecam_ema_decay", "loss.lecam_ema_decay", "float", "loss.apply_lecam"),
    Row("OPTIMIZATION.batch_size", "optim.batch_size", "int"),
    Row("OPTIMIZATION.acml_steps", "optim.acml_steps", "int"),
    Row("OPTIMIZATION.g_lr", "optim.g_lr", "float"),
    Row("OPTIMIZATION.d_lr", "optim.d_lr", "float"),
    Row("OPTIMIZATION.beta1", "optim.beta1", "float"),
    Row("OPTIMIZATION.beta2", "optim.beta2", "float"),
    Row("OPTIMIZATION.d_updates_per_step", "optim.d_updates_per_step", "int"),
    Row("OPTIMIZATION.total_steps", "optim.total_steps", "int"),
    Row("PRE.apply_rflip", "augment.apply_rflip", "bool"),
    Row("AUG.apply_diffaug", "augment.apply_diffaug", "bool"),
)
FIXED: Fixed = {
    "DATA.img_channels": (3, "pictures of {} channels"),
    "MODEL.backbone": ("resnet", "backbone {}"),
    "MODEL.aux_cls_type": (WITHOUT, "auxiliary classifier {}"),
    "MODEL.normalize_d_embed": (False, "normalize_d_embed"),
    "MODEL.g_act_fn": ("ReLU", "activation {}"),
    "MODEL.d_act_fn": ("ReLU", "activation {}"),
    "MODEL.z_prior": ("gaussian", "prior {}"),
    "MODEL.info_type": (UNUSED, "InfoGAN"),
    "LOSS.apply_fm": (False, "feature matching (apply_fm)"),
    "LOSS.apply_r1_reg": (False, "R1 regularisation (apply_r1_reg)"),
    "LOSS.apply_wc": (False, "weight clipping"),
    "LOSS.apply_dra": (False, "deep regret analysis (DRA)"),
    "LOSS.apply_maxgp": (False, "maximum gradient penalty (apply_maxgp)"),
    "LOSS.apply_cr": (False, "consistency regularisation (cr)"),
    "LOSS.apply_bcr": (False, "balanced consistency regularisation (bcr)"),
    "LOSS.apply_zcr": (False, "latent consistency regularisation (zcr)"),
    "LOSS.apply_lo": (False, "latent optimisation (latent_op)"),
    "LOSS.apply_topk": (False, "top-k training"),
    "OPTIMIZATION.type_": ("Adam", "optimizer {}"),
    "OPTIMIZATION.g_weight_decay": (0.0, "weight decay"),
    "OPTIMIZATION.d_weight_decay": (0.0, "weight decay"),
    "OPTIMIZATION.d_first": (True, "the generator's update before the discriminator's"),
    "OPTIMIZATION.g_updates_per_step": (1, "several generator updates in a step"),
    "AUG.apply_ada": (False, "adaptive augmentation (ada)"),
    "AUG.apply_apa": (False, "adaptive pseudo augmentation (apa)"),
}
CONDITIONING = {(WITHOUT, WITHOUT): (None, None), ("cBN", "PD"): ("cBN", "PD")}


def config_to_040(config: Config, num_classes: int) -> dict[str, Any]:
    """The YAML content. UserError lists everything that 0.4.0 does not support."""
    refuse_unsupported(config, VERSION, _own_problems(config))
    conditional, diffaug = config.model.conditional, config.augment.apply_diffaug
    values = {
        "DATA.img_size": config.data.img_size[0],
        "DATA.num_classes": num_classes,
        "MODEL.g_cond_mtd": "cBN" if conditional else WITHOUT,
        "MODEL.d_cond_mtd": "PD" if conditional else WITHOUT,
        "AUG.diffaug_type": "diffaug" if diffaug else WITHOUT,
    }
    return render(config, TEMPLATE, ROWS, values)


def _own_problems(config: Config) -> list[str]:
    if not config.loss.apply_lecam or config.loss.lecam_type == "standard":
        return []
    return [f"loss.lecam_type: found {config.loss.lecam_type}, allowed standard, try --set studiogan.version=0.2.0"]


def config_from_040(content: Any, name: str, origin: str) -> Config:
    """Our config from a YAML file's content: missing keys have 0.4.0's defaults, keys that 0.4.0 does not have those of
    base.yaml. UserError lists unknown keys, wrong kinds, and every unsupported feature."""
    foreign = ForeignConfig(content, TEMPLATE, optional=None)
    foreign.refuse_features(FIXED)
    values = foreign.read_rows(ROWS)
    if values.get("loss.adv_loss") in ("logistic", "MH"):
        allowed = "hinge" if values["loss.adv_loss"] == "MH" else "vanilla (the same function)"
        foreign.refuse("LOSS.adv_loss", allowed, "adv_loss {}")
    values |= _conditioning(foreign) | {"loss.lecam_type": "standard"}
    if values["augment.apply_diffaug"] and foreign.values["AUG.diffaug_type"] != "diffaug":
        foreign.refuse(
            "AUG.diffaug_type", "diffaug", "diffaug_type " + shown(foreign.values["AUG.diffaug_type"]).strip("'")
        )
    return foreign.to_config(values, ("DATA.name", "DATA.img_size", "DATA.num_classes"), VERSION, name, origin)


def _conditioning(foreign: ForeignConfig) -> dict[str, Any]:
    g_key, d_key = "MODEL.g_cond_mtd", "MODEL.d_cond_mtd"
    g_found, d_found = foreign.read(g_key, "text"), foreign.read(d_key, "text")
    known = True
    for key, found, allowed in ((g_key, g_found, (WITHOUT, "cBN")), (d_key, d_found, (WITHOUT, "PD"))):
        if found is not None and found not in allowed:
            known = False
            foreign.refuse(key, " or ".join(allowed), key.partition(".")[2] + " {}")
    if known and (g_found == WITHOUT) != (d_found == WITHOUT):
        foreign.refuse(d_key, "PD with cBN, W/O with W/O", f"g_cond_mtd {g_found} with d_cond_mtd {d_found}")
    g_cond_mtd, d_cond_mtd = CONDITIONING.get((g_found, d_found), (None, None))
    return {"model.g_cond_mtd": g_cond_mtd, "model.d_cond_mtd": d_cond_mtd}
