"""Which pictures are held out from training.

A picture's split depends on the hash of its bytes alone, so the same bytes are never in both splits, and new pictures
do not move old ones. Copies of one photo follow the smallest hash among them. Splits given by a benchmark or by folders
are kept. If all hashes of a class are in the valid share, the largest is trained on.
"""

from datasets.scan.store import ScanStore, in_blocks

BLOCK_FILES = 1000  # written at once
KEPT = "from decided d join listed l on l.pos = d.pos where d.reason is null"
UNTRAINED = "no_training: its class has no training picture"


def is_valid(sha256: str, valid_fraction: float) -> bool:
    """Whether the file with this hash (hex) is held out."""
    return int(sha256[:13], 16) / 16**13 < valid_fraction


def assign_splits(store: ScanStore, valid_fraction: float, keep_classes: bool = False) -> None:
    """Verdict of every file; split and row of those without a reason against them.

    If no hash is in the valid share, as in small sets, the smallest one and its copies are held out, unless they are
    all of a class. Classes whose given splits have no training picture are dropped; `keep_classes` keeps them, for
    benchmarks.
    """
    if not keep_classes:
        trained = f"select l.class {KEPT} and coalesce(l.split, 'train') = 'train'"
        untrained = f"select pos from listed where class not in ({trained})"
        statement = f"update decided set reason = ? where reason is null and pos in ({untrained})"
        store.base.execute(statement, (UNTRAINED,))
    to_train, fallback = _always_trained(store, valid_fraction), _fallback_valid(store, valid_fraction)
    counts = {"train": 0, "valid": 0}
    kept = store.select(
        "select l.pos, d.split_key, l.split from listed l join decided d using (pos)", "d.reason is null"
    )
    for block in in_blocks(kept, BLOCK_FILES):
        rows = []
        for pos, key, official in block:
            held_out = (is_valid(key, valid_fraction) and key not in to_train) or key == fallback
            split = official or ("valid" if held_out else "train")
            rows.append((split, counts[split], pos))
            counts[split] += 1
        store.base.executemany("update decided set split = ?, row = ? where pos = ?", rows)
    store.base.execute("update decided set verdict = case when reason is null then 'keep' else 'drop' end")
    store.base.commit()


def _always_trained(store: ScanStore, valid_fraction: float) -> set[str]:
    """The largest hash of each class that would be held out as a whole."""
    query = f"""select max(d.split_key) {KEPT} and l.split is null and l.class not in
        (select l.class {KEPT} and l.split = 'train') group by l.class"""
    return {key for (key,) in store.base.execute(query) if is_valid(key, valid_fraction)}


def _fallback_valid(store: ScanStore, valid_fraction: float) -> str | None:
    """The hash held out when none is in the valid share: the smallest that is not all of a class."""
    smallest = store.base.execute(f"select min(d.split_key) {KEPT}").fetchone()[0]
    official = store.base.execute(f"select count(*) {KEPT} and l.split is not null").fetchone()[0]
    if not valid_fraction or smallest is None or official or is_valid(smallest, valid_fraction):
        return None
    alone = f"select min(d.split_key) {KEPT} group by l.class having min(d.split_key) = max(d.split_key)"
    return store.base.execute(f"select min(d.split_key) {KEPT} and d.split_key not in ({alone})").fetchone()[0]
