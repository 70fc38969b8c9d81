"""Which files are in the set, and why the others are not, decided from the scan store.

rules → exact duplicates → near duplicates (of each group the best copy stays) → verdict and view of the classifier → a
person's decisions, which override rules and model. No file is opened; the results are in the table `decided`.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from datasets.clean.duplicates import Pair, find_pairs
from datasets.clean.kinds import NOSE_LEFT, NOSE_RIGHT
from datasets.clean.manual_labels import VIEWS, Decision
from datasets.clean.rules import UNDECODED, UNPLACED, FileFacts, rule_reason, to_slug
from datasets.scan.store import LISTED, ScanStore, in_blocks, to_features
from harness.config.schema import Clean

MIN_LABELS = 24  # of a person, needed for a few-shot fit
CAPPED = 0.5  # share of the threshold that limits the ok_score of files dropped by a rule


def decide(
    store: ScanStore, clean: Clean | None, classifier: Any | None, decisions: dict[str, Decision]
) -> dict[str, Any] | None:
    """Fills `decided` for every file; returns the classifier's name, sha256, threshold and number of labels.

    `clean` or `classifier` None: every file that can be decoded is kept, and None is returned."""
    _apply_rules(store, clean)
    if clean is None or classifier is None:
        store.base.execute("update decided set ok_score = reason is null, decided_by = 'rule'")
        store.base.commit()
        return None
    _drop_exact(store)
    pairs = list(find_pairs(store))
    if clean.near_duplicates:
        _drop_near(store, pairs)
    info = _classify(store, clean, classifier, decisions)
    _apply_decisions(store, clean, decisions)
    _mark_mirrored(store, clean)
    _group_splits(store, pairs)
    store.base.commit()
    return info


def _apply_rules(store: ScanStore, clean: Clean | None) -> None:
    store.base.execute("delete from decided")
    query = f"select l.pos, s.sha256, coalesce(l.fault, s.reason), {', '.join(FileFacts._fields[1:])} {LISTED}"
    rows = ((pos, rule_reason(FileFacts(*known), clean), sha256) for pos, sha256, *known in store.select(query))
    for block in in_blocks(rows, 1000):
        statement = "insert into decided (pos, reason, decided_by, split_key, mirrored) values (?, ?, 'rule', ?, 0)"
        store.base.executemany(statement, block)


def _drop_exact(store: ScanStore) -> None:
    """Keeps the first in the listing of files with the same bytes."""
    query = """select pos, first_value(pos) over (partition by split_key order by pos) as best from decided
        where reason is null"""
    store.base.execute(
        f"""update decided set reason = 'duplicate: the same bytes', duplicate_of = same.best
        from ({query}) as same where same.pos = decided.pos and same.best < same.pos"""
    )


# ---- near duplicates --------------------------------------------------------------------------------------------


def group_pairs(pairs: Iterable[Pair]) -> list[list[int]]:
    """Connected components of the pairs, as positions; groups and positions are in the order of the listing."""
    ends = np.array([(pair.first, pair.second) for pair in pairs])
    if not len(ends):
        return []
    from scipy.sparse import coo_array, csgraph  # here: they take as long to import as the rest of the stage

    positions, numbers = np.unique(ends, return_inverse=True)
    first, second = numbers.reshape(-1, 2).T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(len(positions), len(positions)))
    _, labels = csgraph.connected_components(graph, directed=False)
    order = np.argsort(labels, kind="stable")
    return [group.tolist() for group in np.split(positions[order], np.cumsum(np.bincount(labels))[:-1])]


def _drop_near(store: ScanStore, pairs: list[Pair]) -> None:
    """Keeps the best copy of a photo: the largest, then the least compressed, then the first."""
    mirrored = {(pair.first, pair.second) for pair in pairs if pair.mirrored}
    for group in group_pairs(pair for pair in pairs if pair.same):
        best = min(group, key=lambda pos: _quality_key(store, pos))
        for pos in group:
            if pos != best:
                how = "mirrored, of" if (min(pos, best), max(pos, best)) in mirrored else "of"
                reason = f"near_duplicate: another copy {how} the same photo"
                store.base.execute("update decided set reason = ?, duplicate_of = ? where pos = ?", (reason, best, pos))


def _quality_key(store: ScanStore, pos: int) -> tuple[float, float, int]:
    """Smaller is better."""
    query = f"select s.inner_width * s.inner_height, 1.0 * l.bytes / (s.width * s.height) {LISTED} where l.pos = ?"
    pixels, compressed = store.base.execute(query, (pos,)).fetchone()
    return -pixels, -compressed, pos


# ---- the view classifier ----------------------------------------------------------------------------------------


def _classify(store: ScanStore, clean: Clean, classifier: Any, decisions: dict[str, Decision]) -> dict[str, Any]:
    """ok_score, view and confidence of all files with features; a reason for those that passed the rules and fail."""
    classifier, labels = _few_shot_classifier(store, classifier, decisions)
    threshold = classifier.threshold if clean.min_ok_score is None else clean.min_ok_score
    store.base.execute("update decided set ok_score = 0.0")
    for positions, features in store.feature_blocks():
        predictions = classifier.predict(features, clean.views)
        query = "select pos, reason, duplicate_of from decided where pos between ? and ?"
        ruled = store.base.execute(query, (int(positions[0]), int(positions[-1])))
        by_pos = {pos: rest for pos, *rest in ruled}
        views, confidences = predictions.view_probs.argmax(axis=1), predictions.view_probs.max(axis=1)
        rows = []
        for pos, score, slug, number, confidence in zip(
            positions.tolist(), predictions.ok_score.tolist(), predictions.reasons, views, confidences.tolist(),
            strict=True,
        ):  # fmt: skip
            reason, copy = by_pos[pos]
            view, decided_by = VIEWS[number], "rule" if reason else "model"
            score = round(min(max(score, 0.0), 1.0), 4)
            if reason and copy is None:
                score = round(min(score, CAPPED * threshold), 4)
            elif not reason and score < threshold:
                reason = f"{slug}: ok_score {score:.4f}, kept from {threshold:.4f}"
            elif not reason:
                reason = _view_reason(clean, view, confidence)
            rows.append((score, view, round(confidence, 4), reason, decided_by, pos))
        columns = "ok_score = ?, view = ?, view_confidence = ?, reason = ?, decided_by = ?"
        store.base.executemany(f"update decided set {columns} where pos = ?", rows)
    return {"name": classifier.name, "sha256": classifier.sha256, "threshold": round(threshold, 6), "labels": labels}


def _view_reason(clean: Clean, view: str, confidence: float) -> str | None:
    if clean.views is not None and view not in clean.views:
        return f"view: {view}"
    if confidence < clean.min_view_confidence:
        return f"view: {view} with {confidence:.2f}, kept from {clean.min_view_confidence:.2f}"
    return None


def _few_shot_classifier(store: ScanStore, classifier: Any, decisions: dict[str, Decision]) -> tuple[Any, int]:
    """The classifier, fitted to a person's labels when there are at least MIN_LABELS, and their number, else 0."""
    features, ok, views = [], [], []
    for sha256, one in sorted(decisions.items()):
        query = "select f.features from scanned s join features f using (id) where s.sha256 = ? limit 1"
        found = store.base.execute(query, (sha256,)).fetchone()
        if found is not None:
            features.append(to_features(found[0]))
            ok.append({"keep": 1, "drop": 0}.get(one.verdict, -1))
            views.append(VIEWS.index(one.view) if one.view else -1)
    if len(features) < MIN_LABELS:
        return classifier, 0
    return classifier.fit_labels(np.stack(features), np.array(ok, np.int8), np.array(views, np.int8)), len(features)


