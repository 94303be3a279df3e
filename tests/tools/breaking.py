"""Breaks code at a place that was named, or where nobody chose to.

A named place is a function and a pattern in it (`break_text`). The pattern is compared token by
token, so blanks, line breaks, comments and the comma that a formatter adds make no difference: a
change of shape does not lose it. It has to be found exactly once.

Elsewhere the code is broken by its syntax tree (`find_wounds`): a comparison is flipped, a
condition negated, a constant changed, a call dropped, a return changed. Annotations, docstrings
and messages for people stay as they are: there is nothing that a test could notice.
"""

import ast
import difflib
import re
import textwrap
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Final, NamedTuple

TOKEN: Final = re.compile(r'"[^"\n]*"|\w+|[^\w\s]')
GAP: Final = r"(?:\s|#[^\n]*)*"  # what may stand between two tokens: a comment as well
FLIPPED: Final[dict[type[ast.cmpop], type[ast.cmpop]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
LOGS: Final = ("write_log", "warn_sparingly")  # what they say is for people


class Wound(NamedTuple):
    """A place in a file where the code is broken, and what then stands there."""

    path: str
    line: int
    kind: str
    start: int  # offsets in the text of the file
    end: int
    new: str


# ---- a named place -----------------------------------------------------------------------------


def break_text(text: str, function: str, old: str, new: str) -> str:
    """Replace what a pattern finds in a function. Raises ValueError unless that is found once.

    `function` is a qualified name (`Desk.join`), or empty for the whole file.
    """
    start, end = find_function(text, function)
    found = [*re.finditer(compile_pattern(old), text[start:end])]
    if len(found) != 1:
        place = function or "the file"
        raise ValueError(f"{old!r} stands in {place} {len(found)} times, not once")
    first, last = start + found[0].start(), start + found[0].end()
    return text[:first] + indent_like(text, first, new) + text[last:]


def compile_pattern(old: str) -> str:
    """A regular expression for a piece of code, however it is laid out."""
    tokens = TOKEN.findall(old)
    parts = [r"(?<!\w)" if tokens[0][0].isalnum() else "", re.escape(tokens[0])]
    for before, token in pairwise(tokens):
        are_words = before[-1].isalnum() and token[0].isalnum()
        comma = ",?" + GAP if token in ")]}" and before not in "([{," else ""
        parts += [r"\s+" if are_words else GAP, comma, re.escape(token)]
    parts.append(r"(?!\w)" if tokens[-1][-1].isalnum() else "")
    return "".join(parts)


@cache
def parse(text: str) -> ast.Module:
    """The syntax of a file, in which many places are looked for."""
    return ast.parse(text)


def find_function(text: str, name: str) -> tuple[int, int]:
    """The offsets at which a function or class begins and ends. Raises ValueError without it."""
    node: ast.AST = parse(text)
    for part in filter(None, name.split(".")):
        inside = [each for each in ast.walk(node) if getattr(each, "name", "") == part]
        if not inside:
            raise ValueError(f"there is no {name!r}")
        node = inside[0]
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        lines = text.splitlines(keepends=True)
        end = len("".join(lines[: node.end_lineno]))
        return len("".join(lines[: node.lineno - 1])), end
    return 0, len(text)


def indent_like(text: str, place: int, new: str) -> str:
    """Several lines that stand where one stood: all as deep as the line of that place."""
    line = text[text.rfind("\n", 0, place) + 1 : place]
    depth = len(line) - len(line.lstrip())
    return textwrap.indent(new, " " * depth).lstrip(" ")


# ---- where nobody chose to ---------------------------------------------------------------------


def find_wounds(path: str, text: str) -> list[Wound]:
    """All the ways in which the code of a file can be broken, in the order of their lines."""
    tree = ast.parse(text)
    untouched = set(map(id, quiet_nodes(tree)))
    lines = text.splitlines(keepends=True)
    starts = [0, *accumulate(map(len, lines))]

    def offset_of(line: int, column: int) -> int:
        """The offset of a place as `ast` names it: a line from 1, and a column in bytes."""
        return starts[line - 1] + len(lines[line - 1].encode()[:column].decode())

    wounds = []
    for node in ast.walk(tree):
        if id(node) in untouched:
            continue
        for kind, part, new in break_node(node):
            start = offset_of(part.lineno, part.col_offset)
            end = offset_of(part.end_lineno or 0, part.end_col_offset or 0)
            wounds.append(Wound(path, part.lineno, kind, start, end, new))
    return sorted(wounds, key=lambda wound: (wound.start, wound.kind, wound.new))


def quiet_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Parts that no test could notice: annotations, docstrings, messages of errors and of the log.

    And what stands in an f-string, whose places `ast` does not know before Python 3.12.
    """
    for node in ast.walk(tree):
        quiet: list[ast.AST | None] = []
        match node:
            case ast.FunctionDef():
                quiet = [node.returns, *node.decorator_list]
            case ast.arg() | ast.AnnAssign():
                quiet = [node.annotation]
            case ast.Raise(exc=ast.Call() as call):
                quiet = [*call.args]
            case ast.Expr(value=ast.Call(func=ast.Name(id=name))) if name in LOGS:
                quiet = [node]
            case ast.Expr(value=ast.Constant()) | ast.JoinedStr():
                quiet = [node]
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Compare(left=ast.Name("__name__"))):
                quiet = [node]
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                quiet = [node]
            case _:
                continue
        for each in filter(None, quiet):
            yield from ast.walk(each)


def break_node(node: ast.AST) -> Iterator[tuple[str, ast.expr | ast.stmt, str]]:
    """The ways to break one node: the kind, the part that is replaced, and by what."""
    match node:
        case ast.Compare(ops=[operator], comparators=[right]):
            flipped = ast.Compare(node.left, [FLIPPED[type(operator)]()], [right])
            yield "comparison flipped", node, f"({ast.unparse(flipped)})"
        case ast.If() | ast.While() | ast.IfExp():
            yield "condition negated", node.test, f"(not ({ast.unparse(node.test)}))"
        case ast.Constant():
            if new := change_constant(node.value):
                yield "constant changed", node, new
        case ast.Expr(value=ast.Call()):
            yield "call dropped", node, "pass"
        case ast.Return(value=ast.expr() as value):
            yield "return changed", node, change_return(value)
        case _:
            return


def change_constant(value: object) -> str:
    """Another constant of the same type; none for text that is for people."""
    match value:
        case bool():
            return repr(not value)
        case int():
            return repr(value + 1)
        case float():
            return repr(value * 2 + 1)
        case str() if re.fullmatch(r"[\w:-]+", value):
            return repr(f"{value}x")
        case _:
            return ""


def change_return(value: ast.expr) -> str:
    """A return of something else: the opposite of a truth, and nothing in place of a value."""
    match value:
        case ast.Constant(value=bool() as truth):
            return f"return {not truth}"
        case ast.Compare() | ast.BoolOp() | ast.UnaryOp(op=ast.Not()):
            return f"return not ({ast.unparse(value)})"
        case ast.Constant(value=None):
            return "return 1"
        case _:
            return "return None"


def apply_wound(text: str, wound: Wound) -> str:
    """The text of a file, broken. Raises SyntaxError if no program is left of it."""
    broken = text[: wound.start] + wound.new + text[wound.end :]
    ast.parse(broken)
    return broken


def show_wound(root: Path, wound: Wound) -> str:
    """File, line, kind, and the lines before and after."""
    text = (root / wound.path).read_text(encoding="utf-8")
    before, after = text.splitlines(), apply_wound(text, wound).splitlines()
    changes = difflib.unified_diff(before, after, n=0, lineterm="")
    lines = [line for line in changes if not line.startswith(("---", "+++", "@@"))]
    return "\n".join([f"{wound.path}:{wound.line}: {wound.kind}", *lines])
