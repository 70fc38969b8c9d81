"""Configs: every shipped file loads, every problem is reported at once, old configs stay valid."""

import json
import re
from pathlib import Path

import pytest

from harness.config.experiment import (
    all_keys,
    check_config,
    complete_config,
    config_differences,
    config_to_dict,
    config_to_yaml,
    d_block_count,
    finetune_config,
    load_config,
    read_yaml,
    source_folder,
)
from harness.errors import UserError
from tests.conftest import ROOT
from tests.harness.tiny_runs import BASE

SHIPPED = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if path.name != "sources.yaml"]


def problems_of(*overrides: str, path: Path = BASE) -> list[str]:
    """The lines of the refusal, without its head."""
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    return [line.strip() for line in str(caught.value).splitlines()[1:]]


# ---- what is shipped ----


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_config_loads_and_can_be_finetuned(path: Path):
    config = load_config(path)
    tuned = finetune_config(config)
    assert tuned.name == f"{config.name}-freezed"
    assert tuned.data.set != config.data.set
    assert tuned.data.img_size == config.data.img_size and tuned.model == config.model


def test_the_config_of_the_first_seed_differs_only_where_it_must():
    seed, ours = load_config(ROOT / "configs/cars128_seed.yaml"), load_config(ROOT / "configs/cars128.yaml")
    differences = config_differences(config_to_dict(ours), config_to_dict(seed))
    assert {key for key, _, _ in differences} == {"name", "loss.lecam_type", "optim.total_steps"}
    freezed = load_config(ROOT / "configs/cars128_freezed.yaml")
    tuned = finetune_config(freezed)
    assert freezed.name == "cars128" and tuned.name == "cars128-freezed" and tuned.finetune.freeze_layers == 2


def test_base_holds_every_key_once_and_each_group_of_keys_has_a_comment():
    lines = BASE.read_text().splitlines()
    found, section, commented = [], "", False
    for line in lines:
        match = re.match(r"^(\s*)([a-z_0-9]+):(.*)$", line)
        if line.strip().startswith("#"):
            commented = True
        elif not line.strip():
            commented = False
        elif match and len(match[1]) <= 2:
            section = match[2] if not match[1] else section
            key = match[2] if not match[1] else f"{section}.{match[2]}"
            found.append(key)
            opens_section = not match[1] and not match[3].strip()
            assert commented or opens_section, f"{key} has no comment above it or its group"
            commented = commented and not opens_section
    assert sorted(found) == sorted(all_keys())


def test_a_config_written_to_yaml_is_read_as_the_same(tmp_path: Path):
    config = load_config(BASE, ["data.img_size=[128, 224]", "optim.eps=1e-8", "finetune.from_run=x"])
    (tmp_path / "config.yaml").write_text(config_to_yaml(config))
    assert check_config(read_yaml(tmp_path / "config.yaml"), "again") == config
    assert config_differences(config_to_dict(config), read_yaml(tmp_path / "config.yaml")) == []


# ---- extends and --set ----


def test_extends_goes_up_and_set_goes_on_top(tmp_path: Path):
    (tmp_path / "a.yaml").write_text(f"extends: {BASE}\noptim: {{g_lr: 1e-3, d_lr: 1e-3}}\ntrain:\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\noptim: {d_lr: 2e-3}\n")
    config = load_config(tmp_path / "b.yaml", ["optim.total_steps=7", "data.img_size=[32,  64]"])
    assert (config.name, config.optim.g_lr, config.optim.d_lr, config.optim.total_steps) == ("b", 1e-3, 2e-3, 7)
    assert config.data.img_size == (32, 64) and config.data.size_name == "32x64"
    assert config.data.hdf5_path("valid") == Path("data/hdf5/cars/custom_32x64_valid.hdf5")


@pytest.mark.parametrize("text", ["/pictures: of #1", "2024", "~/cars", "no", "a=b"])
def test_a_path_given_with_set_is_taken_as_it_stands(text: str):
    assert load_config(BASE, ["data.source=folder", f"data.src={text}"]).data.src == text
    over = load_config(BASE, [f"finetune.override.data.src={text}", "finetune.override.data.source=folder"])
    assert finetune_config(over).data.src == text
    config = load_config(BASE, [f"clean.decisions={text}", f"encoder.weights={text}"])
    assert (config.clean.decisions, config.encoder.weights) == (text, text)
    assert load_config(BASE, ["data.src="]).data.src is None


