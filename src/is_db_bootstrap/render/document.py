"""The result as one JSON document."""

import json

from is_db_bootstrap.results import BootstrapResult


def document(result: BootstrapResult, *, verbose: bool = False) -> None:  # noqa: ARG001 - renderers share a signature
    """Print the document of `docs/reference/result.schema.json` to stdout."""
    print(json.dumps(result.to_dict(), indent=2, ensure_ascii=False))  # noqa: T201 - this is the output
