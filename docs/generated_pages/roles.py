"""An extension of griffe, which reads docstrings for mkdocstrings: roles (``:class:`X```) become code."""

from typing import Any

import griffe

from generated_pages.markup import without_roles


class Roles(griffe.Extension):
    """Rewrites each docstring once, when it has been read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """The docstring of this object in Markdown."""
        if obj.docstring is not None:
            obj.docstring.value = without_roles(obj.docstring.value)
