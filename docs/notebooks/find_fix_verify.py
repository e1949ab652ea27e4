# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Find it, fix it, verify it
#
# Decoy MNIST: the grey of a swatch in a corner tells the digit in training. The gradient finds it; right for
# the right reasons (`rrr`) punishes gradients on the swatch; accuracy where the swatch tells nothing verifies
# the fix.

# %%
import attribug

run = attribug.run(
    "right-reasons", tasks=["decoy_mnist"], fixes=["rrr"], methods=["gradient", "random", "predictions"], seeds=3,
    changes={"sweeps": {}, "task_options.decoy_mnist.train": 2000, "task_options.decoy_mnist.epochs": 32},
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
