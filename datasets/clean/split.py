"""Which pictures training never sees.

A picture's split depends on the hash of its bytes alone: the same bytes are never in both, and pictures that come later
change nothing for those that are there. Copies of one photo follow the smallest hash among them. A benchmark's
published test pictures stay what they are.
"""

from datasets.scan.store import ScanStore, in_blocks

BLOCK_FILES = 1000  # written at once
KEPT = "from decided d join listed l on l.pos = d.pos where d.reason is null"


def is_valid(sha256: str, valid_fraction: float) -> bool:
    """Whether the file with this hash (hex) is kept aside."""
    return int(sha256[:13], 16) / 16**13 < valid_fraction


def assign_splits(store: ScanStore, valid_fraction: float) -> None:
    """Verdict of every file, split and row of those that have no reason against them.

    A small set may have no hash in the valid share; then the smallest one and its copies go there, unless training
    would be left with nothing.
    """
    held = _held_back(store, valid_fraction)
    counts = {"train": 0, "valid": 0}
    kept = store.select(
        "select l.pos, d.split_key, l.split from listed l join decided d using (pos)", "d.reason is null"
    )
    for block in in_blocks(kept, BLOCK_FILES):
        rows = []
        for pos, key, official in block:
            split = official or ("valid" if is_valid(key, valid_fraction) or key == held else "train")
            rows.append((split, counts[split], pos))
            counts[split] += 1
        store.base.executemany("update decided set split = ?, row = ? where pos = ?", rows)
    store.base.execute("update decided set verdict = case when reason is null then 'keep' else 'drop' end")
    store.base.commit()


def _held_back(store: ScanStore, valid_fraction: float) -> str | None:
    """The hash that is kept aside where no hash falls into the valid share."""
    smallest, largest = store.base.execute(f"select min(d.split_key), max(d.split_key) {KEPT}").fetchone()
    official = store.base.execute(f"select count(*) {KEPT} and l.split is not null").fetchone()[0]
    if not valid_fraction or smallest is None or smallest == largest or official:
        return None
    return None if is_valid(smallest, valid_fraction) else smallest
