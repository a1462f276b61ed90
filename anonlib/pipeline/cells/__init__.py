"""The plan in cells: the same tables, made by many units of work, none of which holds more than its part of the faces.

Templates lie close together and photos of one person lie on both sides of any border, so no single cut into cells is
good. Instead the faces are cut six times, each time elsewhere, and what was joined inside the cells of one cut goes on
as a sum of embeddings inside those of the next, first at a high bar, last at the plan's own (`BARS`). With one cell
that is what the whole plan does, joins in the same order included. A label's faces meet in a bucket of their own, so
that a labelled person is one subject whatever it looks like; groups without a label join one as in the whole plan.

    scatter/BATCH    features of some shards -> fragments of one face, to the first cut and to the labels
    labels/BUCKET    the faces of some labels -> labelled subjects, their labels checked
    cut-R/CELL       fragments near one another -> larger fragments, to the next cut; from the last one: subjects
    classes/ROOM     the subjects of a cell (of several where they have few donors) -> classes
    deal/DECK        a random part of all classes -> whose surrogate each wears
    dress/ROOM       subjects and classes as the plan has them, and what each of their faces wears, by batch
    assign/BATCH     assignments of some shards, and the portraits that surrogates are made of, by block

Each step passes on parcels, files by receiver and sender, and begins when the step before has all its markers: a kill
costs the units that were at work. A class is formed of the subjects of one room with their templates at hand, so k,
effective k and equal weights hold exactly as in the whole plan, and a certificate says and proves the same. What
differs is who is near whom at a border.
"""
