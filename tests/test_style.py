"""The house style that no linter checks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted(ROOT.glob("goose/**/*.py"))
TESTS = sorted(ROOT.glob("tests/**/test_*.py"))
CONDITIONS = {
    match.group(1)
    for module in MODULES
    for match in re.finditer(r"(\w+) = threading\.Condition\(", module.read_text())
}


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_is_short(module: Path) -> None:
    """No module has more than 400 lines, blank ones included."""
    assert 400 >= len(module.read_text().splitlines())


@pytest.mark.parametrize("module", TESTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_each_test_says_what_it_shows(module: Path) -> None:
    """Every test function has a docstring."""
    silent = [
        node.name
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert [] == silent


@pytest.mark.parametrize("module", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_conditions_are_entered_by_their_lock(module: Path) -> None:
    """No `with` is about a condition: whoever is interrupted at its head would leave it locked for ever."""
    if module.is_relative_to(ROOT / "goose" / "testing"):
        return
    entered = [
        f"{module}:{item.context_expr.lineno}"
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.context_expr, ast.Attribute) and item.context_expr.attr in CONDITIONS
    ]

    assert [] == entered
