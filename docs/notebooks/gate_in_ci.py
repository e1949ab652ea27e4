# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Gate changes
#
# A table that is kept is a promise: a later run is held against it row by row. Here the change is one of
# parameters, which ruins SmoothGrad by noise.

# %%
import attribug

options = {
    "bugs": ["reinit"],
    "methods": ["smoothgrad", "random", "predictions"],
    "changes": {"levels.reinit": ["all"]},
}
before = attribug.run("smoke", out="runs/before", **options)
again = attribug.run("smoke", out="runs/again", **options)
attribug.compare(before, again)

# %% [markdown]
# The same code and models give the same numbers. Now with noise that drowns the picture:

# %%
options["changes"] = options["changes"] | {"method_options.smoothgrad.noise": 5.0}
after = attribug.run("smoke", out="runs/after", **options)
difference = attribug.compare(before, after)
difference

# %%
difference.ok, difference.code

# %% [markdown]
# `attribug compare runs/before runs/after` ends with that code, which is what fails a build: see [Gating
# CI](../ci.md). Rows that only one table has are left out by `common=True`.
