"""The speed benchmark names every contender, compares within a round, and its switches reach the run."""

import pytest

from harness.benchmarks import step_speed
from harness.networks.resample import Resampler

TINY = step_speed.Size(32, 2, 2)


def test_tables_name_every_contender(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIOGAN_HOME", "/nowhere")
    step_speed.compare_switches(TINY, rounds=1, compiled=False)
    step_speed.compare_with_studiogan(TINY, rounds=1)
    said = capsys.readouterr().out
    assert all(name in said for name in (*step_speed.SWITCHES, "all but bf16", "ours, bf16", "ours, fp32"))
    assert "Against our engine in StudioGAN's order" in said and "make studiogan" in said


def test_ratios_are_taken_within_a_round(capsys: pytest.CaptureFixture[str]) -> None:
    step_speed.print_table("title", {"reference": [2.0, 30.0, 4.0], "other": [1.0, 10.0, 4.0]})
    assert "2.00 [1.00, 3.00]" in capsys.readouterr().out


def test_switches_reach_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = []
    monkeypatch.setattr(step_speed, "train_step", runs.append)
    for switches in ({}, step_speed.OURS_BF16, step_speed.OURS_FP32 | step_speed.AS_STUDIOGAN):
        step_speed.our_step(TINY, switches)()
    naive, ours, as_studiogan = runs
    assert [run.hardware.precision for run in runs] == ["fp32", "bf16", "fp32"]
    for run, on in ((naive, False), (ours, True), (as_studiogan, False)):
        weight = run.discriminator.blocks[0][0].conv2d1.weight_orig
        assert (run.discriminator.spec.commute_1x1, not weight.is_contiguous()) == (on, on)
        assert run.g_optimizer.defaults["fused"] is run.d_optimizer.defaults["fused"] is on
        fused = {layer.fuse for net in (run.generator, run.discriminator) for layer in net.modules()
                 if isinstance(layer, Resampler)}  # fmt: skip
        assert fused == {on}


@pytest.mark.studiogan
@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_studiogans_step_runs(capsys: pytest.CaptureFixture[str]) -> None:
    step_speed.compare_with_studiogan(TINY, rounds=1)
    assert "Against StudioGAN's own modules" in capsys.readouterr().out
