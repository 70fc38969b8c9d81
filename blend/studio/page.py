"""What the page is filled with before any script runs."""

from typing import Any

from blend.designs.design_recipe import MOST_PARENTS
from blend.studio.studio import Studio
from blend.studio.uploads import MOST_UPLOAD_BYTES


def page_facts(studio: Studio) -> dict[str, Any]:
    """Of a studio with a run: its size, classes and what it lacks; of one without: why, and the demo's stages."""
    workshop = studio.workshop
    facts: dict[str, Any] = {"name": studio.name, "most_upload_mb": MOST_UPLOAD_BYTES // 2**20, "run": None}
    if workshop is None:
        plan = studio.demo.plan()
        return facts | {
            "fault": studio.fault,
            "plan": plan,
            "minutes": max(1, round(sum(stage["seconds"] for stage in plan) / 60)),
            "at_work": studio.demo.is_at_work(),
        }
    generator = workshop.generator
    return facts | {
        "run": {
            "height": generator.height,
            "width": generator.width,
            "classes": generator.base.class_names if generator.num_classes else [],
            "lacking": {key: workshop.lacking.get(key, "") for key in ("finetune", "encoder", "measures")},
            "first": studio.first_recipe().to_query(),
            "step": generator.base.step,
            "most_parents": MOST_PARENTS,
        }
    }
