"""StudioGAN 0.2.0's JSON: complete, the first seed's values, every published file read back or refused by name."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.experiment import Config
from harness.errors import UserError
from harness.studiogan.checkout import find_checkout
from harness.studiogan.dialects.convert import config_to_text, read_foreign
from harness.studiogan.dialects.v020 import config_from_020, config_to_020
from tests.harness.studiogan.dialects.dialect_cases import (
    GARBAGE,
    HUGE,
    any_config,
    assert_only_user_errors,
    flat,
    leaves,
    meaning,
    not_covered,
    read_published,
    replaced,
)
from tests.harness.tiny_runs import make_config

DATA_KEYS = "dataset_name data_path img_size num_classes batch_size4prcsing chunk_size compression"
MODEL_KEYS = """architecture conditional_strategy pos_collected_numerator hypersphere_dim nonlinear_embed
    normalize_embed g_spectral_norm d_spectral_norm activation_fn attention attention_after_nth_gen_block
    attention_after_nth_dis_block z_dim shared_dim g_conv_dim d_conv_dim G_depth D_depth"""
OPTIMIZATION_KEYS = """optimizer batch_size accumulation_steps d_lr g_lr momentum nesterov alpha beta1 beta2
    g_steps_per_iter d_steps_per_iter total_step"""
LOSS_KEYS = """adv_loss contrastive_lambda margin tempering_type tempering_step start_temperature end_temperature
    weight_clipping_for_dis weight_clipping_bound gradient_penalty_for_dis gradient_penalty_lambda
    deep_regret_analysis_for_dis regret_penalty_lambda cr cr_lambda bcr real_lambda fake_lambda zcr gen_lambda
    dis_lambda sigma_noise"""
SETTING_KEYS = """random_flip_preprocessing diff_aug ada ada_target ada_length prior truncated_factor latent_op
    latent_op_rate latent_op_step latent_op_step4eval latent_op_alpha latent_op_beta latent_norm_reg_weight ema
    ema_decay ema_start"""
# The published recipe of the first seed: what its JSON said, by the JSON's own keys.
SEED: dict[str, Any] = {
    "dataset_name": "cars", "img_size": 128, "architecture": "resnet", "conditional_strategy": "no",
    "g_spectral_norm": False, "d_spectral_norm": True, "activation_fn": "ReLU", "attention": False, "z_dim": 128,
    "g_conv_dim": 64, "d_conv_dim": 64, "optimizer": "Adam", "batch_size": 128, "accumulation_steps": 1,
    "g_lr": 0.0005, "d_lr": 0.0002, "beta1": 0.0, "beta2": 0.9, "g_steps_per_iter": 1, "d_steps_per_iter": 2,
    "total_step": 60000, "adv_loss": "hinge", "lc_regularizer": True, "lc_lambda": 0.3, "lc_gamma": 0.99,
    "g_init": "ortho", "d_init": "ortho", "random_flip_preprocessing": True, "diff_aug": True, "ada": False,
    "prior": "gaussian", "truncated_factor": 1, "latent_op": False, "ema": False,
}  # fmt: skip
# How the pictures come to it: ours always lie ready as `custom`.
TRANSPORT = {"dataset_name", "data_path", "batch_size4prcsing", "chunk_size", "compression"}


PLAIN = config_to_020(make_config("loss.apply_lecam=false"), 1)


def leaf_values(content: dict[str, Any]) -> dict[str, Any]:
    """As StudioGAN sees it: all sections in one."""
    return {key.rpartition(".")[2]: value for key, value in flat(content).items()}


def a_file(**values: Any) -> dict[str, Any]:
    """A file made for 0.2.0, with some leaves changed."""
    content = deepcopy(PLAIN)
    for path in list(leaves(content)):
        if path[-1] in values:
            content = replaced(content, path, values.pop(path[-1]))
    assert not values, values
    return content


def read(content: Any) -> Config:
    return config_from_020(content, "run", "a.json")


# ---- ours → theirs ----


def test_every_key_that_0_2_0_reads_is_written():
    expected = {
        "data_processing": DATA_KEYS, "model": MODEL_KEYS, "optimization": OPTIMIZATION_KEYS,
        "loss_function": LOSS_KEYS, "initialization": "g_init d_init", "training_and_sampling_setting": SETTING_KEYS,
    }  # fmt: skip
    sections = {"data_processing": PLAIN["data_processing"], **PLAIN["train"]}
    assert {name: set(keys) for name, keys in sections.items()} == {k: set(v.split()) for k, v in expected.items()}
    assert set(PLAIN) == {"data_processing", "train"}


def test_the_layout_of_the_scratch_folder():
    data = config_to_020(make_config("data.source=cifar10", "data.img_size=32"), 10)["data_processing"]
    assert (data["dataset_name"], data["data_path"]) == ("custom", "./data/CUSTOM")
    assert (data["img_size"], data["num_classes"]) == (32, 10)


def test_numbers_and_switches_have_the_types_that_it_wants():
    config = make_config("optim.beta1=0", "optim.g_lr=1", "model.apply_attn=true", "model.attn_g_loc=3")
    name, text = config_to_text(config, 1)
    assert name == "config.json"
    assert '"beta1": 0.0' in text and '"g_lr": 1.0' in text and '"attention": true' in text
    values = leaf_values(json.loads(text))
    assert values["attention_after_nth_gen_block"] == 3 and type(values["total_step"]) is int


def test_what_is_switched_off_has_placeholders():
    values = leaf_values(config_to_020(make_config("model.apply_g_ema=false", "loss.apply_lecam=false"), 1))
    names = ("ema_decay", "ema_start", "gradient_penalty_lambda", "attention_after_nth_dis_block", "shared_dim")
    assert {values[name] for name in names} == {"N/A"}
    assert not [key for key in values if "lecam" in key or key.startswith("lc_")]
    on = ("loss.apply_gp=true", "loss.gp_lambda=5", "model.g_cond_mtd=cBN", "model.d_cond_mtd=PD")
    values = leaf_values(config_to_020(make_config(*on), 3))
    assert (values["ema_decay"], values["ema_start"], values["gradient_penalty_lambda"]) == (0.9999, 1000, 5.0)
    assert (values["conditional_strategy"], values["num_classes"]) == ("ProjGAN", 3)


def test_the_seeds_recipe():
    values = leaf_values(config_to_020(make_config(file="cars128_seed.yaml"), 1))
    differences = {key: (SEED[key], values.get(key)) for key in SEED if values.get(key) != SEED[key]}
    assert differences == {"dataset_name": ("cars", "custom")}
    known = " ".join((DATA_KEYS, MODEL_KEYS, OPTIMIZATION_KEYS, LOSS_KEYS, SETTING_KEYS, "g_init d_init")).split()
    assert set(values) - set(known) == {"lc_regularizer", "lc_lambda", "lc_gamma"}  # stock 0.2.0 ignores them
    standard = leaf_values(config_to_020(make_config(file="cars128.yaml"), 1))
    assert standard["apply_lecam"] is True and standard["lecam_ema_start_iter"] == 1000
    assert not [key for key in standard if key.startswith("lc_")]


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.img_size=[32,64]", "data.img_size: found 32x64"),
        ("model.g_ema_warmup=true", "model.g_ema_warmup"),
        ("augment.diffaug_policy=[color]", r"augment.diffaug_policy: found \[color\]"),
        ("augment.diffaug_policy=[cutout,color,translation]", "augment.diffaug_policy"),
        ("optim.eps=1e-8", "optim.eps"),
        ("loss.adv_loss=vanilla", "loss.adv_loss: found vanilla"),
    ],
)
def test_what_0_2_0_cannot_do_is_refused_by_name(override: str, named: str):
    with pytest.raises(UserError, match=named):
        config_to_020(make_config(override), 1)


def test_everything_that_it_cannot_do_is_told_at_once_and_nothing_that_is_off():
    with pytest.raises(UserError, match="3 things that StudioGAN 0.2.0 cannot do") as caught:
        config_to_020(make_config("optim.eps=1e-8", "model.g_ema_warmup=true", "augment.diffaug_policy=[color]"), 1)
    assert len(str(caught.value).splitlines()) == 4
    off = ("model.apply_g_ema=false", "model.g_ema_warmup=true", "augment.apply_diffaug=false")
    config_to_020(make_config(*off, "augment.diffaug_policy=[color]"), 1)


# ---- and back ----


@settings(max_examples=40, deadline=None)
@given(any_config(("standard", "gsrgan"), ("hinge", "least_square", "wasserstein")))
def test_ours_to_theirs_to_ours(config: Config):
    assert meaning(read(json.loads(json.dumps(config_to_020(config, 7))))) == meaning(config)


def test_where_the_pictures_of_a_foreign_config_come_from():
    cifar = read(a_file(dataset_name="cifar10", img_size=32))
    assert (cifar.data.source, cifar.data.set, cifar.data.img_size) == ("cifar10", "cifar10", (32, 32))
    cars = read(a_file(dataset_name="cars"))
    assert (cars.data.source, cars.data.set, cars.data.src) == ("folder", "cars", None)
    assert read(a_file()).data.set == "run" and cars.studiogan.version == "0.2.0"
    assert cars.finetune.override["data"]["set"] == "cars-concept"


def test_missing_and_unknown_keys_are_told_at_once():
    content = a_file(beta1="0")
    del content["train"]["model"]["z_dim"], content["train"]["initialization"]
    content["train"]["loss_function"]["lc_lamda"] = 1
    content["trian"] = {}
    with pytest.raises(UserError) as caught:
        read(content)
    lines = str(caught.value).splitlines()
    assert lines[0] == "a.json: 3 problems"
    assert lines[1].endswith(
        "missing keys: train.model.z_dim, train.initialization.g_init, train.initialization.d_init"
    )
    assert "does not have" in lines[2] and lines[2].endswith(": trian, train.loss_function.lc_lamda")
    assert lines[3] == "  train.optimization.beta1: found '0', allowed a number"


@pytest.mark.parametrize(
    ("leaf", "value", "feature"),
    [
        ("architecture", "big_resnet", "architecture big_resnet"),
        ("conditional_strategy", "ContraGAN", "conditional_strategy ContraGAN"),
        ("activation_fn", "ELU", "activation ELU"),
        ("optimizer", "SGD", "optimizer SGD"),
        ("g_steps_per_iter", 2, "several generator updates"),
        ("cr", True, "(cr)"),
        ("latent_op", True, "latent_op"),
        ("prior", "uniform", "prior uniform"),
        ("weight_clipping_for_dis", True, "weight clipping"),
        ("adv_loss", "vanilla", "adv_loss vanilla"),
        ("truncated_factor", 2, "truncation"),
    ],
)
def test_a_feature_that_we_lack_is_named(leaf: str, value: Any, feature: str):
    assert feature in not_covered(read, a_file(**{leaf: value}))


def test_lecam_keys_in_a_foreign_config():
    content = a_file()
    loss = content["train"]["loss_function"]
    loss |= {"lc_regularizer": True, "lc_lambda": 1, "lc_gamma": 0.9}
    ours = read(content).loss
    assert (ours.apply_lecam, ours.lecam_type, ours.lecam_lambda, ours.lecam_ema_decay) == (True, "gsrgan", 1.0, 0.9)
    loss["apply_lecam"] = True
    with pytest.raises(UserError, match="two LeCam variants"):
        read(content)
    del loss["lc_regularizer"]
    with pytest.raises(UserError, match=r"missing keys of LeCam: .*lecam_lambda.*lecam_ema_start_iter"):
        read(content)


@settings(max_examples=80, deadline=None)
@given(st.data(), GARBAGE)
def test_no_garbage_is_more_than_a_user_error(data: st.DataObject, garbage: Any):
    assert_only_user_errors(read, PLAIN, data, garbage, "more")


@pytest.mark.parametrize("leaf", ["z_dim", "beta1", "cr", "architecture", "momentum"])
def test_a_number_that_cannot_be_printed(leaf: str):
    if leaf == "momentum":
        assert read(a_file(momentum=HUGE)).optim.beta1 == 0.0  # Adam has no use for it
        return
    with pytest.raises(UserError, match="found a huge number"):
        read(a_file(**{leaf: HUGE}))


@pytest.mark.parametrize(
    ("old", "new", "named"), [("null", "NaN", "NaN is not a number"), ("g_lr", "d_lr", "'d_lr' is repeated")]
)
def test_what_json_forbids(old: str, new: str, named: str, tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(a_file(momentum=None)).replace(old, new, 1))
    with pytest.raises(UserError, match=named):
        read_foreign(path)


# ---- the real thing ----


@pytest.mark.studiogan
def test_all_published_configs_come_back_or_are_refused_by_name():
    def values(file: Path, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
        theirs = leaf_values(json.loads(file.read_text()))
        return theirs, leaf_values(config_to_020(config, theirs["num_classes"]))

    files = sorted(find_checkout().glob("src/configs/*/*.json"))
    assert len(files) == 50
    translated = read_published(files, values, TRANSPORT)
    assert len(translated) == 12
    assert {f"CIFAR10/{name}" for name in ("SNGAN", "SAGAN", "ProjGAN", "WGAN-GP")} | {"ILSVRC2012/SNGAN"} < translated


@pytest.mark.studiogan
def test_nothing_that_the_checkout_reads_is_missing():
    source = find_checkout() / "src"
    code = "".join((source / name).read_text() for name in ("loader.py", "worker.py"))
    read_there = set(re.findall(r"\bcfgs\.(\w+)", code))
    options = set(re.findall(r"'--(\w+)'", (source / "main.py").read_text()))
    written = set(leaf_values(config_to_020(make_config(), 1)))
    assert len(read_there) > 60
    assert read_there - options - written - {"train_configs", "model_configs"} == set()
