import pytest

from fti4cir.errors import InputError
from fti4cir.inversion import prompts
from fti4cir.inversion.prompts import Slot


def test_sentences() -> None:
    assert prompts.whole() == ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES)
    assert prompts.whole("is red") == ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES, "but is red")
    assert prompts.subject_only("is red") == ("a photo of", Slot.SUBJECT, "but is red")
    assert prompts.pseudo_subject("on grass") == ("a photo of", Slot.SUBJECT, "with on grass")
    assert prompts.pseudo_attributes("a dog") == ("a photo of a dog with", Slot.ATTRIBUTES)
    assert prompts.real("a dog", "on grass") == ("a photo of a dog with on grass",)


def test_text_never_makes_a_slot() -> None:
    assert prompts.whole("* [s] Slot.SUBJECT")[4] == "but * [s] Slot.SUBJECT"


@pytest.mark.parametrize("text", ["", "  ", "\n\t", "\u3000"])
def test_empty_text(text: str) -> None:
    with pytest.raises(InputError, match="empty"):
        prompts.whole(text)
