"""Our config ↔ StudioGAN 0.2.0's (one JSON file).

Every key that its src/loader.py and src/worker.py read is written, with a placeholder if unused: 0.2.0 fails on missing
keys. The dataset is always `custom`, the name under which it finds the packed set. 0.2.0 has no LeCam; the shim adds
it. Its keys are ignored by stock 0.2.0: lc_* for the first seed's variant (gsrgan), 0.4.0's for the published one
(standard).
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
)

VERSION = "0.2.0"
DATA_KEYS = ("data_processing.dataset_name", "data_processing.img_size", "data_processing.num_classes")
LOSS = "train.loss_function"
SETTINGS = "train.training_and_sampling_setting"

TEMPLATE: dict[str, Any] = {
    "data_processing": {
        "dataset_name": "custom",
        "data_path": "./data/CUSTOM",
        "img_size": 64,
        "num_classes": 1,
        "batch_size4prcsing": 256,
        "chunk_size": 500,
        "compression": False,
    },
    "train": {
        "model": {
            "architecture": "resnet",
            "conditional_strategy": "no",
            "pos_collected_numerator": False,
            "hypersphere_dim": UNUSED,
            "nonlinear_embed": False,
            "normalize_embed": False,
            "g_spectral_norm": False,
            "d_spectral_norm": True,
            "activation_fn": "ReLU",
            "attention": False,
            "attention_after_nth_gen_block": UNUSED,
            "attention_after_nth_dis_block": UNUSED,
            "z_dim": 128,
            "shared_dim": UNUSED,
            "g_conv_dim": 64,
            "d_conv_dim": 64,
            "G_depth": UNUSED,
            "D_depth": UNUSED,
        },
        "optimization": {
            "optimizer": "Adam",
            "batch_size": 64,
            "accumulation_steps": 1,
            "d_lr": 2e-4,
            "g_lr": 2e-4,
            "momentum": UNUSED,
            "nesterov": UNUSED,
            "alpha": UNUSED,
            "beta1": 0.0,
            "beta2": 0.9,
            "g_steps_per_iter": 1,
            "d_steps_per_iter": 1,
            "total_step": 1,
        },
        "loss_function": {
            "adv_loss": "hinge",
            **dict.fromkeys(("contrastive_lambda", "margin", "tempering_type", "tempering_step"), UNUSED),
            **dict.fromkeys(("start_temperature", "end_temperature"), UNUSED),
            "weight_clipping_for_dis": False,
            "weight_clipping_bound": UNUSED,
            "gradient_penalty_for_dis": False,
            "gradient_penalty_lambda": UNUSED,
            "deep_regret_analysis_for_dis": False,
            "regret_penalty_lambda": UNUSED,
            "cr": False,
            "cr_lambda": UNUSED,
            "bcr": False,
            **dict.fromkeys(("real_lambda", "fake_lambda"), UNUSED),
            "zcr": False,
            **dict.fromkeys(("gen_lambda", "dis_lambda", "sigma_noise"), UNUSED),
        },
        "initialization": {"g_init": "ortho", "d_init": "ortho"},
        "training_and_sampling_setting": {
            "random_flip_preprocessing": True,
            "diff_aug": False,
            "ada": False,
            **dict.fromkeys(("ada_target", "ada_length"), UNUSED),
            "prior": "gaussian",
            "truncated_factor": 1,
            "latent_op": False,
            **dict.fromkeys(("latent_op_rate", "latent_op_step", "latent_op_step4eval"), UNUSED),
            **dict.fromkeys(("latent_op_alpha", "latent_op_beta", "latent_norm_reg_weight"), UNUSED),
            "ema": False,
            **dict.fromkeys(("ema_decay", "ema_start"), UNUSED),
        },
    },
}

ROWS = (
    Row("train.model.g_spectral_norm", "model.apply_g_sn", "bool"),
    Row("train.model.d_spectral_norm", "model.apply_d_sn", "bool"),
    Row("train.model.attention", "model.apply_attn", "bool"),
    Row("train.model.attention_after_nth_gen_block", "model.attn_g_loc", "int", "model.apply_attn"),
    Row("train.model.attention_after_nth_dis_block", "model.attn_d_loc", "int", "model.apply_attn"),
    Row("train.model.z_dim", "model.z_dim", "int"),
    Row("train.model.g_conv_dim", "model.g_conv_dim", "int"),
    Row("train.model.d_conv_dim", "model.d_conv_dim", "int"),
    Row("train.optimization.batch_size", "optim.batch_size", "int"),
    Row("train.optimization.accumulation_steps", "optim.acml_steps", "int"),
    Row("train.optimization.g_lr", "optim.g_lr", "float"),
    Row("train.optimization.d_lr", "optim.d_lr", "float"),
    Row("train.optimization.beta1", "optim.beta1", "float"),
    Row("train.optimization.beta2", "optim.beta2", "float"),
    Row("train.optimization.d_steps_per_iter", "optim.d_updates_per_step", "int"),
    Row("train.optimization.total_step", "optim.total_steps", "int"),
    Row(f"{LOSS}.adv_loss", "loss.adv_loss", "text"),
    Row(f"{LOSS}.gradient_penalty_for_dis", "loss.apply_gp", "bool"),
    Row(f"{LOSS}.gradient_penalty_lambda", "loss.gp_lambda", "float", "loss.apply_gp"),
    Row("train.initialization.g_init", "model.g_init", "text"),
    Row("train.initialization.d_init", "model.d_init", "text"),
    Row(f"{SETTINGS}.random_flip_preprocessing", "augment.apply_rflip", "bool"),
    Row(f"{SETTINGS}.diff_aug", "augment.apply_diffaug", "bool"),
    Row(f"{SETTINGS}.ema", "model.apply_g_ema", "bool"),
    Row(f"{SETTINGS}.ema_decay", "model.g_ema_decay", "float", "model.apply_g_ema"),
    Row(f"{SETTINGS}.ema_start", "model.g_ema_start", "int", "model.apply_g_ema"),
)
# Our loss.lecam_type → the switch, and the values.
LECAM_SWITCH = {"gsrgan": f"{LOSS}.lc_regularizer", "standard": f"{LOSS}.apply_lecam"}
LECAM_ROWS = {
    "gsrgan": (
        Row(f"{LOSS}.lc_lambda", "loss.lecam_lambda", "float"),
        Row(f"{LOSS}.lc_gamma", "loss.lecam_ema_decay", "float"),
    ),
    "standard": (
        Row(f"{LOSS}.lecam_lambda", "loss.lecam_lambda", "float"),
        Row(f"{LOSS}.lecam_ema_decay", "loss.lecam_ema_decay", "float"),
        Row(f"{LOSS}.lecam_ema_start_iter", "loss.lecam_ema_start_iter", "int"),
    ),
}
FIXED: Fixed = {
    "train.model.architecture": ("resnet", "architecture {}"),
    "train.model.pos_collected_numerator": (False, "ContraGAN (pos_collected_numerator)"),
    "train.model.nonlinear_embed": (False, "nonlinear_embed"),
    "train.model.normalize_embed": (False, "normalize_embed"),
    "train.model.activation_fn": ("ReLU", "activation {}"),
    "train.optimization.optimizer": ("Adam", "optimizer {}"),
    "train.optimization.g_steps_per_iter": (1, "several generator updates in a step"),
    f"{LOSS}.weight_clipping_for_dis": (False, "weight clipping"),
    f"{LOSS}.deep_regret_analysis_for_dis": (False, "deep regret analysis (DRA)"),
    f"{LOSS}.cr": (False, "consistency regularisation (cr)"),
    f"{LOSS}.bcr": (False, "balanced consistency regularisation (bcr)"),
    f"{LOSS}.zcr": (False, "latent consistency regularisation (zcr)"),
    f"{SETTINGS}.ada": (False, "adaptive augmentation (ada)"),
    f"{SETTINGS}.prior": ("gaussian", "prior {}"),
    f"{SETTINGS}.truncated_factor": (1, "truncation"),
    f"{SETTINGS}.latent_op": (False, "latent optimisation (latent_op)"),
}
STRATEGIES = {"no": (None, None), "ProjGAN": ("cBN", "PD")}  # conditional_strategy → g_cond_mtd, d_cond_mtd


def config_to_020(config: Config, num_classes: int) -> dict[str, Any]:
    """The JSON content. UserError lists everything that 0.2.0 does not support."""
    refuse_unsupported(config, VERSION, _own_problems(config))
    values: dict[str, Any] = {
        "data_processing.img_size": config.data.img_size[0],
        "data_processing.num_classes": num_classes,
        "train.model.conditional_strategy": "ProjGAN" if config.model.conditional else "no",
    }
    rows = ROWS
    if config.loss.apply_lecam:
        values[LECAM_SWITCH[config.loss.lecam_type]] = True
        rows += LECAM_ROWS[config.loss.lecam_type]
    return render(config, TEMPLATE, rows, values)


def _own_problems(config: Config) -> list[str]:
    if config.loss.adv_loss != "vanilla":
        return []
    allowed = "hinge, least_square or wasserstein (its vanilla is another function)"
    return [f"loss.adv_loss: found vanilla, allowed {allowed}, try --set studiogan.version=0.4.0"]


def config_from_020(content: Any, name: str, origin: str) -> Config:
    """Our config from a JSON file's content over base.yaml. UserError lists every key that is missing, unknown or of
    the wrong kind, and every unsupported feature."""
    lecam_keys = [*LECAM_SWITCH.values(), *(row.theirs for rows in LECAM_ROWS.values() for row in rows)]
    own = {key.rpartition(".")[2]: False for key in lecam_keys}
    loss = {**TEMPLATE["train"]["loss_function"], **own}
    template = {**TEMPLATE, "train": {**TEMPLATE["train"], "loss_function": loss}}
    foreign = ForeignConfig(content, template, optional=lecam_keys)
    foreign.refuse_features(FIXED)
    values = foreign.read_rows(ROWS)
    if values.get("loss.adv_loss") == "vanilla":
        feature = "adv_loss vanilla as 0.2.0 has it, log s(1 - D(G(z))) for log(1 - s(D(G(z))))"
        foreign.refuse(f"{LOSS}.adv_loss", "hinge, least_square or wasserstein", feature)
    values |= _conditioning(foreign) | _lecam(foreign)
    return foreign.to_config(values, DATA_KEYS, VERSION, name, origin)


def _conditioning(foreign: ForeignConfig) -> dict[str, Any]:
    key = "train.model.conditional_strategy"
    strategy = foreign.read(key, "text")
    if strategy is not None and strategy not in STRATEGIES:
        foreign.refuse(key, "no or ProjGAN", "conditional_strategy {}")
    g_cond_mtd, d_cond_mtd = STRATEGIES.get(strategy or "no", (None, None))
    return {"model.g_cond_mtd": g_cond_mtd, "model.d_cond_mtd": d_cond_mtd}


def _lecam(foreign: ForeignConfig) -> dict[str, Any]:
    kinds = [kind for kind, key in LECAM_SWITCH.items() if foreign.read(key, "bool")]
    if len(kinds) > 1:
        foreign.refuse(LECAM_SWITCH["gsrgan"], "one of lc_regularizer and apply_lecam", "two LeCam variants at once")
    if not kinds:
        return {"loss.apply_lecam": False}
    lacking = [row.theirs for row in LECAM_ROWS[kinds[0]] if row.theirs not in foreign.values]
    if lacking:
        foreign.problems.append(f"missing keys of LeCam: {', '.join(lacking)}")
    values = foreign.read_rows(LECAM_ROWS[kinds[0]])
    return {"loss.apply_lecam": True, "loss.lecam_type": kinds[0], **values}
