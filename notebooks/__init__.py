"""The chapters as stories, and exercises."""

import sys

import common  # noqa: F401  # before anything here loads PyTorch

# Where rfc3987_syntax is there, jsonschema (of nbformat) builds 38 parsers with it, three seconds at each start. None is used.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
