# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Find it, fix it, verify it
#
# Decoy MNIST: the grey of a swatch in a corner tells the digit in training. Of a model that learnt it the
# gradient lies on the swatch; right for the right reasons (`rrr`) punishes that; accuracy where the swatch
# tells nothing verifies the fix. Three models and few images decide few verdicts; the tables below are the point.

# %%
import attribug

run = attribug.run(
    "right-reasons", tasks=["decoy_mnist"], fixes=["rrr"], methods=["gradient", "random", "predictions"], seeds=3,
    changes={"sweeps": {}, "task_options.decoy_mnist.train": 3000},
)  # fmt: skip
run

# %% [markdown]
# `biased`: the swatch tells the truth, `decorrelated`: it tells nothing. The bound is `clean_data`, which never
# saw a swatch that tells.

# %%
shown = run.fixes.query("test_set in ['biased', 'decorrelated']")
shown.groupby(["fix", "test_set"])[["accuracy", "mask_share"]].mean().round(3)

# %% [markdown]
# A corrected map does not prove a corrected model: [Fixes](../fixes.md) tells where only the map moved.
