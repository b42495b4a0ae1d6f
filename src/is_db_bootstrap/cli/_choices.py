"""An option with a few values. A value that does not exist is told with the nearest one."""

from __future__ import annotations

from typing import Any

import click

from is_db_bootstrap.nearest import nearest


class WordChoice(click.Choice):  # type: ignore[type-arg]  # generic since click 8.2
    """A choice that suggests the nearest value."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The chosen value. Raises `click.BadParameter`, which names the nearest one."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as exc:
            near = nearest(str(value), [str(choice) for choice in self.choices])
            if not near:
                raise
            refusal = f"{exc.message.rstrip('.')}. Did you mean {near!r}?"
            raise click.BadParameter(refusal, ctx, param) from exc
