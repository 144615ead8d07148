"""The few emoji that our messages use, drawn, so that a picture needs no emoji font.

Slack shows its own drawings as well. Others are left to the fonts of the machine.
"""

from __future__ import annotations

_ROUND = '<circle cx="10" cy="10" r="9" fill="{fill}"/>'
_TILE = '<rect x="1" y="1" width="18" height="18" rx="4" fill="{fill}"/>'
_STROKE = 'fill="none" stroke="#fff" stroke-width="2.6" stroke-linecap="round"'

#: The inside of an SVG with sides of 20, by character.
DRAWN: dict[str, str] = {
    "✅": _TILE.format(fill="#3f9f4f") + f'<path d="M5 10.5l3.4 3.6L15 6.6" {_STROKE}/>',
    "☑": _TILE.format(fill="#4a7fd1") + f'<path d="M5 10.5l3.4 3.6L15 6.6" {_STROKE}/>',
    "✔": '<path d="M3 11l4.4 4.6L17 5" fill="none" stroke="#3f9f4f" stroke-width="3"/>',
    "⛔": _ROUND.format(fill="#d5323b") + '<rect x="4" y="8" width="12" height="4" fill="#fff"/>',
    "❌": '<path d="M4 4l12 12M16 4L4 16" stroke="#d5323b" stroke-width="4" fill="none"/>',
    "⏸": _TILE.format(fill="#4a7fd1") + f'<path d="M7.5 5.5v9M12.5 5.5v9" {_STROKE}/>',
    "⏳": (
        '<path d="M4 2h12M4 18h12" stroke="#8a6d3b" stroke-width="2.4"/>'
        '<path d="M5.5 3h9c0 4-2.6 5.4-3.7 7 1.1 1.6 3.7 3 3.7 7h-9c0-4 2.6-5.4 '
        '3.7-7-1.1-1.6-3.7-3-3.7-7z" fill="#f2d18b"/>'
    ),
    "↩": _TILE.format(fill="#4a7fd1") + f'<path d="M8 5L4.6 8.4 8 12M5 8.4h7a3 3 0 0 1 '
    f'0 6h-3" {_STROKE}/>',
    "▶": _TILE.format(fill="#4a7fd1") + '<path d="M7 5l8 5-8 5z" fill="#fff"/>',
    "⚠": (
        '<path d="M10 1.5L19 18H1z" fill="#f0b429"/>'
        '<path d="M10 7v5.5" stroke="#3b2b00" stroke-width="2"/>'
        '<circle cx="10" cy="15.2" r="1.3" fill="#3b2b00"/>'
    ),
    "🚨": (
        '<path d="M4 15v-5a6 6 0 0 1 12 0v5z" fill="#d5323b"/>'
        '<rect x="2" y="15" width="16" height="3.5" rx="1" fill="#6b7280"/>'
        '<path d="M7 10a3 3 0 0 1 3-3" stroke="#fff" stroke-width="1.6" fill="none"/>'
    ),
    "🔴": _ROUND.format(fill="#d5323b"),
    "🟠": _ROUND.format(fill="#e5873a"),
    "🟡": _ROUND.format(fill="#f0c03a"),
    "🟢": _ROUND.format(fill="#3f9f4f"),
    "🔵": _ROUND.format(fill="#4a7fd1"),
    "💰": (
        '<path d="M7 2h6l-1.6 3.4C15.5 7.5 17.5 11 17.5 14c0 3-2.5 4.5-7.5 4.5S2.5 17 '
        '2.5 14c0-3 2-6.5 6.1-8.6z" fill="#c9973b"/>'
        '<text x="10" y="16" font-size="9" font-weight="700" text-anchor="middle" '
        'fill="#fff">$</text>'
    ),
    "🔎": (
        '<circle cx="8" cy="8" r="5.5" fill="#dff0fb" stroke="#4a6a85" stroke-width="2.2"/>'
        '<path d="M12 12l6 6" stroke="#8a6d3b" stroke-width="3" stroke-linecap="round"/>'
    ),
    "ℹ": (
        _TILE.format(fill="#4a7fd1")
        + '<path d="M10 9v6" stroke="#fff" stroke-width="2.6" stroke-linecap="round"/>'
        '<circle cx="10" cy="5.5" r="1.6" fill="#fff"/>'
    ),
    "🔔": (
        '<path d="M4 15c2-2 1-9 6-10 5 1 4 8 6 10z" fill="#f0b429"/>'
        '<circle cx="10" cy="16.5" r="2" fill="#c98d12"/>'
    ),
    "👀": (
        '<ellipse cx="5.5" cy="10" rx="4.3" ry="6" fill="#fff" stroke="#777"/>'
        '<ellipse cx="14.5" cy="10" rx="4.3" ry="6" fill="#fff" stroke="#777"/>'
        '<circle cx="4.5" cy="11" r="2.2" fill="#222"/>'
        '<circle cx="13.5" cy="11" r="2.2" fill="#222"/>'
    ),
    "🙋": (
        '<circle cx="10" cy="7" r="4" fill="#f0c03a"/>'
        '<path d="M3 19c0-5 3-7 7-7s7 2 7 7z" fill="#8250c4"/>'
        '<path d="M16.5 12V3" stroke="#f0c03a" stroke-width="2.4" stroke-linecap="round"/>'
    ),
    "❄": (
        '<path d="M10 1.5v17M2.6 5.7l14.8 8.6M17.4 5.7L2.6 14.3" stroke="#6bb3e0" '
        'stroke-width="2" stroke-linecap="round"/>'
    ),
}
#: Names that Slack turns into pictures, as far as our messages could use them.
SHORT_NAMES: dict[str, str] = {
    "white_check_mark": "✅",
    "no_entry": "⛔",
    "x": "❌",
    "warning": "⚠️",
    "rotating_light": "🚨",
    "double_vertical_bar": "⏸️",
    "hourglass_flowing_sand": "⏳",
    "leftwards_arrow_with_hook": "↩️",
    "red_circle": "🔴",
    "large_green_circle": "🟢",
    "large_yellow_circle": "🟡",
    "eyes": "👀",
    "moneybag": "💰",
}


def drawing(char: str) -> str:
    """Return a drawn emoji as inline SVG; it is named by its character for readers of text."""
    bare = char.removesuffix("\ufe0f")
    return (
        f'<svg class="emoji" viewBox="0 0 20 20" role="img" aria-label="{bare}">'
        f"<title>{bare}</title>{DRAWN[bare]}</svg>"
    )
