"""Layer-wise relevance propagation and kin: zennit's rules, composed as each method's source composes them."""

from __future__ import annotations

from functools import partial

from torch import Tensor

from attribug import methods
from attribug.methods.composites import canonizers, composite, relevance
from attribug.query.query import Query, not_negative

EPSILON = 1e-7  # of the plain ε-rule, as in iNNvestigate
DENSE_EPSILON = 0.1  # of the sequential preset's dense layers, as in iNNvestigate
GAMMA = 0.25


@methods.register("lrp_epsilon", needs=("piecewise_linear",), conserves=True, paper="Bach et al. 2015, eq. 58")
def lrp_epsilon(query: Query, *, epsilon: float = EPSILON) -> Tensor:
    """LRP's epsilon rule hands the logit back, layer by layer, in proportion to what each value contributed.

    ε-rule in every layer; on networks of ReLU and max-pooling it collapses to input × gradient.
    """
    from zennit.rules import Epsilon

    not_negative("epsilon", epsilon)
    return relevance(query, partial(composite, partial(Epsilon, epsilon=epsilon), partial(Epsilon, epsilon=epsilon)))


@methods.register(
    "lrp_spaf", needs=("piecewise_linear",), conserves=True, paper="Alber et al. 2019: sequential preset A flat"
)
def lrp_spaf(query: Query, *, epsilon: float = DENSE_EPSILON) -> Tensor:
    """LRP's preset A flat hands the logit back: in convolutions to what spoke for it, at the input evenly.

    ε-rule in dense layers, α1β0 with bias in convolutions, flat rule in the first layer.
    """
    from zennit.rules import Epsilon, Flat, ZPlus

    not_negative("epsilon", epsilon)
    return relevance(query, partial(composite, ZPlus, partial(Epsilon, epsilon=epsilon), first=Flat))


@methods.register("deep_taylor", needs=("piecewise_linear",), conserves=True, paper="Montavon et al. 2017, section 4")
def deep_taylor(query: Query) -> Tensor:
    """Deep Taylor decomposition hands the logit back, layer by layer, to whatever spoke for it.

    The α1β0 rule with bias in every layer.
    """
    from zennit.rules import ZPlus

    return relevance(query, partial(composite, ZPlus, ZPlus))


@methods.register(
    "lrp_epsilon_plus_flat", needs=("piecewise_linear",), conserves=True, paper="Kohlbrenner et al. 2020: LRP-CMP"
)
def lrp_epsilon_plus_flat(query: Query) -> Tensor:
    """EpsilonPlusFlat hands the logit back by LRP, in convolutions to positive parts, at the input evenly.

    zennit's EpsilonPlusFlat: ε-rule in dense layers, z⁺ in convolutions, flat rule in the first layer.
    """
    from zennit.composites import EpsilonPlusFlat

    return relevance(query, lambda: EpsilonPlusFlat(canonizers=canonizers()))


@methods.register(
    "lrp_gamma", needs=("piecewise_linear",), conserves=True, paper="Montavon et al. 2019, section 10.2.3"
)
def lrp_gamma(query: Query, *, gamma: float = GAMMA, epsilon: float = EPSILON) -> Tensor:
    """LRP's gamma rule hands the logit back, in convolutions with more weight on positive contributions.

    γ-rule in convolutions, ε-rule in dense layers.
    """
    from zennit.rules import Epsilon, Gamma

    not_negative("gamma", gamma)
    not_negative("epsilon", epsilon)
    return relevance(query, partial(composite, partial(Gamma, gamma=gamma), partial(Epsilon, epsilon=epsilon)))


@methods.register("excitation_backprop", needs=("piecewise_linear",), conserves=True, paper="Zhang et al. 2018, eq. 5")
def excitation_backprop(query: Query) -> Tensor:
    """Excitation backpropagation shares a score of 1 out, layer by layer, among what excites the class.

    z⁺ without bias in every layer, started with one at the target: zennit's ExcitationBackprop.
    """
    from zennit.composites import ExcitationBackprop

    return relevance(query, lambda: ExcitationBackprop(zero_params=["bias"], canonizers=canonizers()), start="one")
