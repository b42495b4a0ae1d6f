"""Options that are times. Their help shows the default from the place where it is written."""

from __future__ import annotations

from collections.abc import Sequence

import click


class Seconds(click.Option):
    """An option that is a number of seconds; `field` is its name in `Timing`, without the `_s`."""

    def __init__(self, names: Sequence[str], field: str, help: str) -> None:  # noqa: A002 - click's
        super().__init__(names, type=click.FloatRange(min=0), metavar="SECONDS", help=help)
        self._field = field

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line in the help. Only now are the defaults imported."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        from is_db_bootstrap.settings.timing import DEFAULT, SETUP_TIMEOUT_S

        default = getattr(DEFAULT, f"{self._field}_s")
        if self._field == "timeout" and ctx.info_name == "setup":
            default = SETUP_TIMEOUT_S
        shown = f"{default:g}" if default else "none"
        return record[0], f"{record[1]} [default: {shown}]"
