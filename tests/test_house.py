"""Size is a smell: no function takes more than eight parameters, and hardly one is longer than a screen."""

import ast

from tests.paths import ROOT

MOST_PARAMETERS, LONG, MOST_LONG = 8, 60, 5


def functions() -> list[tuple[str, int, int]]:
    """Every function of the package and the recipes: where it stands, its parameters without self, and its lines."""
    found = []
    for path in sorted(path for room in ("rlred", "rewards", "recipes") for path in (ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                told = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
                own = told[1:] if told[:1] in (["self"], ["cls"]) else told
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
                found.append((where, len(own), node.end_lineno - node.lineno + 1))
    return found


def test_no_function_takes_more_than_eight_parameters():
    assert len(functions()) > 500
    assert [where for where, parameters, _ in functions() if parameters > MOST_PARAMETERS] == []


def test_hardly_a_function_is_longer_than_sixty_lines():
    long = [where for where, _, lines in functions() if lines > LONG]
    assert len(long) <= MOST_LONG, long
