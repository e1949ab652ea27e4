# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Ask about your own model
#
# Bring the model and some images. It is left as it is: what is damaged are copies. Here it is a small network
# that learns horizontal from vertical bars in a few seconds; put yours in its place.

# %%
import torch
from torch import nn

import attribug

stream = torch.Generator().manual_seed(0)
labels = torch.randint(0, 2, (120,), generator=stream)
images = 0.3 * torch.rand(120, 1, 16, 16, generator=stream)
for image, label, place in zip(images, labels, torch.randint(2, 14, (120,), generator=stream), strict=True):
    image[0, place] += 0.7 * (label == 0)
    image[0, :, place] += 0.7 * (label == 1)

torch.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
    nn.AdaptiveMaxPool2d(4), nn.Flatten(), nn.Linear(128, 2),
)  # fmt: skip
optimiser = torch.optim.Adam(model.parameters(), 0.01)
for _ in range(60):
    optimiser.zero_grad()
    nn.functional.cross_entropy(model(images), labels).backward()
    optimiser.step()
(model(images).argmax(1) == labels).float().mean()

# %% [markdown]
# Explanations of it, at once:

# %%
maps = attribug.explain("smoothgrad", model.eval(), images[:2], labels[:2])
attribug.show(images[0], maps[0], title="smoothgrad")

# %% [markdown]
# Which of them would notice that layers lost their weights, or that the weights carry noise? The control are
# copies of this model whose weights differ so little that predictions stay.

# %%
run = attribug.run(
    "own", model=model, data=(images, labels), methods=["gradient", "guided_backprop", "random", "edges"],
    bugs=["reinit", "weight_noise"],
)  # fmt: skip
run

# %% [markdown]
# Verdicts are about this model. [Your own model](../own.md) has the command line, masks, and bugs of the
# training data.
