r"""Simple formulas as text, for places that draw none: `x^2 \le \pi` becomes `x² ≤ π`."""

from __future__ import annotations

import re
import unicodedata

_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[{}^_]|\s+|[^\\{}^_\s]", re.DOTALL)
_SYMBOLS = {
    **dict.fromkeys(("left", "right", "displaystyle", "!"), ""),
    **dict.fromkeys((",", ";", ":", " ", "quad", "qquad"), " "),
    **{sign: sign for sign in "{}%$#&_|"},
    "|": "‖",
    "backslash": "∖",
    "lbrace": "{",
    "rbrace": "}",
    "langle": "⟨",
    "rangle": "⟩",
    "le": "≤",
    "leq": "≤",
    "ge": "≥",
    "geq": "≥",
    "ne": "≠",
    "neq": "≠",
    "approx": "≈",
    "equiv": "≡",
    "sim": "∼",
    "cong": "≅",
    "propto": "∝",
    "ll": "≪",
    "gg": "≫",
    "pm": "±",
    "mp": "∓",
    "times": "×",
    "cdot": "·",
    "div": "÷",
    "ast": "∗",
    "circ": "∘",
    "oplus": "⊕",
    "otimes": "⊗",
    "cdots": "⋯",
    "ldots": "…",
    "dots": "…",
    "prime": "′",
    "to": "→",
    "rightarrow": "→",
    "leftarrow": "←",
    "gets": "←",
    "mapsto": "↦",
    "Rightarrow": "⇒",
    "implies": "⇒",
    "Leftarrow": "⇐",
    "iff": "⇔",
    "leftrightarrow": "↔",
    "Leftrightarrow": "⇔",
    "uparrow": "↑",
    "downarrow": "↓",
    "in": "∈",
    "notin": "∉",
    "ni": "∋",
    "subset": "⊂",
    "subseteq": "⊆",
    "supset": "⊃",
    "supseteq": "⊇",
    "cup": "∪",
    "cap": "∩",
    "setminus": "∖",
    "emptyset": "∅",
    "varnothing": "∅",
    "forall": "∀",
    "exists": "∃",
    "neg": "¬",
    "lnot": "¬",
    "land": "∧",
    "wedge": "∧",
    "lor": "∨",
    "vee": "∨",
    "top": "⊤",
    "bot": "⊥",
    "vdash": "⊢",
    "models": "⊨",
    "perp": "⊥",
    "parallel": "∥",
    "mid": "|",
    "angle": "∠",
    "infty": "∞",
    "partial": "∂",
    "nabla": "∇",
    "hbar": "ℏ",
    "ell": "ℓ",
    "Re": "ℜ",
    "Im": "ℑ",
    "aleph": "ℵ",
    "degree": "°",
    "sum": "∑",
    "prod": "∏",
    "int": "∫",
    "iint": "∬",
    "oint": "∮",
    "varepsilon": "ε",
    "varphi": "φ",
    "vartheta": "ϑ",
    "varrho": "ϱ",
    "varsigma": "ς",
    "lim": "lim",
    **{name: name for name in ("sin", "cos", "tan", "log", "ln", "exp", "max", "min", "det")},
    **{name: name for name in ("arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "gcd")},
    **{name: name for name in ("dim", "ker", "deg", "arg", "sup", "inf", "Pr", "bmod")},
}
_LETTERS = {"C": "ℂ", "N": "ℕ", "P": "ℙ", "Q": "ℚ", "R": "ℝ", "Z": "ℤ"}
_AS_THEY_ARE = {"text", "mathrm", "operatorname", "textrm", "mathit", "mathbf", "mathsf"}
_ABOVE = dict(
    zip(
        "0123456789+-=()abcdefghijklmnoprstuvwxyz",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻ",
        strict=True,
    )
) | {"T": "ᵀ", "∗": "*", "*": "*", "′": "′", "∘": "°"}
_BELOW = dict(
    zip("0123456789+-=()aehijklmnoprstuvx", "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ", strict=True)
)
_FRACTIONS = {r"\frac", r"\dfrac", r"\tfrac"}
_ENDS, _BEGINS = re.compile(r"[\w)]\Z"), re.compile(r"[\w(√]")
_MOST_TOKENS = 400


class _NotSimple(Exception):
    """The formula has something that a line of text cannot show."""


def as_text(tex: str) -> str | None:
    r"""Return a formula, without its delimiters, as one line; None if it is not simple."""
    tokens = _TOKEN.findall(tex)
    if len(tokens) > _MOST_TOKENS:
        return None
    left = tokens[::-1]
    try:
        line = _line(left)
    except (_NotSimple, RecursionError):
        return None
    return re.sub(r"\s+", " ", line).strip() or None if not left else None


def _line(tokens: list[str]) -> str:
    """Return the text of tokens, the next of which is the last, up to the end of a group."""
    found, is_fraction = "", False
    while tokens and tokens[-1] != "}":
        sign = tokens.pop()
        if sign in "^_":
            found = found.rstrip() + _script(_atom(tokens), _ABOVE if sign == "^" else _BELOW)
            continue
        tokens.append(sign)
        was_fraction, is_fraction = is_fraction, sign in _FRACTIONS
        atom = _atom(tokens)
        # Not "2 1/2" for a product, and not "a/bc" for a fraction before c.
        if (was_fraction or is_fraction) and _ENDS.search(found) and _BEGINS.match(atom):
            found += "·"
        found += atom
    return found


def _atom(tokens: list[str]) -> str:
    while tokens and tokens[-1].isspace() and len(tokens) > 1 and tokens[-2] in ("{", "^", "_"):
        tokens.pop()
    if not tokens or tokens[-1] in "}^_":
        raise _NotSimple
    sign = tokens.pop()
    if sign == "{":
        inner = _line(tokens)
        if not tokens:
            raise _NotSimple
        tokens.pop()
        return inner
    if sign == "&":
        raise _NotSimple
    if sign[0] == "\\":
        return _command(sign[1:], tokens)
    return " " if sign.isspace() or sign == "~" else sign


def _command(name: str, tokens: list[str]) -> str:
    if f"\\{name}" in _FRACTIONS:
        return f"{_grouped(_argument(tokens))}/{_grouped(_argument(tokens))}"
    if name == "sqrt" and tokens[-1:] != ["["]:
        return f"√{_grouped(_argument(tokens))}"
    if name in _AS_THEY_ARE:
        return _argument(tokens)
    if name == "mathbb":
        return _LETTERS.get(_argument(tokens)) or _refuse()
    if (text := _SYMBOLS.get(name)) is not None:
        return text
    case = "CAPITAL" if name[0].isupper() else "SMALL"
    try:
        return unicodedata.lookup(f"GREEK {case} LETTER {name.upper().replace('LAMBDA', 'LAMDA')}")
    except KeyError:
        return _refuse()


def _argument(tokens: list[str]) -> str:
    while tokens and tokens[-1].isspace():
        tokens.pop()
    return _atom(tokens)


def _grouped(text: str) -> str:
    return text if re.fullmatch(r"\d+|√?\w[⁰-₟²³¹ⁱⁿ]*", text) else f"({text})"


def _script(text: str, signs: dict[str, str]) -> str:
    if not text or any(sign not in signs for sign in text):
        raise _NotSimple
    return "".join(signs[sign] for sign in text)


def _refuse() -> str:
    raise _NotSimple
