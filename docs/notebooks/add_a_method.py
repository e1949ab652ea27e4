# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Add a method of your own, and hold it against another
#
# A method is a function of the model, the inputs and the classes asked about. It stands beside all others at
# once.

# %%
import torch

import attribug


def sign_x_input(model, inputs, targets):
    """The input's pixels, signed by the gradient."""
    inputs = inputs.clone().requires_grad_()
    scores = model(inputs).gather(1, targets[:, None]).sum()
    return inputs.detach() * torch.autograd.grad(scores, inputs)[0].sign()


run = attribug.run(
    "smoke", bugs=["reinit"], methods=["gradient", sign_x_input, "random", "predictions"],
    changes={"levels.reinit": ["all"]}, out="runs/mine",
)  # fmt: skip
run

# %% [markdown]
# Does it tell more than the plain gradient? Both effects rest on the same models and images, so their
# difference is known better than either.

# %%
attribug.compare_methods(run, "sign_x_input", "gradient")

# %% [markdown]
# In a file of its own, with `@methods.register("sign_x_input")`, it can share passes with other methods, and
# `attribug check FILE` tells in seconds whether it keeps what every method promises: see
# [Extending](../extending.md).
