"""Sphinx configuration of the documentation site: ``make docs``.

The hand-written pages are the Markdown files of this folder, which also render on GitHub. ``reference.py`` generates
the API reference, the command reference, the configurations, the examples and the changelog into ``_generated``.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

import reference
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

import lightning_cifar

project = "lightning-cifar"
author = "The lightning_cifar developers"
copyright = author
release = version = lightning_cifar.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
myst_heading_anchors = 3  # the anchors that GitHub uses; a link to a missing one is a warning

autodoc_member_order = "bysource"
autodoc_inherit_docstrings = False  # hooks of Lightning are documented by Lightning
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_display_short_literal_types = True
maximum_signature_line_length = 100
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

# The build is offline, so the names of other projects cannot be resolved: torch.Tensor, Path and type aliases.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(os|torch|nn|lightning|numpy|npt|matplotlib|pathlib|collections|typing|argparse|jsonargparse|PIL|np|pl)\..*",
    ),
    ("py:class", r"(Trainer|Path|Figure|Tensor|ArrayLike|NDArray|Any|Callable|Iterator|Iterable|Sequence|Mapping)"),
    # Internal types in signatures of the public API; the text of the docstring describes them.
    ("py:class", r"lightning_cifar\..*|(models|data)\.\w+|Split|BatchLoader|PerSampleLoader|Array"),
    ("py:mod", r"lightning_cifar\..*"),
    ("py:func", r"lightning_cifar\.files\..*"),
]

smartquotes = False  # it would change --option

html_theme = "furo"
html_title = "lightning-cifar"
html_copy_source = False
html_show_sphinx = False


def rewrite_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Add the navigation to the first page, and lead links to other files of the repository to generated pages."""
    source[0] = reference.to_generated_pages(source[0])
    if docname == "index":
        source[0] += reference.NAVIGATION


def resolve_by_name(app: Sphinx, env: BuildEnvironment, node: Any, content: Any) -> Any:
    """Resolve a reference to the module in which a public name is defined, or to the name without its module."""
    name = node.get("reftarget", "").rpartition(".")[2]
    objects = env.domains.python_domain.objects if node.get("refdomain") == "py" else {}
    found = [full for full in objects if full.rpartition(".")[2] == name]
    if len(found) != 1:
        return None
    return make_refnode(
        app.builder, node["refdoc"], objects[found[0]].docname, objects[found[0]].node_id, content, found[0]
    )


def keep_attribute(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Store the docstring of an attribute: napoleon reads the text before a colon, often a shape, as a type."""
    if what == "attribute":
        attributes[name] = list(lines)


def restore_attribute(app: Sphinx, what: str, name: str, value: object, options: object, lines: list[str]) -> None:
    """Undo the change of napoleon, and remove the default text of fields of a NamedTuple."""
    if what == "attribute":
        lines[:] = [line for line in attributes[name] if not line.startswith("Alias for field number")]


attributes: dict[str, list[str]] = {}


def setup(app: Sphinx) -> None:
    """Generate the reference pages and register the link rewriting."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    reference.write_pages(Path(app.srcdir) / "_generated")
    app.connect("source-read", rewrite_links)
    app.connect("missing-reference", resolve_by_name)
    app.connect("autodoc-process-docstring", keep_attribute, priority=400)  # napoleon has 500
    app.connect("autodoc-process-docstring", restore_attribute, priority=600)
