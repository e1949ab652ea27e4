# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Held against what people marked
#
# How far do a model's explanations agree with masks? Digits with a coloured block: to one model the block tells
# the digit, to the other it tells nothing. Where does each of them look?

# %%
import attribug

run = attribug.run("alignment", panels=["mnist_block"], methods=["gradient", "random"], seeds=1, examples=40)
run

# %%
rows = run.alignment.query("metric == 'pointing_game' and data == 'decorrelated'")
rows[["model", "mask", "method", "value", "random", "above_random", "accuracy", "reason"]]

# %% [markdown]
# The pointing game: how often the strongest pixel lies on the mask, beside what is expected of noise. One
# model of a kind is too few for intervals over models, and the reason says so. [Alignment](../alignment.md)
# has the whole suite.
