"""StudioGAN 0.4.0's YAML: complete, passing its own checks, every published file read back or refused by name."""

import ast
import io
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from warnings import catch_warnings

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.config.experiment import Config
from harness.config.yaml_files import merge
from harness.errors import UserError
from harness.studiogan.checkout import COMMITS, find_checkout
from harness.studiogan.dialects.convert import config_to_text, read_foreign
from harness.studiogan.dialects.v040 import TEMPLATE, config_from_040, config_to_040
from tests.harness.studiogan.dialects.dialect_cases import (
    GARBAGE,
    HUGE,
    any_config,
    assert_only_user_errors,
    flat,
    meaning,
    not_covered,
    read_published,
)
from tests.harness.tiny_runs import make_config

ALL_LOSSES = ("hinge", "vanilla", "least_square", "wasserstein")
# A file as they are published: only what differs from the defaults of its version.
SNGAN: dict[str, Any] = {
    "DATA": {"name": "CIFAR10", "img_size": 32, "num_classes": 10},
    "MODEL": {"g_cond_mtd": "cBN", "d_cond_mtd": "PD", "apply_d_sn": True},
    "LOSS": {"adv_loss": "hinge"},
}


PLAIN = config_to_040(make_config(), 1)


def read(content: Any) -> Config:
    return config_from_040(content, "run", "a.yaml")


# ---- ours → theirs ----


def test_every_key_is_written_and_pictures_are_custom():
    assert {name: len(keys) for name, keys in PLAIN.items()} == {
        "DATA": 4, "MODEL": 31, "LOSS": 45, "OPTIMIZATION": 16, "PRE": 1, "AUG": 15, "STYLEGAN": 13,
    }  # fmt: skip
    assert PLAIN["DATA"] == {"name": "custom", "img_size": 64, "num_classes": 1, "img_channels": 3}
    assert PLAIN["OPTIMIZATION"]["g_weight_decay"] == 0.0 and PLAIN["OPTIMIZATION"]["d_first"] is True


def test_values_have_the_types_that_it_wants():
    overrides = ("optim.beta1=0", "optim.d_lr=1e-5", "model.apply_attn=true", "model.g_ema_decay=0")
    name, text = config_to_text(make_config("studiogan.version='0.4.0'", *overrides), 1)
    content = yaml.safe_load(text)  # as StudioGAN reads it: 1e-5 without a point would be text
    assert name == "config.yaml"
    assert repr(content["OPTIMIZATION"]["beta1"]) == "0.0" and content["OPTIMIZATION"]["d_lr"] == 1e-5
    assert (content["MODEL"]["attn_g_loc"], content["MODEL"]["attn_d_loc"]) == ([2], [1])
    assert repr(content["MODEL"]["g_ema_decay"]) == "0.0" and type(content["MODEL"]["g_ema_start"]) is int


def test_what_is_switched_off_has_placeholders():
    off = ("model.apply_g_ema=false", "loss.apply_lecam=false", "augment.apply_diffaug=false")
    content = config_to_040(make_config(*off), 1)
    assert content["MODEL"]["g_ema_decay"] == content["LOSS"]["lecam_lambda"] == content["LOSS"]["gp_lambda"] == "N/A"
    assert content["MODEL"]["attn_g_loc"] == ["N/A"] and content["AUG"]["diffaug_type"] == "W/O"
    content = config_to_040(make_config(), 1)
    assert content["AUG"]["diffaug_type"] == "diffaug" and content["LOSS"]["lecam_ema_start_iter"] == 1000
    content["MODEL"]["attn_g_loc"].append(3)
    assert TEMPLATE["MODEL"]["attn_g_loc"] == ["N/A"]  # what is written is a copy


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("data.img_size=[64,96]", "data.img_size: found 64x96"),
        ("model.g_ema_warmup=true", "model.g_ema_warmup"),
        ("augment.diffaug_policy=[color]", "augment.diffaug_policy"),
        ("optim.eps=1e-8", "optim.eps"),
        ("loss.lecam_type=gsrgan", "loss.lecam_type: found gsrgan, allowed standard"),
    ],
)
def test_what_0_4_0_cannot_do_is_refused_by_name(override: str, named: str):
    with pytest.raises(UserError, match=named):
        config_to_040(make_config(override), 1)
    config_to_040(make_config("loss.lecam_type=gsrgan", "loss.apply_lecam=false"), 1)


