"""What is wrong with one key pattern, and how it is written right."""

from __future__ import annotations

import re
from collections.abc import Iterator

from is_db_bootstrap.blueprint.check import repeated_names
from is_db_bootstrap.blueprint.declarations import KeyPattern

#: A placeholder. Python's `\w`, so that `{kunde_größe}` is one.
PLACEHOLDER = re.compile(r"\{(\w+)\}")

#: What people write for a placeholder elsewhere, and the name that stands in it: templates
#: (`{{id}}`, `${id}`, `#{id}`), routes (`<id>`, `<int:id>`), and formats (`%(id)s`, `%s`).
_FOREIGN_PLACEHOLDER = re.compile(
    r"\{\{(?P<template>[^{}]*)\}\}"
    r"|[$#]\{(?P<shell>\w+)\}"
    r"|<(?:\w+:)?(?P<route>\w[\w\- ]*)>"
    r"|%\((?P<named>\w+)\)[sdif]"
    r"|%[sdifu](?!\w)"
)
#: Braces around what is no name: `{tenant-id}`, `{id:[0-9]+}`, `{a,b}`, `{}`.
_NO_NAME = re.compile(r"\{([^{}]*)\}")
#: Wildcards of Redis's own patterns. Braces are none there.
_WILDCARD = re.compile(r"\*+|\?+|\[[^\[\]{}]+\]")
#: What a placeholder is named when nothing tells its name.
_UNNAMED = "id"


def pattern_problems(key: KeyPattern) -> Iterator[str]:
    """Each thing that is wrong with the pattern of `key`, with the right spelling."""
    spelled = _spelling_problem(key.pattern)
    if spelled:
        yield spelled
        return
    names = PLACEHOLDER.findall(key.pattern)
    literals = PLACEHOLDER.sub("", key.pattern)
    if not key.pattern or "{" in literals or "}" in literals:
        yield f"the pattern {key.pattern!r} has a brace without its other half"
    if repeated_names(names):
        yield f"the pattern {key.pattern!r} names a placeholder twice"
    yield from _expression_problems(key, names)


def _spelling_problem(pattern: str) -> str:
    """How a pattern that can match nothing as it is meant is written. Empty for any other."""
    found = _FOREIGN_PLACEHOLDER.search(pattern)
    if found:
        right = _respelled(_FOREIGN_PLACEHOLDER, pattern)
        of_tags = ". It fits a hash tag with its braces too" if found["template"] else ""
        return (
            f"the pattern {pattern!r} has {found[0]}, but a placeholder is a name in single "
            f"braces: {right!r}{of_tags}"
        )
    braces = next((m for m in _NO_NAME.finditer(pattern) if not PLACEHOLDER.fullmatch(m[0])), None)
    if braces:
        right = _respelled(_NO_NAME, pattern)
        has_expression = ":" in braces[0] or "," in braces[0]
        where = ". Its expression goes into placeholders" if has_expression else ""
        return (
            f"the pattern {pattern!r} has {braces[0]}, but a placeholder is a name of letters, "
            f"digits and _: {right!r}{where}"
        )
    wildcard = _WILDCARD.search(PLACEHOLDER.sub("", pattern))
    if wildcard:
        return _wildcard_problem(pattern, wildcard[0])
    if pattern != pattern.strip() or re.search(r"\s:|:\s", pattern):
        right = re.sub(r"\s*:\s*", ":", pattern.strip())
        return f"the pattern {pattern!r} has a blank at its end or beside a colon: {right!r}"
    return ""


def _wildcard_problem(pattern: str, wildcard: str) -> str:
    right = _respelled(_WILDCARD, pattern)
    return (
        f"the pattern {pattern!r} has {wildcard}, which is no wildcard here: {right!r}. "
        f"For just this text, give a placeholder the expression {re.escape(wildcard)!r}"
    )


def _respelled(foreign: re.Pattern[str], pattern: str) -> str:
    """`pattern` with a placeholder of this tool in the place of each foreign one."""
    kept = foreign.sub(lambda found: found[0] if PLACEHOLDER.fullmatch(found[0]) else "", pattern)
    taken = set(PLACEHOLDER.findall(kept))

    def placeholder(found: re.Match[str]) -> str:
        if PLACEHOLDER.fullmatch(found[0]):
            return found[0]
        told = next(filter(None, found.groups()), "")
        name = _free_name(_as_name(told), taken)
        taken.add(name)
        return f"{{{name}}}"

    return foreign.sub(placeholder, pattern)


def _as_name(told: str) -> str:
    """A name made of what stood between braces: `tenant-id` is `tenant_id`, `id:int` is `id`."""
    before = told.partition(":")[0]
    name = re.sub(r"\W+", "_", before).strip("_")
    return name if name and not name.isdecimal() else _UNNAMED


def _free_name(name: str, taken: set[str]) -> str:
    number, free = 2, name
    while free in taken:
        free, number = f"{name}_{number}", number + 1
    return free


def _expression_problems(key: KeyPattern, names: list[str]) -> Iterator[str]:
    is_each_right = True
    for name, expression in key.placeholders.items():
        if name not in names:
            yield f"the placeholder {name!r} is not in the pattern {key.pattern!r}"
        if problem := _compile_problem(expression):
            is_each_right = False
            yield f"the expression {expression!r} of {name!r}: {problem}"
    if is_each_right and (problem := _compile_problem(key.expression)):
        yield f"the expressions of the pattern {key.pattern!r} do not stand together: {problem}"


def _compile_problem(expression: str) -> str:
    try:
        re.compile(expression)
    except (re.error, RecursionError, OverflowError) as exc:
        return str(exc) or type(exc).__name__
    return ""
