"""What all chapters need and none teaches: files, options, runs, reports, the hub."""

import sys
from types import TracebackType


def _told(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Ctrl-C while a command is still being imported is no error."""
    if kind is KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _told
