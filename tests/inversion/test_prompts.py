import pytest

from fti4cir.errors import InputError, ModelError
from fti4cir.inversion.prompts import Slot, Template, check_text


def test_sentences() -> None:
    assert Template().pseudo() == ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES)
    assert Template().pseudo("is red") == ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES, "but is red")
    assert Template().pseudo("is red", with_attributes=False) == ("a photo of", Slot.SUBJECT, "but is red")
    assert Template().pseudo_subject("on grass") == ("a photo of", Slot.SUBJECT, "with on grass")
    assert Template().pseudo_attributes("a dog") == ("a photo of a dog with", Slot.ATTRIBUTES)
    assert Template().real("a dog", "on grass") == "a photo of a dog with on grass"


def test_text_never_makes_a_slot() -> None:
    assert Template().pseudo("* [s] Slot.SUBJECT")[4] == "but * [s] Slot.SUBJECT"


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "\u3000"])
def test_blank_text(text: str) -> None:
    """What a user types is refused; what a benchmark asks leaves the template's own words."""
    with pytest.raises(InputError, match="empty"):
        check_text(text)
    assert check_text(text, allow_blank=True) == ""
    assert Template().pseudo(text) == ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES, "but")
    assert Template(modification=", {text}").pseudo(text, with_attributes=False) == ("a photo of", Slot.SUBJECT, ",")
    assert Template(modification="{text}").pseudo(text, with_attributes=False) == ("a photo of", Slot.SUBJECT)


def test_another_template() -> None:
    template = Template("an image of", "having", "that {text} now")
    assert template.pseudo("is red") == ("an image of", Slot.SUBJECT, "having", Slot.ATTRIBUTES, "that is red now")
    assert template.pseudo_subject("on grass") == ("an image of", Slot.SUBJECT, "having on grass")
    assert template.pseudo_attributes("a dog") == ("an image of a dog having", Slot.ATTRIBUTES)
    assert template.real("a dog", "on grass") == "an image of a dog having on grass"


@pytest.mark.parametrize("modification", ["", "but", "but {text} {text}"])
def test_a_template_needs_one_place_for_the_text(modification: str) -> None:
    with pytest.raises(ModelError, match=r"must hold \{text\} once"):
        Template(modification=modification)


def test_braces_in_a_text_are_text() -> None:
    assert Template().pseudo("{text} {0}")[-1] == "but {text} {0}"
