"""One page that shows a run: `runs/<base>/report.html`, self-contained, from what lies on disk.

The section of a stage that has not run yet shows its command.
"""

import base64
import hashlib
from datetime import UTC, datetime
from pathlib import Path

from blend.report import charts, evaluation, provenance, sections
from blend.report.design_rows import read_designs, read_inversions
from blend.report.reading import RunFiles
from blend.report.run_facts import ReportData, read_facts
from harness.checkpoints.origin import check_training_set
from harness.config.experiment import Config, base_name, finetune_config
from harness.messages import log
from harness.storage.atomic import atomic_write
from harness.storage.rundir import RunDir
from harness.web.page import page_environment

TEMPLATES = Path(__file__).parent / "templates"


def make_report(config: Config, root: Path = Path("runs")) -> Path:
    """Writes the page and returns its path; damaged files are listed on it and on stderr. UserError when the experiment
    has no run."""
    run, files = RunDir.existing(base_name(config), root), RunFiles()
    found = read_report_data(run, config, root, files)
    for text in files.damaged.values():
        log(text)
    environment = page_environment(TEMPLATES)
    environment.filters["figure"] = sections.figure_text
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    page = environment.get_template("report.html.j2").render(
        run=run.path.as_posix(),
        damaged=files.damaged,
        name=found.base.name,
        height=found.config.data.img_size[0],
        width=found.config.data.img_size[1],
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        teaser=sections.teaser(found),
        figures=sections.figures(found.metrics),
        measured_on=sections.measured_on(found.metrics),
        left_out=sections.left_out(found.metrics),
        doubts=sections.doubts(found.metrics),
        samples=sections.samples(found),
        training=charts.training_charts(found.base, found.tuned, found.encoder),
        evaluation=evaluation.evaluation(found.base, found.tuned),
        brands=evaluation.brands(found),
        brand_kept=evaluation.brand_kept(found.metrics),
        inversion=sections.inversion(found),
        sweep=sections.sweep(found),
        gallery=sections.gallery(found),
        latent=charts.latent_chart(found.metrics),
        provenance=provenance.provenance(found),
        script=script,
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )
    path = run.path / "report.html"
    atomic_write(path, page)
    return path


def read_report_data(run: RunDir, config: Config, root: Path, files: RunFiles) -> ReportData:
    """Reads what the stages of this experiment have left so far."""
    base, planned = read_facts(run.path, files), finetune_config(config)
    assert base is not None, run.path
    tuned = read_facts(root / planned.name, files)
    for facts in filter(None, (base, tuned)):
        if facts.config is not None:
            check_training_set(RunDir(facts.folder), facts.config.data, facts.checkpoint)
    return ReportData(
        folder=run.path,
        base=base,
        tuned=tuned,
        encoder=read_facts(run.path / "encoder", files),
        config=base.config or config,
        tuned_config=planned if tuned is None or tuned.config is None else tuned.config,
        metrics=files.record(run.metrics_path),
        inversions=read_inversions(run.path / "inversions", files),
        designs=read_designs(run.path / "blends", files),
    )
