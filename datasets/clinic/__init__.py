"""The data clinic: a page on this machine alone, on which a person looks at what cleaning did and decides otherwise.

`sheets` finds pictures in the manifest, `session` holds what a person does, `server` is the page, `command` starts it.
"""
