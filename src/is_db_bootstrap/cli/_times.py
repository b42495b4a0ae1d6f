"""Options that are times. Their help shows the default from the place where it is written."""

from __future__ import annotations

from collections.abc import Sequence

import click


class Seconds(click.Option):
    """An option that is a number of seconds.

    `field` is the name of its setting in `Timing`, without the `_s`.
    """

    def __init__(
        self,
        names: Sequence[str],
        field: str,
        help: str,  # noqa: A002 - click calls this parameter so
    ) -> None:
        super().__init__(names, type=click.FloatRange(min=0), metavar="SECONDS", help=help)
        self._field = field

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """The line of this option in the help. Only here are the defaults imported."""
        record = super().get_help_record(ctx)
        if record is None:
            return None
        names, help_text = record
        default_s = self._default_seconds(ctx.info_name)
        shown = f"{default_s:g}" if default_s else "none"
        return names, f"{help_text} [default: {shown}]"

    def _default_seconds(self, command: str | None) -> float | None:
        """The default of this option in `command`. Zero and None mean that there is no limit."""
        from is_db_bootstrap.settings.timing import DEFAULT, SETUP_TIMEOUT_S

        if command == "setup" and self._field == "timeout":
            return SETUP_TIMEOUT_S
        default: float | None = getattr(DEFAULT, f"{self._field}_s")
        return default