# ---- and back ----


@settings(max_examples=40, deadline=None)
@given(any_config(("standard",), ALL_LOSSES))
def test_ours_to_theirs_to_ours(config: Config):
    assert meaning(read(yaml.safe_load(yaml.safe_dump(config_to_040(config, 7))))) == meaning(config)


def test_a_published_file_takes_the_defaults_of_its_version():
    config = read(SNGAN)
    assert (config.data.source, config.data.img_size, config.model.conditional) == ("cifar10", (32, 32), True)
    optim = config.optim
    assert (optim.g_lr, optim.beta1, optim.beta2, optim.d_updates_per_step) == (2e-4, 0.5, 0.999, 5)
    assert (optim.total_steps, config.model.apply_g_ema, config.augment.apply_diffaug) == (100000, False, False)
    assert (config.studiogan.version, config.loss.apply_lecam) == ("0.4.0", False)


def test_unknown_keys_and_wrong_kinds_are_told_at_once():
    content = merge(SNGAN, {"MODEL": {"z_dmi": 3, "z_dim": True}, "RUN": {"seed": 1}, "OPTIMIZATION": {"g_lr": "3e-7"}})
    with pytest.raises(UserError) as caught:
        read({**content, "PRE": None})
    lines = str(caught.value).splitlines()
    assert lines[0] == "a.yaml: 4 problems" and "PRE: found nothing" in lines[1]
    assert lines[2].endswith(": RUN, MODEL.z_dmi")
    assert "MODEL.z_dim: found true, allowed a whole number" in lines[3] and "'3e-7', allowed a number" in lines[4]


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"MODEL": {"backbone": "stylegan2", "g_conv_dim": "N/A"}}, "backbone stylegan2"),
        ({"MODEL": {"d_cond_mtd": "2C"}}, "d_cond_mtd 2C"),
        ({"MODEL": {"d_cond_mtd": "W/O"}}, "g_cond_mtd cBN with d_cond_mtd W/O"),
        ({"MODEL": {"info_type": "discrete"}}, "InfoGAN"),
        ({"LOSS": {"adv_loss": "logistic"}}, "adv_loss logistic"),
        ({"LOSS": {"apply_lo": True}}, "latent_op"),
        ({"LOSS": {"apply_topk": True}}, "top-k"),
        ({"OPTIMIZATION": {"g_weight_decay": 0.1}}, "weight decay"),
        ({"OPTIMIZATION": {"d_first": False}}, "before the discriminator's"),
        ({"AUG": {"apply_diffaug": True, "diffaug_type": "bgc"}}, "diffaug_type bgc"),
        ({"AUG": {"apply_ada": True}}, "ada"),
        ({"DATA": {"img_channels": 1}}, "pictures of 1 channels"),
    ],
)
def test_a_feature_that_we_lack_is_named(changes: dict[str, Any], feature: str):
    assert feature in not_covered(read, merge(SNGAN, changes))


def test_attention_at_several_places():
    attention = {"apply_attn": True, "attn_g_loc": [1, 2], "attn_d_loc": [1]}
    with pytest.raises(UserError, match=r"MODEL.attn_g_loc: found a list of 2, allowed a list of one block"):
        read(merge(SNGAN, {"MODEL": attention}))
    assert read(merge(SNGAN, {"MODEL": {**attention, "attn_g_loc": [3]}})).model.attn_g_loc == 3


@settings(max_examples=80, deadline=None)
@given(st.data(), GARBAGE)
def test_no_garbage_is_more_than_a_user_error(data: st.DataObject, garbage: Any):
    assert_only_user_errors(read, PLAIN, data, garbage, 3)


@pytest.mark.parametrize("changes", [{"MODEL": {"z_dim": HUGE}}, {"MODEL": {HUGE: 1}}, {"LOSS": {"apply_cr": HUGE}}])
def test_a_number_that_cannot_be_printed(changes: dict[str, Any]):
    with pytest.raises(UserError, match="a huge number"):
        read(merge(SNGAN, changes))


