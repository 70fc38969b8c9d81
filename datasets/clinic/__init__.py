"""The data clinic: a local page on which a person reviews what cleaning did and overrides it.

`sheets` finds pictures in the manifest, `session` has a person's choices, `server` is the page, `command` starts it.
"""