def test_a_name_of_64_characters_can_be_fine_tuned():
    name = "n" * 64
    tuned = finetune_config(load_config(BASE, [f"name={name}"]))
    assert tuned.name == f"{name}-freezed" and finetune_config(tuned).name == f"{name}-freezed-freezed"
    assert load_config(BASE, [f"name={tuned.name}"]).name == tuned.name, "as its kept config says"
    assert load_config(BASE, [f"finetune.from_run={tuned.name}"]).finetune.from_run == tuned.name
    assert "at most 64" in str(pytest.raises(UserError, load_config, BASE, [f"name={name}n"]).value)


def test_photos_take_their_folder_from_the_command_line(tmp_path: Path):
    photos = ROOT / "configs/photos.yaml"
    with pytest.raises(UserError, match=r"data\.src: found nothing.*--set data\.src=.*"):
        source_folder(load_config(photos).data)
    config = load_config(photos, [f"data.src={tmp_path}"])
    assert source_folder(config.data) == tmp_path
    assert finetune_config(config).data.src is None, "concept pictures do not come from the folder of the first set"
    concept = finetune_config(load_config(photos, [f"finetune.override.data.src={tmp_path}"]))
    assert concept.data.set == "photos-concept" and source_folder(concept.data) == tmp_path


def test_another_set_does_not_inherit_the_folder_of_the_first():
    changes = ["data.source=folder", "data.src=/cars"]
    assert finetune_config(load_config(BASE, changes)).data.src is None
    assert (
        finetune_config(load_config(BASE, [*changes, "finetune.override.data.src=/concepts"])).data.src == "/concepts"
    )
    drawn = finetune_config(load_config(BASE, [*changes, "finetune.override.data.source=procedural"]))
    assert drawn.data.source == "procedural" and drawn.data.kind == "concept"


