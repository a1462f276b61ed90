# ---
# jupyter:
#   jupytext:
#     formats: py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Which k, which epsilon?
#
# For whoever writes the job file. Two numbers decide how much of a person stays in a face: `k`, how many people a
# class has, and `epsilon` (or `kappa`), how little noise is put on an identity. Here are both on made-up people, so
# that the shape of the trade is seen before anybody's photos are touched. It takes seconds.
#
# `ANONLIB_PEOPLE` is how many people the dataset has, `ANONLIB_RISK` the chance with which you would still accept
# that a perfect attacker picks the right person.

# %%
import math
import os

import altair as alt
import numpy as np
import pyarrow as pa

from anonlib.privacy.classes import alike, form_classes, microaggregate
from anonlib.privacy.clustering import normalized
from anonlib.privacy.dp import Mechanism, draw, epsilon_of

alt.renderers.enable("svg")  # pictures in the notebook itself: no network is needed to see them
PEOPLE = int(os.environ.get("ANONLIB_PEOPLE", "1000"))
RISK = float(os.environ.get("ANONLIB_RISK", "0.1"))
SIZE = 128
if PEOPLE < 2 or not 0 < RISK < 1:
    raise SystemExit("ANONLIB_PEOPLE must be 2 or more, and ANONLIB_RISK between 0 and 1")
drawn = np.random.default_rng(0)

# %% [markdown]
# ## The people
#
# Unit vectors of 128 numbers, as the pipeline's recognizer gives them, that vary much in some directions and little
# in others, as real ones do. A gender and an age band each; the oldest are few.

# %%
templates = normalized(drawn.normal(size=(PEOPLE, SIZE)).astype(np.float32) / np.sqrt(1 + np.arange(SIZE)) ** 0.7)
genders = drawn.choice(["female", "male"], PEOPLE, p=[0.4, 0.6])
ages = drawn.choice(["age-0", "age-1", "age-2"], PEOPLE, p=[0.55, 0.42, 0.03])
strata = list(zip(genders.tolist(), ages.tolist(), strict=True))

# %% [markdown]
# ## k
#
# Who knows that a person is in the dataset, and has the class's face before them, is left with the class: 1/k of a
# chance. What is paid is variety. `lost` is the share of what tells people apart that is gone once each became the
# mean of their class; `mixed` the share of people whose class had to mix genders or age bands, so that a woman may
# get a man's face.

# %%
ks = [k for k in (2, 3, 5, 8, 10, 15, 20, 30) if 2 * k <= PEOPLE]
rows = []
for k in ks:
    groups = microaggregate(templates, k)
    classes, left = form_classes(np.ones(PEOPLE, np.int64), strata, alike(templates, k), k=k)
    means = normalized(np.stack([templates[group].mean(axis=0) for group in groups]))
    own = np.concatenate([templates[group] @ mean for group, mean in zip(groups, means, strict=True)])
    within = sum(((templates[group] - templates[group].mean(axis=0)) ** 2).sum() for group in groups)
    sizes = [len(one.members) for one in classes]
    rows.append(
        {
            "k": k,
            "chance": 1 / k,
            "lost": float(within / ((templates - templates.mean(axis=0)) ** 2).sum()),
            "likeness": float(own.mean()),
            "classes": len(classes),
            "largest": max(sizes, default=0),
            "mixed": sum(len(one.members) for one in classes if len(one.stratum) < 2) / PEOPLE,
            "hidden": len(left),
        }
    )
print("".join(f"{name:>10}" for name in rows[0]))
for row in rows:
    print("".join(f"{value:>10.3g}" for value in row.values()))

# %%
told = pa.Table.from_pylist(
    [{"k": row["k"], "what": what, "share": row[what]} for row in rows for what in ("chance", "lost", "mixed")]
)
alt.Chart(told, width=420, height=220).mark_line(point=True).encode(
    x=alt.X("k:Q"),
    y=alt.Y("share:Q", scale=alt.Scale(domain=[0, 1])),
    color=alt.Color("what:N", title=None),
)

