"""The pages' scripts parse, use no undeclared name, and import what their neighbours export: without a browser."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import tree_sitter_javascript
from tree_sitter import Language, Node, Parser

from tests.commands import ROOT

SCRIPTS = [
    ROOT / name
    for name in subprocess.run(["git", "ls-files", "*.js"], cwd=ROOT, capture_output=True, text=True).stdout.split()
]
BROWSER = set(
    """
    Array Boolean Error EventSource Infinity JSON Map Math Number Object Promise String URLSearchParams clearTimeout
    document encodeURIComponent fetch history location matchMedia navigator sessionStorage setTimeout window
""".split()
)
# Node → the fields that declare names.
DECLARING = {
    "variable_declarator": {"name"},
    "function_declaration": {"name", "parameters"},
    "function_expression": {"name", "parameters"},
    "method_definition": {"parameters"},
    "class_declaration": {"name"},
    "arrow_function": {"parameter", "parameters"},
    "catch_clause": {"parameter"},
    "for_in_statement": {"left"},
}


def parse(path: Path) -> Node:
    return Parser(Language(tree_sitter_javascript.language())).parse(path.read_bytes()).root_node


def names_of(node: Node, declares: bool = False) -> Iterator[tuple[str, bool]]:
    """Every identifier below a node, and whether it is declared there."""
    if node.type in ("identifier", "shorthand_property_identifier", "shorthand_property_identifier_pattern"):
        assert node.text
        yield node.text.decode(), declares
    for place, child in enumerate(node.children):
        field = node.field_name_for_child(place)
        if node.type in DECLARING:
            inside = field in DECLARING[node.type]
        elif node.type == "import_clause":
            inside = True
        else:  # a default value and the body of a function use names
            inside = declares and field != "right" and node.type != "statement_block"
        yield from names_of(child, inside)


def test_undeclared_names_are_found(tmp_path):
    script = tmp_path / "a.js"
    script.write_text(
        'import {a} from "./b.js"; const {b, c: [d = e]} = a; function f(g) { return say(g, b.h, {i: d, j}); }'
    )
    names = list(names_of(parse(script)))
    assert {name for name, _ in names} - {name for name, declared in names if declared} == {"e", "say", "j"}


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_a_script_uses_declared_names_alone(path):
    tree = parse(path)
    names = list(names_of(tree))
    assert not tree.has_error
    assert {name for name, _ in names} - {name for name, declared in names if declared} - BROWSER == set()


@pytest.mark.parametrize("path", SCRIPTS, ids=[path.stem for path in SCRIPTS])
def test_what_a_script_imports_is_exported(path):
    for statement in (node for node in parse(path).children if node.type == "import_statement"):
        source = statement.child_by_field_name("source")
        assert source is not None and source.text is not None and statement.text is not None
        if b"* as" in statement.text:
            continue
        exported = {
            name
            for node in parse(path.parent / source.text.decode().strip("\"'")).children
            if node.type == "export_statement"
            for name, declared in names_of(node)
            if declared
        }
        assert {name for name, declared in names_of(statement) if declared} <= exported
