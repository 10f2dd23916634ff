"""The forms of an HTML page, as a person sees them: fields to fill and buttons to press."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Final

Attributes = list[tuple[str, str | None]]

_BUTTON_TYPES: Final = ("submit", "image")


class NoSuchControl(LookupError):
    """The page does not offer what was to be filled or pressed; the text says what it offers."""


@dataclass
class Form:
    """Inputs and buttons only; a page that needs more than that is not one of ours."""

    action: str
    method: str
    fields: dict[str, str] = field(default_factory=dict)
    buttons: list[tuple[str, str]] = field(default_factory=list)

    def filled(
        self, values: Mapping[str, str], press: tuple[str, str] | None = None
    ) -> dict[str, str]:
        """What submitting sends: hidden fields as they are, `values`, and the pressed button.

        Without `press` the first button counts as pressed, as after the Enter key. Raises
        NoSuchControl.
        """
        if unknown := values.keys() - self.fields.keys():
            raise NoSuchControl(f"no field {sorted(unknown)}, only {sorted(self.fields)}")
        if press is not None and press not in self.buttons:
            raise NoSuchControl(f"no button {press}, only {self.buttons}")
        name, value = press or next(iter(self.buttons), ("", ""))
        return {**self.fields, **values, **({name: value} if name else {})}


def parse_forms(html: str) -> list[Form]:
    parser = _FormParser()
    parser.feed(html)
    parser.close()
    return parser.forms


class _FormParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self._open: Form | None = None

    def handle_starttag(self, tag: str, attrs: Attributes) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self._open = Form(given.get("action", ""), given.get("method", "get").lower())
            self.forms.append(self._open)
        elif self._open is not None and "disabled" not in given:
            self._control(self._open, tag, given)

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._open = None

    def _control(self, form: Form, tag: str, given: dict[str, str]) -> None:
        name, value = given.get("name", ""), given.get("value", "")
        default = {"button": "submit", "input": "text"}.get(tag)
        match given.get("type", default), tag:
            case kind, "button" | "input" if kind in _BUTTON_TYPES:
                form.buttons.append((name, value))
            case "checkbox" | "radio", "input" if "checked" not in given:
                pass
            case _, "input" if name:
                form.fields[name] = value or ("on" if given.get("type") == "checkbox" else "")
            case _:
                pass
