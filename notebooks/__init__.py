"""The chapters as stories, and exercises."""

import sys

import common  # noqa: F401  # before anything here loads PyTorch

# nbformat checks files by jsonschema, which would make 38 parsers of internet names from this, three seconds at each start.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
