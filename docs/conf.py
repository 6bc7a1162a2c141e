"""The documentation site: `make docs`, strict (every warning is an error)."""

import sys
from pathlib import Path

from harness import __version__

sys.path.insert(0, str(Path(__file__).parent / "ext"))

project = "netpol"
author = "the netpol maintainers"
project_copyright = author
version = release = __version__

extensions = ["myst_parser", "netpol_docs", "sphinxarg.ext"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = True
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"netpol {version}"
html_show_sphinx = False
html_copy_source = False
html_extra_path = ["extra"]  # two real reports, served as they are
