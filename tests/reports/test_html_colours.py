"""Every text of the page has the contrast that WCAG AA asks for, in both themes."""

import re

import pytest

from harness.reports.html.document import environment

TEXTS = {
    "text": ("page", "surface", "sunken", "invalid-ground", "unknown-ground", "valid-ground"),
    "muted": ("page", "surface", "sunken", "invalid-ground", "unknown-ground"),
    "link": ("page", "surface", "sunken"),
    "valid": ("valid-ground", "surface", "sunken"),
    "invalid": ("invalid-ground", "surface"),
    "unknown": ("unknown-ground", "surface"),
    "surface": ("text",),
}
"""Text colours, and the grounds that they stand on."""
GRAPHICS = {"focus": ("page", "surface", "sunken"), "strong-line": ("page", "surface")}
GRAPHICS |= {f"{verdict}-mark": ("surface", f"{verdict}-ground") for verdict in ("valid", "invalid", "unknown")}
GRAPHICS |= {f"c{number}": ("surface",) for number in range(1, 9)}
"""Colours of lines and marks: 3 to 1 suffices."""


def _theme(name: str) -> dict[str, str]:
    module = environment().get_template("themes.css").module
    return dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6});", str(getattr(module, name)())))


def _luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_black_on_white() -> None:
    assert _contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("pairs", "least"), [(TEXTS, 4.5), (GRAPHICS, 3.0)], ids=["texts", "graphics"])
def test_contrast(theme: str, pairs: dict[str, tuple[str, ...]], least: float) -> None:
    colours = _theme(theme)
    low = {
        (text, ground): round(contrast, 2)
        for text, grounds in pairs.items()
        for ground in grounds
        if (contrast := _contrast(colours[text], colours[ground])) < least
    }
    assert low == {}
