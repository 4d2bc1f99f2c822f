"""How Sphinx builds the site: see scripts/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# The package's Python files alone: what is compiled is loaded when it is first needed.
sys.path.insert(0, str(ROOT / "python-shim" / "python"))

project = "leakline"
author = "the leakline authors"
copyright = author
version = release = re.findall(
    r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
)[0]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
html_theme = "furo"
html_title = "leakline"
html_copy_source = False
html_show_sphinx = False

# `[text](page.md#a-heading)` leads to headings, and is checked.
myst_heading_anchors = 4
myst_enable_extensions = ["deflist"]

# Docstrings write `name` for what is code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "mixed"
python_use_unqualified_type_names = True
add_module_names = False
nitpicky = False
