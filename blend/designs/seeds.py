"""Seeds of cars without parents, written as ranges."""

from harness.errors import UserError

MAX_SEEDS = 10_000
DESIGN_SEEDS = "design"  # the random stream of their latents


def text_to_seeds(text: str) -> list[int]:
    """`0-31,40` → [0, 1, ..., 31, 40]. UserError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()) or (dash and int(last) < int(first)):
            raise UserError(f"seeds: found {text!r}, allowed numbers and ranges, try --seeds 0-31 or --seeds 3,5,8-12")
        if len(seeds) + int(last or first) - int(first) >= MAX_SEEDS:
            raise UserError(f"seeds: found more than {MAX_SEEDS:,} in {text!r}, allowed fewer, try --seeds 0-31")
        seeds += range(int(first), int(last or first) + 1)
    if len(set(seeds)) < len(seeds):
        raise UserError(f"seeds: found one twice in {text!r}, allowed each once, try --seeds 0-31")
    return seeds
