"""What the machine refuses a command, in words: a full disk, a folder that is gone, too many files.

A store's own errors, and those of a setting, are told where they arise. What is left are calls of
the operating system that may fail anywhere, and so are told in the last place.
"""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path

from is_db_bootstrap.errors import BootstrapError, ConfigurationError
from is_db_bootstrap.sentences import encodable

_ROOM = "Make room there, and run again."
_FILES = "Let the process open more files (ulimit -n 1024), and run again."
_MAY = "See who owns it, and whether this user may use it."
_THERE = "See that the path is right, and that it is there."
#: Four clients open about forty files and connections. gRPC ends the process when it gets none.
_FEWEST_FILES = 64
#: What to do about each error of the operating system that a user can mend.
_HINTS = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.EAGAIN: "Let this user run more processes (ulimit -u), and run again.",
    errno.ENOMEM: "Give the process more memory, and run again.",
    errno.EACCES: _MAY,
    errno.EPERM: _MAY,
    errno.EROFS: "It is on a file system that is read only. Give another path.",
    errno.ENOENT: _THERE,
    errno.ENOTDIR: _THERE,
    errno.EISDIR: "It is a folder, and a file is expected. Give another path.",
    errno.EEXIST: "It is in the way. Remove it, or give another path.",
    errno.ENOTEMPTY: "It is in the way. Remove it, or give another path.",
    errno.ELOOP: "Its symbolic links lead back to themselves. Give another path.",
    errno.ENAMETOOLONG: "Give a shorter path.",
    errno.EIO: "See that the disk is in order.",
}


def refuse_few_files() -> None:
    """Raise `ConfigurationError` where the process may open too few files for its clients."""
    allowed, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= allowed < _FEWEST_FILES:
        raise ConfigurationError(
            f"This process may open {allowed} files, and a run needs {_FEWEST_FILES}.", hint=_FILES
        )


def refusal_of_machine(error: BaseException) -> BootstrapError | None:
    """The error of a call of the operating system as one of ours, or None for any other error."""
    if isinstance(error, MemoryError):
        return BootstrapError("There is not enough memory.", hint=_HINTS[errno.ENOMEM])
    if not isinstance(error, OSError) or error.errno not in _HINTS:
        return None
    if error.filename is None and not _has_working_directory():
        return ConfigurationError(
            "The working directory is gone: somebody has removed it.",
            hint="Change to a folder that is there, and run again.",
        )
    names = [name for name in (error.filename, error.filename2) if name is not None]
    what = " and ".join(encodable(os.fsdecode(name)) for name in names if name != "")
    reason = error.strerror or type(error).__name__
    subject = f"{what}: {reason}" if what else f"The operating system says: {reason}"
    return BootstrapError(f"{subject}.", hint=_HINTS[error.errno])


def _has_working_directory() -> bool:
    try:
        Path.cwd()
    except OSError:
        return False
    return True
