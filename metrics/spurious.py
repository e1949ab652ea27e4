"""Three questions about a model with a known spurious signal: is it shown, is it shown where it is absent, and is a
sound model accused? Adebayo, Muelly, Abelson, Kim 2022 (Post hoc explanations may be ineffective for detecting unknown
spurious correlation), section 3; their similarity is SSIM.

Each compares a named pair: contaminated model and truth, contaminated and clean model on clean inputs, contaminated and
clean model on the inputs that carry the signal.
"""

from __future__ import annotations

import torch
from torch import Tensor

from attribug import metrics
from attribug.metrics.alignment import flat
from attribug.metrics.similarity import SSIMForm, structural_similarity


@metrics.register(
    "k_ssd", kind="alignment", images=True, bounds=(-1, 1), visible=0.1, posts=("abs_sum_minmax",), domain=(0, 1),
    symmetric=False, reproduction=True, paper="Adebayo et al. 2022, section 3 (known spurious signal detection)",
)  # fmt: skip
def k_ssd(a: Tensor, masks: Tensor) -> Tensor:
    """With the signal, does the buggy model's map look like the mask? 1 the same, 0 unlike.

    SSIM of the contaminated model's map and the truth mask as an image, on inputs that carry the signal.

    High is claimed to mean that the signal is shown; read it against benign and floor. Undefined: a map without a
    range, an empty mask.
    """
    flat(a, masks)  # refuses other shapes
    values = structural_similarity(SSIMForm(a), SSIMForm(masks.double()), data_range=1.0)
    return torch.where(masks.flatten(1).any(1), values, torch.nan)


@metrics.register(
    "ccm", images=True, bounds=(-1, 1), visible=0.1, posts=("abs_sum_minmax",), prepare=SSIMForm, domain=(0, 1),
    inputs="clean_inputs", needs=("truth",), paper="Adebayo et al. 2022, section 3 (cause for concern)",
)  # fmt: skip
def ccm(a: SSIMForm, b: SSIMForm) -> Tensor:
    """Without the signal, are a clean and the buggy model's maps alike? 1 the same, no alarm; 0 unlike.

    SSIM of a clean and the contaminated model's maps of inputs *without* the signal: high, nobody becomes concerned.

    Undefined: a map without a range.
    """
    return structural_similarity(a, b, data_range=1.0)


@metrics.register(
    "fam", images=True, bounds=(-1, 1), visible=0.1, posts=("abs_sum_minmax",), prepare=SSIMForm, domain=(0, 1),
    needs=("truth",), paper="Adebayo et al. 2022, section 3 (false alarm)",
)  # fmt: skip
def fam(a: SSIMForm, b: SSIMForm) -> Tensor:
    """With the signal, are a clean and the buggy model's maps alike? 1 the same, a false alarm; 0 unlike.

    SSIM of a clean and the contaminated model's maps of inputs *with* the signal: high, a sound model is accused.

    Undefined: a map without a range.
    """
    return structural_similarity(a, b, data_range=1.0)
