"""The method against figures that were computed with the authors' release (see `reference/README.md`)."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion, InversionConfig, PseudoWords
from fti4cir.inversion.prompts import Template
from fti4cir.methods.fti4cir import InversionWeights
from fti4cir.models.authors_pickle import our_name, read_released
from fti4cir.models.loading import load
from fti4cir.training import losses
from released import RELEASED

pytestmark = pytest.mark.numeric
THRESHOLDS = (0.02, 0.05, 0.5)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Each value within the tolerance, absolute or relative, whichever is looser."""
    limit = torch.clamp(expected.abs(), min=1) * tolerance
    worst = ((found - expected).abs() / limit).max()
    assert worst <= 1, f"off by {worst:.1f} times the tolerance"


@pytest.fixture(scope="module")
def reference(clip_tiny: Path) -> SimpleNamespace:
    encoder = load(clip_tiny, device="cpu").encoder
    expected = load_file(RELEASED / "expected.safetensors")
    released = read_released(RELEASED / "released_checkpoint.pth")
    return SimpleNamespace(
        encoder=encoder,
        expected=expected,
        texts=json.loads((RELEASED / "texts.json").read_text(encoding="utf-8")),
        state=released.state,
        config=released.config,
        features=encoder.encode_pixels(expected["pixel_values"]),
    )


def network(reference: SimpleNamespace, threshold: float = 0.05) -> FineGrainedInversion:
    built = FineGrainedInversion(InversionConfig(**{**vars(reference.config), "threshold": threshold})).eval()
    built.load_state_dict(reference.state)
    return built


def pseudo_words(reference: SimpleNamespace, threshold: float = 0.05) -> PseudoWords:
    return network(reference, threshold)(*reference.features)


def test_released_parameters(reference: SimpleNamespace) -> None:
    """The pickle gives the same numbers as the copy of its weights under the release's names."""
    layout = load_file(RELEASED / "fti_released_layout.safetensors")
    assert reference.state.keys() == {our_name(name) for name in layout}
    for name, value in layout.items():
        assert torch.equal(reference.state[str(our_name(name))], value)
    assert reference.config == InversionConfig(64, 128, 64)


def test_image_tower(reference: SimpleNamespace) -> None:
    assert_close(reference.features.image, reference.expected["image_features"])
    assert_close(reference.features.local, reference.expected["patch_features"])


def test_pseudo_words(reference: SimpleNamespace) -> None:
    words, expected = pseudo_words(reference), reference.expected
    assert_close(words.latent, expected["latent_local_features"])
    assert_close(words.relevance, expected["relevance"])
    assert_close(words.subject, expected["subject_token"])
    assert_close(words.attributes, expected["attribute_tokens"])


@pytest.mark.parametrize("threshold", THRESHOLDS)
def test_selection_under_thresholds(reference: SimpleNamespace, threshold: float) -> None:
    words = pseudo_words(reference, threshold)
    assert words.counts.tolist() == reference.expected[f"threshold_{threshold}.num_attributes"].tolist()
    assert_close(words.selected, reference.expected[f"threshold_{threshold}.selected_local_features"])
    sentences = [Template().pseudo(text) for text in reference.texts["modifications"]]
    composed = encode_sentences(reference.encoder, sentences, words)
    assert_close(composed, reference.expected[f"threshold_{threshold}.composed_features"])


def sentence_features(reference: SimpleNamespace, words: PseudoWords) -> dict[str, Tensor]:
    subjects, attributes = reference.texts["subjects"], reference.texts["attributes"]
    sentences = {
        "whole_features": [Template().pseudo()] * len(subjects),
        "subject_features": [Template().pseudo_subject(attribute) for attribute in attributes],
        "attribute_features": [Template().pseudo_attributes(subject) for subject in subjects],
        "caption_features": [(Template().real(*both),) for both in zip(subjects, attributes, strict=True)],
        "composed_features": [Template().pseudo(text) for text in reference.texts["modifications"]],
    }
    return {name: encode_sentences(reference.encoder, of, words) for name, of in sentences.items()}


def test_sentences(reference: SimpleNamespace) -> None:
    for name, found in sentence_features(reference, pseudo_words(reference)).items():
        assert_close(found, reference.expected[name])


def loss_terms(reference: SimpleNamespace, words: PseudoWords) -> dict[str, Tensor]:
    text = sentence_features(reference, words)
    real = text["caption_features"].detach()
    return {
        "contrastive": losses.contrastive(reference.features.image, text["whole_features"]),
        "orthogonality": losses.orthogonality(words.selected),
        "regularization_subject": losses.regularization(text["subject_features"], real),
        "regularization_attributes": losses.regularization(text["attribute_features"], real),
        "regularization_whole": losses.regularization(text["whole_features"], real),
    }


def test_losses(reference: SimpleNamespace) -> None:
    terms, expected = loss_terms(reference, pseudo_words(reference)), reference.expected
    assert_close(terms["contrastive"], expected["loss_contrastive"])
    assert_close(terms["orthogonality"], expected["loss_orthogonal"])
    assert_close(terms["regularization_subject"], expected["loss_subject"])
    assert_close(terms["regularization_attributes"], expected["loss_attribute"])
    assert_close(terms["regularization_whole"], expected["loss_whole"])
    assert_close(InversionWeights().total(terms), expected["loss_total"])


def test_gradients(reference: SimpleNamespace) -> None:
    """The norm of the total loss's gradient, for every parameter."""
    inversion = network(reference)
    InversionWeights().total(loss_terms(reference, inversion(*reference.features))).backward()
    norms = {our_name(theirs): norm for theirs, norm in reference.texts["grad_norms"].items()}
    parameters = dict(inversion.named_parameters())
    assert parameters.keys() == norms.keys()
    for name, parameter in parameters.items():
        assert parameter.grad is not None
        assert_close(parameter.grad.norm(), torch.tensor(norms[name]), 1e-4)


def test_caption_token_ids(reference: SimpleNamespace) -> None:
    """CLIP's own tokenisation, which pads with zeros to 77."""
    encoder = reference.encoder
    for index, row in enumerate(reference.expected["caption_token_ids"].tolist()):
        text = Template().real(reference.texts["subjects"][index], reference.texts["attributes"][index])
        ids = [encoder.start_token, *encoder.tokenize(text), encoder.end_token]
        assert row == ids + [0] * (77 - len(ids))


def test_real_length_gives_what_full_padding_gives(reference: SimpleNamespace) -> None:
    encoder = reference.encoder
    ids = reference.expected["caption_token_ids"]
    lengths = ids.argmax(dim=1) + 1  # the end token has the highest id
    padded = encoder.encode_embeddings(encoder.embed_tokens(ids), lengths)
    assert_close(padded, reference.expected["caption_features"])


def test_batch_gives_what_one_by_one_gives(reference: SimpleNamespace) -> None:
    words = pseudo_words(reference)
    texts = reference.texts["modifications"]
    together = encode_sentences(reference.encoder, [Template().pseudo(text) for text in texts], words)
    for index, text in enumerate(texts):
        alone = encode_sentences(reference.encoder, [Template().pseudo(text)], words, owner=torch.tensor([index]))
        assert_close(alone[0], together[index])
