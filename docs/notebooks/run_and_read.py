# ---
# jupyter:
#   jupytext:
#     text_representation: {extension: .py, format_name: percent}
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---

# %% [markdown]
# # Run the benchmark, and read what it says
#
# A run takes a suite, trains models with and without each bug, explains them, and gives a verdict for every
# method and bug. Here is a small one, of one bug and few methods; `attribug run` on the command line does the
# same with all of them.

# %%
import attribug

run = attribug.run(
    "smoke",
    bugs=["reinit"],
    methods=["gradient", "guided_backprop", "random", "predictions"],
    changes={"levels.reinit": [1, 3]},
    keep_maps=True,
)
run

# %% [markdown]
# `●` the method sees the bug, `○` it is blind to it, `?` nobody can tell with three models a side. The number
# is the effect: how often the maps tell the buggy model from its control, .5 being a guess. The table has what
# it rests on.

# %%
columns = ["bug", "level", "method", "value", "benign", "floor", "effect", "ci_low", "ci_high", "verdict", "reason"]
run.results.query("metric == 'spearman' and post == 'sum'")[columns]

# %% [markdown]
# Maps are there as well. The gradient of one clean model, and of the same model whose last three layers are
# random:

# %%
clean = run.maps("gradient", "reinit", 3, seed=0, side="reference")
buggy = run.maps("gradient", "reinit", 3, seed=0)
cell = next(cell for _, cell in run.plan.contrasted if cell.level == "3" and cell.seed == 0)
data = cell.contrast.contaminated.examples.load()
image = data.inputs[(data.ids == int(clean.ids[3])).nonzero().item()]
attribug.show(image, clean.maps[3], title="clean")

# %%
attribug.show(image, buggy.maps[3], title="last three layers random")

# %% [markdown]
# What the explanation adds to the bare predictions, and which ranks are left open:

# %%
run.analysis["ranking"]

# %% [markdown]
# The page that can be sent to somebody: `attribug.report(run)`.

# %%
attribug.report(run)
