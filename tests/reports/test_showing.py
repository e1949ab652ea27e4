"""`attribug.show`: a map over what it explains."""

from __future__ import annotations

import io
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import attribug
from attribug.results.pictures import blended

RED, BLUE = (103, 0, 31), (5, 48, 97)  # the ends of the colour map
HALVES = np.concatenate([np.ones((8, 4)), -np.ones((8, 4))], axis=1)  # for on the left, against on the right


def drawn(figure: Any) -> Any:
    """The pixels of the picture in a figure, (H, W, 3)."""
    (axes,) = figure.axes
    return np.asarray(axes.images[0].get_array())


IMAGES = {
    "tensor": torch.rand(3, 8, 8), "one channel": torch.rand(1, 8, 8), "five channels": torch.rand(5, 8, 8),
    "no channel": np.random.default_rng(0).normal(size=(8, 8)), "half": torch.rand(3, 8, 8).half(),
    "bytes": np.arange(192, dtype=np.uint8).reshape(3, 8, 8), "photograph": np.zeros((8, 8, 3), np.uint8),
    "flat": torch.zeros(3, 8, 8), "with gradient": torch.rand(3, 8, 8, requires_grad=True),
    "infinite": torch.full((8, 8), torch.inf), "huge": np.array([[-1e308, 1e308] * 4] * 8),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
@pytest.mark.filterwarnings("error")
def test_red_speaks_for_and_blue_against(kind: str) -> None:
    pixels = drawn(attribug.show(IMAGES[kind], HALVES))
    assert (pixels[:, :4] == RED).all()
    assert (pixels[:, 4:] == BLUE).all()


def test_channels_are_summed_and_the_image_is_scaled() -> None:
    image, signs = torch.linspace(-3, 5, 64).reshape(8, 8), torch.from_numpy(HALVES)
    many = attribug.show(image, torch.stack([signs * 2, -signs, signs * 0]))
    assert np.array_equal(drawn(many), drawn(attribug.show(image * 10 + 1, signs)))
    plain = drawn(attribug.show(image, torch.zeros(8, 8)))
    assert plain[0, 0].tolist() == [128] * 3, "the lowest; a map covers a lighter picture"
    assert plain[-1, -1].tolist() == [255] * 3


def test_a_page_and_a_figure_show_the_same() -> None:
    photograph = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    assert np.array_equal(drawn(attribug.show(photograph, HALVES)), blended(photograph, HALVES))


def test_few_values_that_are_not_zero_are_seen() -> None:
    """Also where they are fewer than the share that gets full colour."""
    sparse = np.zeros((32, 32))
    sparse[3, 4] = -1e-6
    assert tuple(drawn(attribug.show(np.zeros((32, 32)), sparse))[3, 4]) == BLUE


def test_vectors_are_bars_with_names_and_values() -> None:
    figure = attribug.show(torch.tensor([1.5, 20.0]), np.array([-1.0, np.inf]), names=["age", "$5 or $6"], title="$a$")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["age = 1.5", r"\$5 or \$6 = 20"]
    assert [bar.get_width() for bar in axes.patches] == [-1.0, 0.0]
    assert axes.get_title() == "$a$"
    figure.savefig(io.BytesIO())


def test_sequences_are_lines_over_bars() -> None:
    upper, lower = attribug.show(torch.rand(2, 30), torch.randn(30)).axes
    assert (len(upper.lines), len(lower.patches)) == (2, 30)


def test_a_notebook_shows_it_without_pyplot() -> None:
    """As a picture, and nothing stays behind."""
    code = (
        "import sys, torch, attribug; shown = attribug.show(torch.rand(3, 8, 8), torch.rand(8, 8))._repr_png_();"
        "assert 'matplotlib.pyplot' not in sys.modules; sys.stdout.buffer.write(shown)"
    )
    picture = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout
    assert Image.open(io.BytesIO(picture)).size[0] > 100


WRONG: dict[str, tuple[Any, Any, dict[str, Any], str]] = {
    "batch": (torch.rand(2, 3, 8, 8), HALVES, {}, r"image: expected an image .*, found \(2, 3, 8, 8\); image\[0\] is"),
    "another size": (torch.rand(3, 8, 9), HALVES, {}, r"of the image's size \(8, 9\), found \(8, 8\)"),
    "batch of maps": (torch.rand(3, 8, 8), torch.rand(1, 3, 8, 8), {}, r"map: expected \(H, W\).*found \(1, 3, 8, 8\)"),
    "flat map": (torch.rand(3, 8, 8), torch.rand(8), {}, r"map: expected .*found \(8,\)"),
    "complex": (torch.rand(8, 8), torch.rand(8, 8) * 1j, {}, r"map: expected real numbers, found complex64 \(8, 8\)"),
    "texts": (np.array([["a"]]), HALVES, {}, "image: expected real numbers, found <U1"),
    "sparse": (torch.eye(8).to_sparse(), HALVES, {}, "image: expected a dense tensor, found torch.sparse_coo"),
    "a list": ([[1.0]], HALVES, {}, "image: expected a tensor or an array, found list"),
    "nothing": (torch.rand(3, 0, 8), HALVES, {}, r"image: expected numbers, found none: \(3, 0, 8\)"),
    "a number": (torch.tensor(1.0), HALVES, {}, r"image: expected an image .*, found \(\)"),
    "too long": (torch.rand(3), torch.rand(4), {}, r"map: expected \(D,\) of the image's size \(3,\), found \(4,\)"),
    "too many": (torch.rand(900), torch.rand(900), {}, "at most 200 features to show, found 900"),
    "names": (torch.rand(3), torch.rand(3), {"names": ["a"]}, "names: expected 3, one for each feature, found 1"),
    "one name": (torch.rand(3), torch.rand(3), {"names": "abc"}, "names: expected 3, .*found 'abc'"),
    "names of pixels": (torch.rand(8, 8), HALVES, {"names": ["a"]}, r"names: expected none but for a vector"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_input_is_one_line(what: str) -> None:
    image, values, options, said = WRONG[what]
    with pytest.raises(attribug.InputError, match=said) as told:
        attribug.show(image, values, **options)
    assert "\n" not in str(told.value)
