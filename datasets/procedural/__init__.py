"""Procedural cars: a small 3-D renderer whose pictures come with ground-truth factors.

The built-in data source, so that everything runs without a download, and the ground truth for measures. `factors`
describes a car, `render` draws one, `sets` and `messy` write folders of pictures with a table.
"""