# %% [markdown]
# The chance falls as 1/k, so going from 2 to 5 buys much and from 20 to 30 little, while the loss rises at once and
# then flattens. That chance is about the identity channel alone: hair, clothes and place come on top, and the audit
# measures them.
#
# ## epsilon
#
# Noise on the identity says something else: whatever is seen, no person becomes more than `e^eps` times as likely,
# against any other, as before. With n people and nothing known beforehand, the right one is picked at most with
# chance `e^eps / (e^eps + n - 1)`. Beside this bound stands what the best guess, the nearest template, really gets,
# and how like the person the drawn identity still is.

# %%
asked = drawn.choice(PEOPLE, min(PEOPLE, 200), replace=False)
rows = []
for name in ("laplace", "vmf", "purkayastha"):
    for parameter in (1, 2, 5, 10, 20, 50, 100, 200):
        mechanism = Mechanism(name, float(parameter))
        cost = epsilon_of(mechanism)
        noisy = np.stack([draw(mechanism, templates[person], drawn) for person in asked])
        odds = math.exp(min(cost.pure, 700))
        rows.append(
            {
                "mechanism": name,
                "parameter": parameter,
                "pure epsilon": cost.pure,
                "bound": odds / (odds + PEOPLE - 1),
                "rank-1": float(((noisy @ templates.T).argmax(axis=1) == asked).mean()),
                "cosine": float((noisy * templates[asked]).sum(axis=1).mean()),
            }
        )
print("".join(f"{name:>14}" for name in rows[0]))
for row in rows:
    print("".join(f"{value:>14}" if isinstance(value, str) else f"{value:>14.3g}" for value in row.values()))

# %%
drawn_rows = pa.Table.from_pylist(rows)
base = alt.Chart(drawn_rows, width=300, height=220).encode(
    x=alt.X("pure epsilon:Q", scale=alt.Scale(type="log")), color=alt.Color("mechanism:N", title=None)
)
picked = base.mark_line(point=True).encode(y=alt.Y("rank-1:Q", title="the right person is picked"))
bound = base.mark_line(strokeDash=[4, 3]).encode(y=alt.Y("bound:Q"))
alike = base.mark_line(point=True).encode(y=alt.Y("cosine:Q", title="cosine to the person"))
(picked + bound).properties(title="picked (dashed: what is proved)") | alike.properties(title="likeness")

# %% [markdown]
# The bound holds against whatever attacker, and soon says nothing: a pure epsilon of ten is no promise any more among
# a thousand people. The measured curve falls much later, since noise in 128 directions hides more than the proof can
# use. Report both, and do not mistake the second for the first: it is one attack, on people of one kind. For two
# people who resemble each other `dp-vmf` and `dp-purkayastha` promise more than the pure figure: their parameter
# times how far apart the two are.
#
# ## Decide
#
# The least k whose chance is within your risk; the largest parameter of each mechanism whose proved bound is, and the
# largest whose measured rank-1 is. If no bound holds, `dp-uniform` costs nothing: it does not look at the person at
# all. Each further release of the same people spends epsilon again, unless a ledger lets them keep their face.


# %%
def up_to(parameter: int | None) -> str:
    return "none of these" if parameter is None else f"up to {parameter}"


enough = [k for k in ks if 1 / k <= RISK]
print(
    f"method: {{name: k-diff, k: {enough[0]}}}" if enough else "No k here is enough: gather more people, or use solid."
)
for name in ("laplace", "vmf", "purkayastha"):
    mine = [row for row in rows if row["mechanism"] == name]
    proved = max((row["parameter"] for row in mine if row["bound"] <= RISK), default=None)
    seen = max((row["parameter"] for row in mine if row["rank-1"] <= RISK), default=None)
    field = "kappa" if name == "vmf" else "epsilon"
    print(f"dp-{name}: {field} {up_to(proved)} is proved to be enough; {up_to(seen)} was enough here")
