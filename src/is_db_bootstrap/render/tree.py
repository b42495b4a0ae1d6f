"""A blueprint's document as a tree for people."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

#: Wide enough that a line of a definition stays one when the output is no terminal.
WIDTH = 200


def tree(document: Mapping[str, Any]) -> None:
    """Print a document of `description.describe`; words of definitions are as the server writes them."""
    root = Tree(_head(document["name"], document["summary"]))
    for store, declared in document["stores"].items():
        _STORES[store](root.add(Text(store, style="bold")), declared)
    if document["settings"]:
        branch = root.add(Text("settings", style="bold"))
        for setting in document["settings"]:
            branch.add(_head(f"{setting['name']}={setting.get('default', '')}", setting["meaning"]))
    Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else WIDTH).print(
        root
    )


def _head(name: str, rest: str = "") -> Text:
    return Text.assemble((name, "cyan"), f"  {rest}" if rest else "")


def _named(branch: Tree, title: str, rows: Mapping[str, Any]) -> None:
    if rows:
        part = branch.add(f"{title} ({len(rows)})")
        for name, definition in rows.items():
            part.add(_head(name, str(definition)))


def _postgres(branch: Tree, declared: Mapping[str, Any]) -> None:
    _named(branch, "revisions", {r["id"]: r["title"] for r in declared["revisions"]})
    tables = branch.add(f"tables ({len(declared['tables'])})") if declared["tables"] else branch
    for name, table in declared["tables"].items():
        one = tables.add(_head(name))
        for kind, rows in table.items():
            if kind != "references":  # they are among the constraints
                _named(one, kind, rows)
    for kind, rows in declared.items():
        if kind not in {"revisions", "tables"}:
            _named(branch, kind.replace("_", " "), rows)


def _neo4j(branch: Tree, declared: Mapping[str, Any]) -> None:
    for file in declared["files"]:
        part = branch.add(_head(file["name"], "; ".join(file["preconditions"])))
        for found in file["objects"]:
            part.add(_head(f"{found['kind']} {found['name']}", _on(found)))
        if file["other_statements"]:
            part.add(f"{file['other_statements']} other statements")
    _named(
        branch, "labels", {label: ", ".join(names) for label, names in declared["labels"].items()}
    )
    _named(
        branch,
        "relationships",
        {name: _ends(ends) for name, ends in declared["relationships"].items()},
    )


def _on(found: Mapping[str, Any]) -> str:
    labels = "|".join(found["labels"])
    where = f"(:{labels})" if found["entity"] == "NODE" else f"()-[:{labels}]-()"
    return f"{found['type']} on {where} ({', '.join(found['properties'])})"


def _ends(ends: Mapping[str, Any]) -> str:
    carried = f"  {{{', '.join(ends['properties'])}}}" if ends["properties"] else ""
    return f"{', '.join(ends['from'])} → {', '.join(ends['to'])}{carried}"


def _milvus(branch: Tree, declared: Mapping[str, Any]) -> None:
    for collection in declared["collections"]:
        one = branch.add(
            _head(
                collection["name"],
                f"alias {collection['alias']}" if collection.get("alias") else "",
            )
        )
        for part, rows in collection.items():
            if isinstance(rows, list):
                _named(
                    one,
                    part,
                    {
                        r.get("name") or r["field"]: _rest(r, "name", "field")
                        for r in rows
                        if isinstance(r, dict)
                    },
                )
        one.add(
            _rest({k: v for k, v in collection.items() if not isinstance(v, list)}, "name", "alias")
        )


def _redis(branch: Tree, declared: Mapping[str, Any]) -> None:
    _named(branch, "keys", {k["pattern"]: _key(k) for k in declared["keys"]})
    _named(branch, "channels", {c["pattern"]: c["purpose"] for c in declared["channels"]})


def _key(key: Mapping[str, Any]) -> str:
    ttl = key.get("ttl")
    lifetime = (
        "persistent"
        if ttl is None
        else f"{'..'.join(map(str, ttl)) if isinstance(ttl, list) else ttl} s"
    )
    return f"{key['type']}, {lifetime}: {key['purpose']}"


def _rest(row: Mapping[str, Any], *without: str) -> str:
    return ", ".join(
        name if held is True else f"{name} {held}"
        for name, held in row.items()
        if name not in without
    )


_STORES = {"postgres": _postgres, "neo4j": _neo4j, "milvus": _milvus, "redis": _redis}
