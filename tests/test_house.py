"""Size is a smell: no function takes more than eight parameters, and hardly one is longer than a screen."""

import ast

from hypothesis import settings

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


# From the top down, as docs/design.md draws it: a room imports from its own floor and from those below.
FLOORS = (
    ("cli",),
    ("runs", "makers"),
    ("training", "publish"),
    ("compression",),
    ("evaluation", "checks"),
    ("data", "vision", "tiny"),
    ("rewards",),
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def room_of(parts: tuple[str, ...]) -> str | None:
    """The room of a module by its path under rlred/; None for what lies in no room."""
    return "makers" if parts[:2] == ("tiny", "makers") else parts[0] if parts[0] in FLOOR else None


def imported(path) -> set[tuple[str, ...]]:
    """The modules of rlred that a file imports, as paths under rlred/."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
        found |= {tuple(name.split(".")[1:]) for name in names if name.startswith("rlred.")}
    return found


def test_imports_point_down():
    up = []
    for path in sorted((ROOT / "rlred").rglob("*.py")):
        inside = path.relative_to(ROOT / "rlred").parts
        own = room_of(inside) if len(inside) > 1 else None
        for module in imported(path) if own else ():
            other = room_of(module)
            if other and FLOOR[other] < FLOOR[own]:
                up.append(f"rlred/{'/'.join(inside)} imports rlred.{'.'.join(module)}")
    assert up == []


def test_no_property_test_depends_on_the_speed_of_the_machine():
    assert settings.default.deadline is None