def test_a_config_of_our_own_is_not_taken_for_theirs(tmp_path: Path):
    path = tmp_path / "mine.yml"
    path.write_text("extends: base.yaml\nmodel: {z_dim: 3}\n")
    with pytest.raises(UserError, match="found none of DATA, MODEL"):
        read_foreign(path)
    path.write_text(yaml.safe_dump(SNGAN))
    assert (read_foreign(path).name, read_foreign(path).data.set) == ("mine", "cifar10")


# ---- the real thing ----


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """src/ of 0.4.0: its configs and config.py, out of whatever clone has them."""
    folder = tmp_path_factory.mktemp("studiogan-0.4.0")
    for version in COMMITS:
        with suppress(UserError):
            command = ["git", "-C", str(find_checkout(version)), "archive", COMMITS["0.4.0"], "src/configs"]
            done = subprocess.run([*command, "src/config.py"], capture_output=True)
            if done.returncode == 0:
                break
    else:
        pytest.skip("no StudioGAN checkout with 0.4.0 in it (make studiogan VERSION=0.4.0)")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
    yield folder / "src"


def function_of(source: Path, name: str) -> ast.FunctionDef:
    with catch_warnings(action="ignore"):  # of its escape sequences
        nodes = ast.walk(ast.parse((source / "config.py").read_text()))
    return next(node for node in nodes if isinstance(node, ast.FunctionDef) and node.name == name)


@pytest.mark.studiogan
def test_all_published_configs_come_back_or_are_refused_by_name(source: Path):
    def values(file: Path, config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
        theirs = flat(merge(TEMPLATE, yaml.safe_load(file.read_text())))
        return theirs, flat(config_to_040(config, theirs["DATA.num_classes"]))

    files = sorted(source.glob("configs/*/*.yaml"))
    assert len(files) == 196
    translated = read_published(files, values, {"DATA.name"})
    assert len(translated) == 22
    assert {"CIFAR10/SNGAN", "CIFAR10/SNGAN-DiffAug-LeCam", "CIFAR10/WGAN-GP", "ImageNet/SAGAN-256"} < translated


@pytest.mark.studiogan
def test_the_template_has_every_key_and_default_of_the_checkout(source: Path):
    found: dict[str, Any] = {}
    for node in ast.walk(function_of(source, "load_base_cfgs")):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            section, _, leaf = ast.unparse(node.targets[0]).removeprefix("self.").partition(".")
            if leaf and section in TEMPLATE:
                found[f"{section}.{leaf}"] = ast.literal_eval(node.value)
    assert found | {"DATA.name": "custom"} == flat(TEMPLATE)


@pytest.mark.studiogan
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("model.g_cond_mtd=cBN", "model.d_cond_mtd=PD", "model.apply_attn=true"),
        ("loss.adv_loss=wasserstein", "loss.apply_gp=true", "model.apply_g_ema=false", "loss.apply_lecam=false"),
    ],
)
def test_what_is_written_passes_the_checks_of_the_checkout(source: Path, overrides: tuple[str, ...]):
    function = function_of(source, "check_compatability")
    namespace: dict[str, Any] = {}
    exec(compile(ast.Module([function], []), "config.py", "exec"), namespace)
    sections = {name: SimpleNamespace(**keys) for name, keys in config_to_040(make_config(*overrides), 3).items()}
    run = dict.fromkeys((node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)), False)
    run |= {"eval_metrics": ["none"], "freezeD": -1, "save_freq": 100, "print_freq": 100, "data_dir": "data"}
    run |= {"eval_backbone": "InceptionV3_tf", "post_resizer": "legacy", "pre_resizer": "wo_resize", "train": True}
    misc = SimpleNamespace(classifier_based_GAN=["AC", "2C", "D2DCE"])
    sections["OPTIMIZATION"].world_size = 1
    namespace["check_compatability"](SimpleNamespace(RUN=SimpleNamespace(**run), MISC=misc, **sections))
    sections["MODEL"].g_shared_dim = 128  # of a network that we lack: the checks are really made
    with pytest.raises(AssertionError):
        namespace["check_compatability"](SimpleNamespace(RUN=SimpleNamespace(**run), MISC=misc, **sections))
