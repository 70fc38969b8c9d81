"""Procedural cars: a small 3-D renderer whose pictures come with their true factors.

They are the embedded data source, so that everything runs without a download, and the oracle for later measures.
`factors` says what a car is, `render` draws one, `sets` and `messy` write folders of pictures with a table.
"""