# ---- a person ---------------------------------------------------------------------------------------------------


def _apply_decisions(store: ScanStore, clean: Clean, decisions: dict[str, Decision]) -> None:
    """A person's verdict and view override rules and model. Damaged files and exact duplicates stay out."""
    for sha256, decision in sorted(decisions.items()):
        query = f"select l.pos, d.reason, d.view {LISTED} join decided d on d.pos = l.pos where s.sha256 = ?"
        for pos, reason, view in store.base.execute(query, (sha256,)).fetchall():
            if to_slug(reason) not in ("duplicate", *UNDECODED, *UNPLACED):
                _apply_decision(store, clean, decision, pos, reason, view)


def _apply_decision(
    store: ScanStore, clean: Clean, decision: Decision, pos: int, reason: str | None, view: str | None
) -> None:
    if decision.view:
        store.base.execute("update decided set view = ?, view_confidence = 1.0 where pos = ?", (decision.view, pos))
    if decision.verdict == "keep":
        reason = None
    elif decision.verdict == "drop":
        reason = f"person: {decision.note}".rstrip(": ").replace("\n", " ")
    elif decision.view and decision.view != view and to_slug(reason) in ("", "view"):
        reason = _view_reason(clean, decision.view, 1.0)
    else:
        return
    copy = ", duplicate_of = null" if reason is None else ""
    store.base.execute(f"update decided set reason = ?, decided_by = 'person'{copy} where pos = ?", (reason, pos))


# ---- sides and splits -------------------------------------------------------------------------------------------


def _mark_mirrored(store: ScanStore, clean: Clean) -> None:
    if clean.mirror_to is not None:
        turned = NOSE_RIGHT if clean.mirror_to == "left" else NOSE_LEFT
        store.base.execute(f"update decided set mirrored = 1 where view in {turned}")


def _group_splits(store: ScanStore, pairs: list[Pair]) -> None:
    """Pictures that are, or may be, copies of one photo share a split, that of their smallest hash."""
    for group in group_pairs(pairs):
        query = "select split_key from decided where pos = ?"
        smallest = min(store.base.execute(query, (pos,)).fetchone()[0] for pos in group)
        store.base.executemany("update decided set split_key = ? where pos = ?", [(smallest, pos) for pos in group])