def test_files_that_extend_each_other_are_told(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("extends: b.yaml\n")
    (tmp_path / "b.yaml").write_text("extends: a.yaml\n")
    with pytest.raises(UserError, match="extends itself"):
        load_config(tmp_path / "a.yaml")


def test_source_folder_expands_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CARS_HERE", str(tmp_path))
    data = load_config(BASE, ["data.source=folder", "data.src=$CARS_HERE"]).data
    assert source_folder(data) == tmp_path
    for src, message in (("$CARS_NOWHERE/x", "export CARS_NOWHERE"), (str(tmp_path / "no"), "found no folder")):
        with pytest.raises(UserError, match=message):
            source_folder(data.model_copy(update={"src": src}))


# ---- problems ----


def test_all_problems_are_told_at_once():
    lines = problems_of(
        "data.img_size=[128,225]", "optim.g_lr=abc", "loss.lecam_lamda=1", "train.d_lr=1", "finetune.freeze_layers=6"
    )
    keys = [line.split(":")[0] for line in lines]
    assert sorted(keys) == ["data.img_size", "finetune.freeze_layers", "loss.lecam_lamda", "optim.g_lr", "train.d_lr"]
    text = "\n".join(lines)
    assert "try [128, 224]" in text and "try loss.lecam_lambda" in text and "try optim.d_lr" in text


def test_no_problem_is_invented_for_what_stands_in_for_a_faulty_key():
    lines = problems_of("data.img_size=abc", "model.apply_attn=true", "model.attn_g_loc=5")
    assert [line.split(":")[0] for line in lines] == ["data.img_size"], "5 is allowed at the height that was meant"


BAD = [
    ("optim.g_lr=-1", "optim.g_lr", "greater than 0"),
    ("optim.g_lr=.nan", "optim.g_lr", "a finite number"),
    ("optim.g_lr=1e999", "optim.g_lr", "a finite number"),
    ("optim.batch_size=1", "optim.batch_size", "greater than or equal to 2"),
    ("optim.batch_size=1000000", "optim.batch_size", "less than or equal to 65536"),
    ("optim.batch_size=true", "optim.batch_size", "a valid integer"),
    ("optim=5", "optim", "keys below it"),
    ("data.count=3.5", "data.count", "a valid integer"),
    ("data.looseness=5.1", "data.looseness", "less than or equal to 5"),
    ("data.looseness=-1", "data.looseness", "greater than or equal to 0"),
    ("data.img_size=48", "data.img_size", "32, 64, 128 or 256"),
    ("data.img_size=[64, 160]", "data.img_size", "multiples of 16 from 32 to 128"),
    ("data.img_size=[64]", "data.img_size", "[height, width]"),
    ("data.src=x", "data.src", "null for procedural pictures"),
    ("loss.adv_loss=wgan", "loss.adv_loss", "'wasserstein'"),
    ("loss.adv_loss=wasserstein", "loss.adv_loss", "loss.apply_gp=true"),
    ("augment.diffaug_policy=[]", "augment.diffaug_policy", "without repeats"),
    ("augment.diffaug_policy=[color, color]", "augment.diffaug_policy", "without repeats"),
    ("augment.diffaug_policy=color", "augment.diffaug_policy", "a list"),
    ("model.g_cond_mtd=cBN", "model.g_cond_mtd", "cBN and PD"),
    ("model.d_cond_mtd=PD", "model.g_cond_mtd", "cBN and PD"),
    ("finetune.override=3", "finetune.override", "sections with keys"),
    ("finetune.override.optim.lr=1", "finetune.override.optim.lr", "unknown key"),
    ("finetune.override.optim.g_lr=x", "finetune.override.optim.g_lr", "a valid number"),
    ("finetune.override.model.z_dim=3", "finetune.override.model", "leave it out"),
    ("finetune.override.seed=3", "finetune.override.seed", "leave it out"),
    ("finetune.override.data.img_size=128", "finetune.override.data.img_size", "the run's own [64, 64]"),
    ("finetune.override.loss.adv_loss=wasserstein", "finetune.override.loss.adv_loss", "loss.apply_gp=true"),
    ("seed=-1", "seed", "greater than or equal to 0"),
    ("nonsense=1", "nonsense", "base.yaml"),
]


@pytest.mark.parametrize("override, key, allowed", BAD, ids=[row[0] for row in BAD])
def test_each_problem_is_one_line_with_key_found_allowed_and_try(override: str, key: str, allowed: str):
    (line,) = problems_of(override)
    assert line.startswith(key) and allowed in line
    assert all(word in line for word in (": found ", ", allowed ", ", try "))


@pytest.mark.parametrize("name", ["../x", ";rm -rf x", "a" * 65, "a" * 300, "a/b", ".hidden", "a b", "x\n", "-x", ""])
@pytest.mark.parametrize("key", ["name", "data.set", "finetune.from_run"])
def test_names_that_would_leave_their_folder_are_refused(key: str, name: str, tmp_path: Path):
    section, _, leaf = key.rpartition(".")
    named = f"{leaf}: {json.dumps(name)}"  # JSON's text is YAML's too
    (tmp_path / "x.yaml").write_text(f"extends: {BASE}\n" + (f"{section}: {{{named}}}\n" if section else f"{named}\n"))
    assert any(line.startswith(f"{key}: found") for line in problems_of(path=tmp_path / "x.yaml"))


@pytest.mark.parametrize("height, blocks", [(32, 4), (64, 5), (128, 6), (256, 7)])
@pytest.mark.parametrize("attention", [False, True])
def test_frozen_layers_are_fewer_than_blocks(height: int, blocks: int, attention: bool):
    size = [f"data.img_size={height}", f"model.apply_attn={str(attention).lower()}"]
    blocks += attention
    assert d_block_count(load_config(BASE, [*size, f"finetune.freeze_layers={blocks - 1}"])) == blocks
    for wrong in (0, blocks):
        (line,) = problems_of(*size, f"finetune.freeze_layers={wrong}")
        assert line.startswith("finetune.freeze_layers: found")


def test_attention_needs_its_place_and_channels():
    assert "allowed 1 to 4" in problems_of("model.apply_attn=true", "model.attn_g_loc=5")[0]
    assert "allowed 8 or more" in problems_of("model.apply_attn=true", "model.d_conv_dim=4")[0]
    load_config(BASE, ["model.attn_g_loc=5", "model.d_conv_dim=4"])


def test_a_file_without_extends_is_told_so(tmp_path: Path):
    (tmp_path / "x.yaml").write_text("name: x\ndata: {set: cars}\noptim: {g_lr: x}\n")
    lines = problems_of(path=tmp_path / "x.yaml")
    assert lines[0].startswith("extends: found no seed, engine, data.source and ") and "try base.yaml" in lines[0]
    assert any(line.startswith("optim.g_lr: found 'x'") for line in lines) and len(lines) == 2


def test_looseness_is_of_cars_alone():
    (line,) = problems_of("data.kind=messy", "data.looseness=3")
    assert line == "data.looseness: found 3, allowed 1 with data.kind=messy, try --set data.looseness=1"
    load_config(BASE, ["data.kind=messy", "data.source=folder", "data.looseness=3"])  # says nothing about a folder
    assert finetune_config(load_config(BASE, ["data.looseness=3"])).data.looseness == 3


def test_a_whole_config_from_before_is_whole(tmp_path: Path):
    """A run's config.yaml, which is read as a config too, without what came later."""
    kept = config_to_dict(load_config(BASE))
    del kept["data"]["looseness"], kept["optim"]["cosine_from"], kept["reconstruction"]
    (tmp_path / "old.yaml").write_text(json.dumps(kept))
    assert load_config(tmp_path / "old.yaml") == load_config(BASE)


def test_a_config_kept_before_a_key_existed_gets_the_keys_value_of_base():
    kept = config_to_dict(load_config(BASE))
    kept["finetune"]["override"] = {"optim": {"total_steps": 7}}
    expected = check_config(kept, "kept")
    del kept["train"]["fuse_resampling"], kept["data"]["seed"]
    assert check_config(complete_config(kept), "kept") == expected


# ---- train.d_call, which is train.numerics now ----


@pytest.mark.parametrize(("old", "now"), [("concat", "fast"), ("separate", "studiogan")])
def test_d_call_is_read_as_numerics_wherever_it_stands(tmp_path: Path, old: str, now: str):
    (tmp_path / "old.yaml").write_text(f"extends: {BASE}\ntrain: {{d_call: {old}}}\n")
    assert load_config(tmp_path / "old.yaml").train.numerics == now
    assert load_config(BASE, [f"train.d_call={old}"]).train.numerics == now
    tuned = load_config(BASE, [f"finetune.override.train.d_call={old}"])
    assert tuned.finetune.override["train"] == {"numerics": now} and finetune_config(tuned).train.numerics == now
    kept = config_to_dict(load_config(BASE))
    del kept["train"]["numerics"]
    kept["train"]["d_call"] = old
    assert check_config(complete_config(kept), "kept").train.numerics == now
    assert kept["train"]["d_call"] == old


def test_what_lies_on_top_counts_in_either_spelling(tmp_path: Path):
    (tmp_path / "old.yaml").write_text(f"extends: {BASE}\ntrain: {{d_call: separate}}\n")
    (tmp_path / "new.yaml").write_text("extends: old.yaml\ntrain: {numerics: fast}\n")
    assert load_config(tmp_path / "new.yaml").train.numerics == "fast"
    assert load_config(tmp_path / "old.yaml", ["train.numerics=fast"]).train.numerics == "fast"
    both = ["train.numerics=fast", "train.d_call=separate"]
    assert load_config(BASE, both).train.numerics == "studiogan"
    assert load_config(BASE, both[::-1]).train.numerics == "fast"


@pytest.mark.parametrize("value", ["both", "[concat]", "null", "1"])
def test_another_d_call_is_told_as_numerics(value: str):
    (line,) = problems_of(f"train.d_call={value}")
    assert line.startswith("train.numerics: found ") and "allowed 'fast' or 'studiogan', try 'fast'" in line


def test_both_spellings_in_one_file_are_told(tmp_path: Path):
    (tmp_path / "two.yaml").write_text(f"extends: {BASE}\ntrain: {{numerics: fast, d_call: separate}}\n")
    (line,) = problems_of(path=tmp_path / "two.yaml")
    assert line.startswith("train.d_call: found an unknown key")


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (["loss.apply_mismatch=true"], r"loss.apply_mismatch: found true with null, allowed with projection, try"),
        (["loss.label_smoothing=0.1"], r"loss.label_smoothing: found 0.1 with hinge, allowed 0 except with vanilla"),
        (
            ["model.g_act_fn=Mish"],
            r"model.g_act_fn: found Mish, allowed ReLU in the ResNet, try ",
        ),
        (["model.g_cond_mtd=concat"], r"found 'concat' and null, allowed cBN or concat with PD, acgan or concat"),
        (["model.d_cond_mtd=AC"], r"model.d_cond_mtd: found 'AC', allowed"),
        (["optim.z_schedule=3"], r"optim.z_schedule: found 3, allowed a list of \[step or epoch, components\]"),
    ],
)
def test_problems_of_the_brand_recipes_keys(settings: list[str], text: str) -> None:
    with pytest.raises(UserError, match=text):
        load_config(BASE, settings)
